"""One run's report: which sections it has, and what each says."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from budgetrl.report.bill import bill_blocks
from budgetrl.report.document import (
    Block,
    Cell,
    Code,
    Document,
    Figures,
    Listing,
    Section,
    Table,
    Text,
    Tile,
    Tiles,
    Tone,
)
from budgetrl.report.facts import Facts
from budgetrl.report.outcome import TONES, headline
from budgetrl.report.samples import sample_blocks
from budgetrl.report.text import interval_text, judgement, points, suite_name
from budgetrl.types import RunStatus
from budgetrl.units import duration, percent, usd

STATUS_TONES: Mapping[RunStatus, Tone] = {
    RunStatus.FINISHED: "good",
    RunStatus.RUNNING: "noise",
    RunStatus.INTERRUPTED: "noise",
    RunStatus.FAILED: "bad",
    RunStatus.CRASHED: "bad",
}


_MANIFEST = (
    *("command", "created", "budgetrl", "git", "python", "versions", "machine", "gpu", "engine"),
    *("data", "suites", "prompt", "grader", "overlap", "dropped"),
)
"""Entries of the manifest that a report shows."""


def run_document(facts: Facts) -> Document:
    """The report of one run."""
    lora = facts.recipe.lora if facts.recipe else None
    adapter = f"LoRA rank {lora.rank} at scale alpha/r = {lora.scale:g}, " if lora else ""
    subtitle = f"{facts.model}, {adapter}seed {facts.seed}"
    return Document(
        title=facts.name,
        status=facts.status.value,
        status_tone=STATUS_TONES[facts.status],
        subtitle=subtitle,
        headline=headline(facts),
        notices=list(_notices(facts)),
        sections=[section for section in _sections(facts) if section.blocks],
        footer=f"Made from the files of {facts.run.name} alone.",
    )


def _sections(facts: Facts) -> Iterator[Section]:
    from budgetrl.report.figures import frontier, learning_curves  # loads matplotlib
    from budgetrl.report.several import beside_paper

    yield Section("At a glance", [Tiles(_tiles(facts))])
    yield Section("Outcome", list(_outcome(facts)))
    yield Section(
        "What the money bought",
        _figures(frontier(facts)),
        "Held-out accuracy by checkpoint, and how many groups per unit of cost could teach at all.",
    )
    yield Section("Learning", _figures(learning_curves(facts)))
    yield Section("Beside the paper", list(beside_paper(facts)))
    yield Section("The bill", bill_blocks(facts))
    yield Section("Completions", sample_blocks(facts))
    yield Section("Warnings", list(_warnings(facts)))
    yield Section("What was run", list(_what_was_run(facts)))


def _figures(figures: Sequence[Any]) -> list[Block]:
    return [Figures(figures)] if figures else []


def _notices(facts: Facts) -> Iterator[str]:
    if facts.status is RunStatus.CRASHED:
        yield (
            "This run crashed: nobody holds its lock and no end was written. "
            f"Continue it with `budgetrl resume {facts.run.name}`."
        )
    if facts.status in (RunStatus.CRASHED, RunStatus.FAILED):
        for error in facts.history.errors[-1:]:
            yield f"{error.type}: {error.message} {error.hint}".strip()
    if facts.status is RunStatus.RUNNING:
        yield "This run is still going on; the report shows what there is so far."
    yield from facts.notes


def _tiles(facts: Facts) -> list[Tile]:
    tiles = []
    for suite, by_k in facts.differences.items():
        final = facts.evaluation("final", suite)
        base = facts.evaluation("baseline", suite)
        if 1 in by_k and final is not None and base is not None:
            found = by_k[1]
            shown = f"{percent(base.pass_at.get('1'))} \u2192 {percent(final.pass_at.get('1'))}"
            tone = TONES[judgement(found.interval_95)]
            label = f"pass@1 {suite_name(suite)}, points"
            tiles.append(Tile(label, points(found.difference), shown, tone))
    budget = facts.history.budget_s
    if facts.paid_usd is not None:
        tiles.append(Tile("Bill", usd(facts.paid_usd), f"of {usd(facts.usd(budget))}"))
    tiles.append(Tile("Time paid", duration(facts.paid_s), f"of {duration(budget)}"))
    planned = facts.plan.steps if facts.plan else None
    tiles.append(Tile("Updates", f"{facts.steps:,}", f"{planned:,} planned" if planned else ""))
    completions = sum(step.completions for step in facts.history.steps)
    tokens = sum(step.tokens for step in facts.history.steps)
    if completions:
        tiles.append(Tile("Training completions", f"{completions:,}", f"{tokens:,} tokens"))
    return tiles


def _outcome(facts: Facts) -> Iterator[Block]:
    rows: list[Sequence[Cell | str]] = []
    for suite in facts.suites:
        for when, label in (("baseline", "before"), ("final", "after")):
            if facts.evaluation(when, suite) is not None:
                rows.append(_evaluation_row(facts, suite, when, label))
        if suite in facts.differences:
            rows.append(_difference_row(facts, suite))
    if not rows:
        return
    ks = _ks(facts)
    head = ["Suite", "", *(f"pass@{k}" for k in ks), "samples", "truncated", "no answer", "tokens"]
    caption = (
        "Shares of problems solved with 95 % intervals over problems: Student t for pass@1 "
        "(Wilson with one sample), bootstrap for k > 1. Differences are paired over the same "
        "problems and rounds. Numbers from evals/<suite>/<when>.json."
    )
    yield Table(head, rows, caption=caption, text_columns=2)
    yield from _answers(facts)
    yield Listing(list(_protocols(facts)))
    selected = _selection(facts)
    if selected:
        yield Text(selected, "muted")


def _ks(facts: Facts) -> list[int]:
    return sorted({int(k) for e in facts.history.evaluations for k in e.pass_at})


def _evaluation_row(facts: Facts, suite: str, when: str, label: str) -> Sequence[Cell | str]:
    found = facts.evaluation(when, suite)
    assert found is not None
    cells: list[Cell | str] = [suite_name(suite) if label == "before" else "", label]
    for k in map(str, _ks(facts)):
        if k in found.pass_at:
            interval = interval_text(found.interval_95.get(k))
            cells.append(Cell(percent(found.pass_at[k]), note=interval))
        else:
            cells.append(Cell("-", "muted"))
    cells += [
        f"{found.problems} x {found.samples}",
        percent(found.truncated_share),
        percent(found.unparsable_share),
        f"{found.completion_tokens_mean:,.0f}",
    ]
    return cells


def _difference_row(facts: Facts, suite: str) -> Sequence[Cell | str]:
    by_k = facts.differences[suite]
    cells: list[Cell | str] = ["", Cell("difference", strong=True)]
    for k in _ks(facts):
        if k not in by_k:
            cells.append(Cell("-", "muted"))
            continue
        found = by_k[k]
        interval = found.interval_95
        drawn = None if interval is None else (interval[0], found.difference, interval[1])
        cells.append(
            Cell(
                points(found.difference),
                TONES[judgement(interval)],
                strong=True,
                note=interval_text(interval, signed=True),
                interval=drawn,
            )
        )
    samples = next(iter(by_k.values())).samples if by_k else 0
    return [*cells, Cell(f"first {samples}", "muted"), "", "", ""]


def _answers(facts: Facts) -> Iterator[Block]:
    rows: list[Sequence[Cell | str]] = []
    for (suite, when), stored in facts.stored.items():
        result = stored.result
        if result is None:
            continue
        majority = ", ".join(f"maj@{k} {percent(v)}" for k, v in result.maj_at.items())
        tokens = [result.correct_tokens_mean, result.wrong_tokens_mean]
        shown = ["-" if value is None else f"{value:,.0f}" for value in tokens]
        when = {"baseline": "before", "final": "after"}[when]
        rows.append([suite_name(suite), when, majority or "-", *shown, str(result.timeouts)])
    if rows:
        head = ["Suite", "", "majority vote", "tokens if right", "tokens if wrong", "timeouts"]
        yield Table(head, rows, text_columns=2)


def _protocols(facts: Facts) -> Iterator[tuple[str, str]]:
    for suite in facts.suites:
        seen = {}
        for when in ("baseline", "final"):
            stored = facts.stored.get((suite, when))
            if stored is not None:
                p = stored.protocol
                seen[when] = (
                    f"temperature {p.temperature:g}, top_p {p.top_p:g}, {p.max_tokens:,} tokens, "
                    f"seed {p.seed}, prompt {p.prompt}, suite {p.suite_fingerprint}, {p.grader}"
                )
        texts = set(seen.values())
        if len(texts) == 1:
            yield f"Protocol, {suite_name(suite)}", texts.pop()
        for when, text in seen.items() if len(texts) > 1 else ():
            yield f"Protocol, {suite_name(suite)}, {when} (different: not compared)", text


def _selection(facts: Facts) -> str:
    if facts.recipe is None:
        return ""
    select = facts.recipe.select
    if select.use == "last":
        return "The final evaluation judges the last checkpoint: select.use in the recipe."
    finished = facts.history.finished
    chosen = finished.best_checkpoint if finished else None
    suite = suite_name(select.suite or "")
    text = f"The final evaluation judges the checkpoint with the best {select.metric} on {suite}"
    return f"{text} (ties to the earlier), as the recipe says: {chosen or 'none was selected yet'}."


def _warnings(facts: Facts) -> Iterator[Block]:
    for warning in facts.history.warnings.values():
        yield Text(f"{warning.message} ({warning.code})", "noise")
    for error in facts.history.errors:
        yield Text(f"{error.type}: {error.message} {error.hint}".strip(), "bad")


def _what_was_run(facts: Facts) -> Iterator[Block]:
    recipe = facts.recipe
    items = [("Recipe", facts.name), ("Run directory", facts.run.name)]
    if recipe is not None:
        lora, grpo = recipe.lora, recipe.grpo
        items += [
            ("Model", recipe.model.id),
            ("Adapter", f"LoRA rank {lora.rank}, alpha {lora.resolved_alpha:g}, "
                f"scale {lora.scale:g} ({lora.alpha_policy.value})"),
            ("Loss", f"{grpo.loss_type}, groups of {grpo.num_generations}, beta {grpo.beta:g}, "
                f"clip {grpo.epsilon:g}/{grpo.epsilon_high:g}, advantages by {grpo.scale_rewards}"),
            ("Batch", f"{recipe.batch.prompts_per_step} prompts, "
                f"{recipe.completions_per_step} completions per update"),
            ("Learning rate", f"{recipe.schedule.learning_rate:g} {recipe.schedule.shape}"),
            ("Rewards", ", ".join(f"{r.weight:g} {r.name}" for r in recipe.rewards)),
            ("Seed", str(recipe.seed)),
        ]  # fmt: skip
    items += [(key, _brief(value)) for key, value in facts.manifest.items() if key in _MANIFEST]
    yield Listing(items)
    if recipe is not None:
        if recipe.inferred:
            rows = [[i.key, _value(facts, i.key), i.source] for i in recipe.inferred]
            yield Table(["Inferred", "value", "taken from"], rows, text_columns=3,
                        caption="The paper does not state these.")  # fmt: skip
        if recipe.deviation:
            rows = [[d.key, str(d.paper), str(d.here), d.why] for d in recipe.deviation]
            yield Table(["Deviation", "paper", "here", "why"], rows, text_columns=4)
    if facts.resolved:
        yield Code("The whole recipe, resolved", json.dumps(facts.resolved, indent=1))


def _value(facts: Facts, key: str) -> str:
    value: Any = facts.resolved
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)


def _brief(value: Any) -> str:
    """A manifest entry in one line."""
    if isinstance(value, Mapping):
        parts = ((key, _brief(inner)) for key, inner in value.items() if inner is not None)
        return ", ".join(
            f"{key} ({text})" if "," in text else f"{key} {text}" for key, text in parts
        )
    if isinstance(value, list):
        return ", ".join(_brief(inner) for inner in value[:12]) + (" ..." if value[12:] else "")
    return str(value)
