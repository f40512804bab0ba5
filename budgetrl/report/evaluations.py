"""The evaluations of one run as tables: before, after, difference, protocols, later additions."""

from collections.abc import Iterator, Sequence

from budgetrl.account.evaluated import EvaluatedRun
from budgetrl.account.text import suite_name
from budgetrl.evaluation.rounds import said_of
from budgetrl.report.cells import NOTHING, gain_cell, score_cell
from budgetrl.report.document import Block, Cell, Listing, Table, Text
from budgetrl.types import Protocol
from budgetrl.units import percent


def outcome_blocks(run: EvaluatedRun) -> Iterator[Block]:
    """Before, after and the difference by suite; nothing without an evaluation."""
    rows: list[Sequence[Cell | str]] = []
    for suite in run.suites:
        for when, label in (("baseline", "before"), ("final", "after")):
            if run.evaluation(when, suite) is not None:
                rows.append(_evaluation_row(run, suite, when, label))
        if suite in run.differences:
            rows.append(_difference_row(run, suite))
    if not rows:
        return
    ks = _ks(run)
    head = ["Suite", "", *(f"pass@{k}" for k in ks), "samples", "truncated", "no answer", "tokens"]
    caption = (
        "Shares of problems solved with 95 % intervals over problems: Student t for pass@1 "
        "(Wilson with one sample), bootstrap for k > 1 (Wilson near an end). Differences are "
        "paired over the same problems and rounds. Numbers from evals/<suite>/<when>.json."
    )
    yield Table(head, rows, caption=caption, text_columns=2)
    yield from _answers(run)
    yield Listing(list(_protocols(run)))
    yield from _further(run)
    selected = _selection(run)
    if selected:
        yield Text(selected, "muted")


def _ks(run: EvaluatedRun) -> list[int]:
    return sorted({k for e in run.history.evaluations for k in e.pass_at})


def _evaluation_row(run: EvaluatedRun, suite: str, when: str, label: str) -> Sequence[Cell | str]:
    found = run.evaluation(when, suite)
    assert found is not None
    cells: list[Cell | str] = [suite_name(suite) if label == "before" else "", label]
    cells += [score_cell(found.pass_at.get(k), found.interval_95.get(k)) for k in _ks(run)]
    cells += [
        f"{found.problems} x {found.samples}",
        percent(found.truncated_share),
        percent(found.unparsable_share),
        f"{found.completion_tokens_mean:,.0f}",
    ]
    return cells


def _difference_row(run: EvaluatedRun, suite: str) -> Sequence[Cell | str]:
    by_k = run.differences[suite]
    cells: list[Cell | str] = ["", Cell("difference", strong=True)]
    cells += [
        gain_cell(by_k[k].difference, by_k[k].interval_95) if k in by_k else NOTHING
        for k in _ks(run)
    ]
    samples = next(iter(by_k.values())).samples if by_k else 0
    return [*cells, Cell(f"first {samples}", "muted"), "", "", ""]


def _answers(run: EvaluatedRun) -> Iterator[Block]:
    rows: list[Sequence[Cell | str]] = []
    for (suite, when), stored in run.stored.items():
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


def _further(run: EvaluatedRun) -> Iterator[Block]:
    """What `budgetrl eval` added to the run."""
    results = [
        (stored, stored.result)
        for stored in run.further
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


def _protocols(run: EvaluatedRun) -> Iterator[tuple[str, str]]:
    for suite in run.suites:
        seen = {}
        for when in ("baseline", "final"):
            stored = run.stored.get((suite, when))
            if stored is not None:
                seen[when] = protocol_text(stored.protocol)
            evaluation = run.evaluation(when, suite)
            if evaluation is not None and (said := said_of(evaluation.rounds)):
                yield f"Rounds, {suite_name(suite)}, {when}", said
        texts = set(seen.values())
        if len(texts) == 1:
            yield f"Protocol, {suite_name(suite)}", texts.pop()
        for when, text in seen.items() if len(texts) > 1 else ():
            yield f"Protocol, {suite_name(suite)}, {when} (different: not compared)", text


def _selection(run: EvaluatedRun) -> str:
    if run.recipe is None:
        return ""
    select = run.recipe.select
    if select.use == "last":
        return "The final evaluation judges the last checkpoint: select.use in the recipe."
    finished = run.history.finished
    chosen = finished.best_checkpoint if finished else None
    suite = suite_name(select.suite or "")
    text = f"The final evaluation judges the checkpoint with the best {select.metric} on {suite}"
    return f"{text} (ties to the earlier), as the recipe says: {chosen or 'none was selected yet'}."
