"""The evaluations of one run as tables: before, after, difference, protocols, later additions."""

from collections.abc import Iterator, Sequence

from budgetrl.account.evaluated import EvaluatedRun
from budgetrl.account.text import suite_name
from budgetrl.evaluation.rounds import said_of
from budgetrl.report.cells import NOTHING, gain_cell, score_cell
from budgetrl.report.document import Block, Cell, Listing, Table, Text
from budgetrl.types import Protocol
from budgetrl.units import percent


def outcome_blocks(facts: EvaluatedRun) -> Iterator[Block]:
    """Before, after and the difference by suite; nothing without an evaluation."""
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
        "(Wilson with one sample), bootstrap for k > 1 (Wilson near an end). Differences are "
        "paired over the same problems and rounds. Numbers from evals/<suite>/<when>.json."
    )
    yield Table(head, rows, caption=caption, text_columns=2)
    yield from _answers(facts)
    yield Listing(list(_protocols(facts)))
    yield from _further(facts)
    selected = _selection(facts)
    if selected:
        yield Text(selected, "muted")


def _ks(facts: EvaluatedRun) -> list[int]:
    return sorted({k for e in facts.history.evaluations for k in e.pass_at})


def _evaluation_row(facts: EvaluatedRun, suite: str, when: str, label: str) -> Sequence[Cell | str]:
    found = facts.evaluation(when, suite)
    assert found is not None
    cells: list[Cell | str] = [suite_name(suite) if label == "before" else "", label]
    cells += [score_cell(found.pass_at.get(k), found.interval_95.get(k)) for k in _ks(facts)]
    cells += [
        f"{found.problems} x {found.samples}",
        percent(found.truncated_share),
        percent(found.unparsable_share),
        f"{found.completion_tokens_mean:,.0f}",
    ]
    return cells


def _difference_row(facts: EvaluatedRun, suite: str) -> Sequence[Cell | str]:
    by_k = facts.differences[suite]
    cells: list[Cell | str] = ["", Cell("difference", strong=True)]
    cells += [
        gain_cell(by_k[k].difference, by_k[k].interval_95) if k in by_k else NOTHING
        for k in _ks(facts)
    ]
    samples = next(iter(by_k.values())).samples if by_k else 0
    return [*cells, Cell(f"first {samples}", "muted"), "", "", ""]


def _answers(facts: EvaluatedRun) -> Iterator[Block]:
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


def _further(facts: EvaluatedRun) -> Iterator[Block]:
    """What `budgetrl eval` added to the run."""
    results = [
        (stored, stored.result)
        for stored in facts.further
        if stored.result is not None and stored.protocol.think is None
    ]
    ks = sorted({k for _, result in results for k in result.pass_at})
    rows: list[Sequence[Cell | str]] = []
    for stored, result in results:
        name = f"{suite_name(result.suite)} after {stored.step} updates"
        cells = [score_cell(result.pass_at.get(k), result.interval_95.get(k)) for k in ks]
        size = f"{result.problems} x {result.samples}"
        rows.append([Cell(name, note=protocol_text(stored.protocol)), *cells, size])
    if rows:
        head = ["Further evaluations", *(f"pass@{k}" for k in ks), "samples"]
        caption = "Made by `budgetrl eval` after the run, under the protocols named."
        yield Table(head, rows, caption=caption)


def protocol_text(p: Protocol) -> str:
    """How an evaluation was made, in one line."""
    return (
        f"temperature {p.temperature:g}, top_p {p.top_p:g}, {p.max_tokens:,} tokens, "
        f"seed {p.seed}, prompt {p.prompt}, suite {p.suite_fingerprint}, grader {p.grader}"
    )


def _protocols(facts: EvaluatedRun) -> Iterator[tuple[str, str]]:
    for suite in facts.suites:
        seen = {}
        for when in ("baseline", "final"):
            stored = facts.stored.get((suite, when))
            if stored is not None:
                seen[when] = protocol_text(stored.protocol)
            evaluation = facts.evaluation(when, suite)
            if evaluation is not None and (said := said_of(evaluation.rounds)):
                yield f"Rounds, {suite_name(suite)}, {when}", said
        texts = set(seen.values())
        if len(texts) == 1:
            yield f"Protocol, {suite_name(suite)}", texts.pop()
        for when, text in seen.items() if len(texts) > 1 else ():
            yield f"Protocol, {suite_name(suite)}, {when} (different: not compared)", text


def _selection(facts: EvaluatedRun) -> str:
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
