"""A run with its evaluations, read once from its files: what a report, a study and a card stand on.

A damaged file is a note, not an error.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from budgetrl.account.bill import BillRow, bill_rows
from budgetrl.account.run import Account, mapping
from budgetrl.errors import DataError, ProtocolError
from budgetrl.evaluation.compare import difference
from budgetrl.evaluation.rows import StoredEval, load_eval, moment
from budgetrl.evaluation.summary import event_of
from budgetrl.events import Evaluation
from budgetrl.files import read_jsonl
from budgetrl.history import read_history
from budgetrl.losses import Losses, find_losses
from budgetrl.masking import keep_secret
from budgetrl.rundir import RESULT, RunDir
from budgetrl.types import Difference, EvalResult, Protocol, RunStatus


class EvaluatedRun(Account):
    """One run at one moment, finished or not."""

    untold: Sequence[str] = ()
    """Files of evaluations that were added to the events, which were cut."""

    @cached_property
    def losses(self) -> Losses:
        """What other files tell of and the events do not."""
        return find_losses(self.run, self.history)

    @property
    def steps(self) -> int:
        """Updates that count, also those that only other files tell of."""
        running = self.status is RunStatus.RUNNING
        return super().steps if running else max(super().steps, self.losses.last)

    @cached_property
    def status(self) -> RunStatus:
        """When it was read."""
        return self.status_at()

    @cached_property
    def notes(self) -> Sequence[str]:
        """What could not be read."""
        found = [*self.damage.values()]
        if self.history.newer_schema:
            found.append(
                "Some events were written by a newer budgetrl; what this one cannot read is left "
                "out."
            )
        lost = self.losses.sentences()
        untold = "of {} nothing stands in events.jsonl: it is shown as it is stored"
        lost += map(untold.format, self.untold)
        return [*found, *(f"{sentence[0].upper()}{sentence[1:]}." for sentence in lost)]

    @cached_property
    def bill(self) -> Sequence[BillRow]:
        """What the money went for, by phase."""
        return bill_rows(self)

    @cached_property
    def suites(self) -> list[str]:
        """Evaluated suites, in the recipe's order where it has one."""
        order = [spec.suite for spec in self.recipe.eval] if self.recipe else []
        seen = self.history.suites()
        return sorted(seen, key=lambda s: order.index(s) if s in order else len(order))

    def evaluation(self, when: str, suite: str) -> Evaluation | None:
        """The newest evaluation of a suite at a moment."""
        return self.history.evaluation(when, suite)

    def scored(self, suite: str) -> list[Evaluation]:
        """All evaluations of a suite that have pass@1, in order."""
        return [e for e in self.history.evaluations if e.suite == suite and 1 in e.pass_at]

    @cached_property
    def stored(self) -> Mapping[tuple[str, str], StoredEval]:
        """Baseline and final evaluations with their completions, by (suite, when)."""
        found = {}
        for suite in self.suites:
            for when in ("baseline", "final"):
                path = self.run.evals / suite / f"{when}.json"
                if path.is_file():
                    try:
                        found[suite, when] = load_eval(path)
                    except DataError:
                        continue
        return found

    @cached_property
    def further(self) -> Sequence[StoredEval]:
        """What `budgetrl eval` made of this run's checkpoints later, without completions."""
        found = []
        for path in self.run.eval_files("eval-*"):
            try:
                stored = load_eval(path, with_rows=False)
            except DataError:
                continue
            if stored.result is not None:
                found.append(stored)
        return found

    @cached_property
    def cut(self) -> Mapping[str, str]:
        """Notices of suites whose files hold less than the run recorded."""
        found = {}
        for suite in self.suites:
            for when in ("baseline", "final"):
                recorded, stored = self.evaluation(when, suite), self.stored.get((suite, when))
                held = 0 if stored is None else stored.rounds()
                if recorded is not None and held < recorded.samples:
                    found[suite] = (
                        f"evals/{suite}/{when}.jsonl holds {held} complete of {recorded.samples} "
                        "recorded samples of each problem: it, or its .json, is missing, cut or "
                        "damaged. The numbers shown are those that the run recorded."
                    )
        return found

    @cached_property
    def differences(self) -> Mapping[str, Mapping[int, Difference]]:
        """Final minus baseline by suite and k: from the stored verdicts, or as once recorded."""
        found: dict[str, Mapping[int, Difference]] = {}
        for suite in self.suites:
            if self.evaluation("final", suite) is not None:
                recorded = self.recorded_differences().get(suite) if suite in self.cut else None
                found[suite] = recorded or self._measured_difference(suite)
        return {suite: by_k for suite, by_k in found.items() if by_k}

    def _measured_difference(self, suite: str) -> Mapping[int, Difference]:
        final, base = self.stored.get((suite, "final")), self.stored.get((suite, "baseline"))
        if final is None or base is None:
            return {}
        try:
            return difference(final, base)
        except (DataError, ProtocolError):
            return {}

    def protocol(self, suite: str, when: str) -> Protocol | None:
        """How an evaluation was made; None where its files are gone."""
        stored = self.stored.get((suite, when))
        return None if stored is None else stored.protocol

    def completions(self, step: int) -> list[dict[str, Any]]:
        """The training completions of an update; empty where they are not stored."""
        path = self.run.completions_file(step)
        return list(read_jsonl(path)) if path.is_file() else []


def read_run(run: RunDir) -> EvaluatedRun:
    """Read a run directory. Works for unfinished, crashed and partly damaged runs."""
    found = EvaluatedRun(run, read_history(run))
    _ = found.recipe
    keep_secret(found.tables)
    if found.status is not RunStatus.RUNNING:
        found.untold = _add_untold(found)
    found.check()
    return found


def _add_untold(run: EvaluatedRun) -> list[str]:
    """Take evaluations that are stored whole, and of which no event tells, into the history."""
    told = {(one.suite, _name(one)) for one in run.history.evaluations}
    finished, added = run.history.finished, []
    ended = run.file(RESULT).get("final") if run.losses.end else finished and finished.final
    for name in ("baseline", "step_*", "final"):
        for file in run.run.eval_files(name):
            if (file.parent.name, file.stem) in told or "." in file.stem:
                continue
            result, when = _stored_result(file), moment(file.stem)
            counts = when != "final" or file.parent.name in mapping(ended)
            if result is not None and result.step <= run.steps and counts:
                run.history.evaluations.append(event_of(result, when))
                added.append(run.run.relative(file))
    run.history.evaluations.sort(key=lambda one: (one.when == "final", one.step))
    return added


def _name(one: Evaluation) -> str:
    """Of its file."""
    return f"step_{one.step:06d}" if one.when == "step" else one.when


def _stored_result(file: Path) -> EvalResult | None:
    try:
        return load_eval(file, with_rows=False).result
    except DataError:
        return None
