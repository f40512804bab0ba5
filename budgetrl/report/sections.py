"""One run's report: which sections it has, and what each says."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from budgetrl.account.evaluated import EvaluatedRun
from budgetrl.account.outcome import STATUS_TONES, difference_sentence, paid, stopped, tone_of
from budgetrl.account.text import points, suite_name
from budgetrl.diagnosis.findings import CAUSES, Finding, diagnose
from budgetrl.events import changed_value
from budgetrl.masking import masked_tree
from budgetrl.recipe.schema import Lora, Recipe, StageKind, Teacher
from budgetrl.report.bill import bill_blocks
from budgetrl.report.document import (
    Block,
    Code,
    Document,
    Figures,
    Listing,
    Section,
    Table,
    Text,
    Tile,
    Tiles,
)
from budgetrl.report.evaluations import outcome_blocks
from budgetrl.report.samples import sample_blocks
from budgetrl.types import RunStatus
from budgetrl.units import duration, percent, usd

_MANIFEST = (
    *("command", "created", "budgetrl", "git", "python", "versions", "machine", "gpu", "engine"),
    *("data", "suites", "prompt", "grader", "overlap", "dropped"),
)
"""Entries of the manifest that a report shows."""


def run_document(run: EvaluatedRun) -> Document:
    """The report of one run."""
    lora = run.recipe.lora if run.recipe else None
    adapter = f"{_trained(lora)}, " if lora else ""
    subtitle = f"{run.model}, {adapter}seed {run.seed}"
    return Document(
        title=run.name,
        status=run.status.value,
        status_tone=STATUS_TONES[run.status],
        subtitle=subtitle,
        headline=headline(run),
        notices=list(_notices(run)),
        sections=[section for section in _sections(run) if section.blocks],
        footer=f"Made from the files of {run.run.name} alone.",
    )


def headline(run: EvaluatedRun) -> list[Text]:
    """One sentence per compared suite, then how the run ended and what it cost."""
    sentences = [
        Text(f"{difference_sentence(suite, by_k[1])}.", tone_of(by_k[1].interval_95))
        for suite, by_k in run.differences.items()
        if 1 in by_k
    ]
    ended = run.status not in (RunStatus.CRASHED, RunStatus.RUNNING)
    finished = run.history.finished if ended else None
    end = Text(f"{stopped(run, finished or run.status)} and {paid(run)}.", "muted")
    return [*(sentences or [Text(_without_comparison(run), "muted")]), end]


def _without_comparison(run: EvaluatedRun) -> str:
    if not run.suites:
        return "This run has no evaluation yet, so nothing can be said about its outcome."
    parts = []
    for suite in run.suites:
        shown = run.scored(suite)
        if not shown:
            continue
        first, last = shown[0], shown[-1]
        text = f"{suite_name(suite)} stood at {percent(first.pass_at[1])} pass@1"
        text += " at the start" if first.when == "baseline" else f" after {first.step} updates"
        if last is not first:
            text += f" and at {percent(last.pass_at[1])} after {last.step} updates"
        parts.append(text)
    said = "There is no final evaluation to compare with the start."
    return f"{said} {'; '.join(parts)}." if parts else said


def _sections(run: EvaluatedRun) -> Iterator[Section]:
    from budgetrl.report.figures import frontier, learning_curves  # loads matplotlib
    from budgetrl.report.several import beside_paper
    from budgetrl.report.thinking import thinking_blocks

    yield Section("At a glance", [Tiles(_tiles(run))])
    found = _findings(run)
    yield Section("What went wrong", list(_went_wrong(found)))
    yield Section("Outcome", list(outcome_blocks(run)))
    taught = run.recipe is not None and run.recipe.distils
    groups = "" if taught else ", and how many groups per unit of cost could teach at all"
    intro = f"Held-out accuracy by checkpoint{groups}."
    yield Section("What the money bought", _figures(frontier(run)), intro)
    yield Section("Learning", _figures(learning_curves(run)))
    yield Section("Accuracy and thinking", list(thinking_blocks(run)))
    yield Section("Beside the paper", list(beside_paper(run)))
    yield Section("The bill", bill_blocks(run))
    yield Section("Completions", sample_blocks(run))
    yield Section("Warnings", list(_warnings(run, found)))
    yield Section("What was run", list(_what_was_run(run)))


def _figures(figures: Sequence[Any]) -> list[Block]:
    return [Figures(figures)] if figures else []


def _notices(run: EvaluatedRun) -> Iterator[str]:
    if run.status is RunStatus.CRASHED:
        yield (
            "This run crashed: nobody holds its lock and no end was written. "
            f"Continue it with `budgetrl resume {run.run.name}`."
        )
    if run.status in (RunStatus.CRASHED, RunStatus.FAILED):
        for error in run.history.errors[-1:]:
            yield f"{error.type}: {error.message} {error.hint}".strip()
    if run.status is RunStatus.RUNNING:
        yield "This run is still going on; the report shows what there is so far."
    yield from run.notes
    yield from run.cut.values()


def _tiles(run: EvaluatedRun) -> list[Tile]:
    tiles = []
    for suite, by_k in run.differences.items():
        final = run.evaluation("final", suite)
        base = run.evaluation("baseline", suite)
        if 1 in by_k and final is not None and base is not None:
            found = by_k[1]
            shown = f"{percent(base.pass_at.get(1))} \u2192 {percent(final.pass_at.get(1))}"
            tone = tone_of(found.interval_95)
            label = f"pass@1 {suite_name(suite)}, points"
            tiles.append(Tile(label, points(found.difference), shown, tone))
    budget = run.budget_s
    if run.paid_usd is not None:
        tiles.append(Tile("Bill", usd(run.paid_usd), f"of {usd(run.usd_of(budget))}"))
    tiles.append(Tile("Time paid", duration(run.paid_s), f"of {duration(budget)}"))
    planned = run.plan.steps if run.plan else None
    tiles.append(Tile("Updates", f"{run.steps:,}", f"{planned:,} planned" if planned else ""))
    completions = sum(step.completions for step in run.history.steps)
    tokens = sum(step.tokens for step in run.history.steps)
    if completions:
        tiles.append(Tile("Training completions", f"{completions:,}", f"{tokens:,} tokens"))
    return tiles


def _findings(run: EvaluatedRun) -> list[Finding]:
    """What the rules of `budgetrl diagnose` find; what ended the run stands at the top."""
    if run.recipe is None:
        return []
    found = diagnose(run.history, run.recipe)
    return [one for one in found if one.rule and one.severity != "info"]


def _went_wrong(found: Sequence[Finding]) -> Iterator[Block]:
    if found:
        yield Listing(
            [
                (f"From update {one.since_step} on", f"{one.says[0].upper()}{one.says[1:]}. What "
                f"to do: {one.advice}. ({one.name})")
                for one in found[:CAUSES]
            ]
        )  # fmt: skip
        more = ", ".join(f"{one.name} (from update {one.since_step})" for one in found[CAUSES:])
        also = f" Also: {more}." if more else ""
        yield Text(f"By the rules of `budgetrl diagnose`, causes first.{also}", "muted")


def _warnings(run: EvaluatedRun, found: Sequence[Finding]) -> Iterator[Block]:
    told = {one.name for one in found}
    for warning in run.history.warnings.values():
        if warning.code not in told:
            yield Text(f"{warning.message} ({warning.code})", "noise")
    for error in run.history.errors:
        yield Text(f"{error.type}: {error.message} {error.hint}".strip(), "bad")


def _what_was_run(run: EvaluatedRun) -> Iterator[Block]:
    recipe = run.recipe
    items = [("Recipe", run.name), ("Run directory", run.run.name)]
    if recipe is not None:
        lora = recipe.lora
        items += [
            ("Model", recipe.model.id),
            ("Trained", _trained_by(lora)),
            *([("Stages", _stages(recipe))] if recipe.stages else []),
            *([("Teacher", _teacher(recipe.teacher))] if recipe.teacher else []),
            ("Loss", _loss(recipe)),
            ("Batch", f"{recipe.batch.prompts_per_step} prompts, "
                f"{recipe.completions_per_step} completions per update"),
            ("Learning rate", f"{recipe.schedule.learning_rate:g} {recipe.schedule.shape}"),
            ("Rewards", ", ".join(f"{r.weight:g} {r.name}" for r in recipe.rewards)),
            ("Seed", str(recipe.seed)),
        ]  # fmt: skip
    manifest = masked_tree(run.manifest).items()
    items += [(_label(key), _brief(value)) for key, value in manifest if key in _MANIFEST]
    yield Listing(items)
    if recipe is not None:
        if recipe.inferred:
            rows = [[i.key, _value(run, i.key), i.source] for i in recipe.inferred]
            caption = "The paper does not state these." if recipe.paper else ""
            yield Table(["Inferred", "value", "taken from"], rows, caption, text_columns=3)
        if recipe.deviation:
            rows = [[d.key, str(d.paper), str(d.here), d.why] for d in recipe.deviation]
            yield Table(["Deviation", "paper", "here", "why"], rows, text_columns=4)
    if run.history.changes:
        rows = [
            [c.key, changed_value(c.before), changed_value(c.to), str(c.attempt)]
            for c in run.history.changes
        ]
        yield Table(["Changed", "from", "to", "since attempt"], rows, text_columns=3,
                    caption="On purpose, between two attempts; the recipe below has the new "
                    "values.")  # fmt: skip
    if run.tables:
        yield Code("The whole recipe, resolved", json.dumps(masked_tree(run.tables), indent=1))


def _stages(recipe: Recipe) -> str:
    return ", then ".join(f"{stage.name} ({stage.kind})" for stage in recipe.stages)


def _teacher(spec: Teacher) -> str:
    if spec.is_self:
        return "the model itself without its adapter, told the answer"
    adapter = "" if spec.adapter is None else f" with adapter {spec.adapter}"
    return f"{spec.id}{adapter}, {'4 bits' if spec.load_in_4bit else spec.dtype}"


def _loss(recipe: Recipe) -> str:
    """Of all stages; GRPO's only where one of them has it."""
    grpo = recipe.grpo
    rewarded = (
        f"{grpo.loss_type}, groups of {grpo.num_generations}, beta {grpo.beta:g}, "
        f"clip {grpo.epsilon:g}/{grpo.epsilon_high:g}, advantages by {grpo.scale_rewards}"
    )
    if not recipe.distils:
        return rewarded
    taught = "reverse KL to the teacher on the model's own answers"
    by_reward = any(stage.kind is StageKind.GRPO for stage in recipe.stages)
    by_reward |= any(part.distill.reward_weight > 0 for part in recipe.parts)
    return f"{taught}; {rewarded}" if by_reward else taught


def _value(run: EvaluatedRun, key: str) -> str:
    value: Any = run.tables
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)


def _label(key: str) -> str:
    return key.upper() if key == "gpu" else key.capitalize()


def _brief(value: Any) -> str:
    """A manifest entry in one line."""
    if value in (None, {}, []):
        return "none"
    if isinstance(value, Mapping):
        parts = ((key, _brief(inner)) for key, inner in value.items() if inner is not None)
        return ", ".join(
            f"{key} ({text})" if "," in text else f"{key} {text}" for key, text in parts
        )
    if isinstance(value, list):
        return ", ".join(_brief(inner) for inner in value[:12]) + (" ..." if value[12:] else "")
    return str(value)


def _trained(lora: Lora) -> str:
    at = "" if lora.scale is None else f" at scale alpha/r = {lora.scale:g}"
    return f"{lora.description}{at}"


def _trained_by(lora: Lora) -> str:
    if lora.scale is None:
        return lora.description
    rule = f"scale {lora.scale:g} ({lora.alpha_policy.value})"
    return f"{lora.description}, alpha {lora.resolved_alpha:g}, {rule}"
