"""What a run directory once held and holds no more: events, completions and checkpoints compared.

    losses = find_losses(run, history)
    losses.sentences()         for the report, `runs` and a resumed run's warning

A truncated file is whole as far as it goes, so only the others tell of what it lacks.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from budgetrl.errors import RunDirError
from budgetrl.history import MOST_STEPS, UNTOLD, History
from budgetrl.retention import Rule, is_kept
from budgetrl.rundir import RESOLVED, RESULT, RunDir

KEEP = "checkpoint.keep_completions"


@dataclass(frozen=True, slots=True)
class Losses:
    """Updates of which something is missing."""

    events: tuple[int, ...] = ()
    """Updates that were made and of which no event tells."""
    completions: tuple[int, ...] = ()
    """Updates whose completions were stored, and are cut or gone."""
    last: int = 0
    """The last update that any file tells of."""
    end: bool = False
    """How the run ended is told by `result.json` alone."""
    rule_known: bool = True
    """Whether the recipe says which completions are kept."""

    def up_to(self, step: int) -> "Losses":
        """Of the updates that a resumed run keeps; later ones are made again."""
        events, completions = ([s for s in x if s <= step] for x in (self.events, self.completions))
        last = min(self.last, step)
        return replace(self, events=tuple(events), completions=tuple(completions), last=last)

    def sentences(self) -> list[str]:
        """What is missing, for people."""
        found = []
        if self.events:
            found.append(
                f"of {_updates(self.events)} nothing stands in events.jsonl, though other files "
                "tell of them: it was cut or damaged, and sums over updates are too small"
            )
        if self.completions:
            rule = "" if self.rule_known else f", or {KEEP}, which cannot be read, has dropped them"
            which = _updates(self.completions)
            found.append(f"the stored completions of {which} are cut or gone{rule}")
        if self.end:
            found.append(
                f"how the run ended stands in {RESULT} and not in events.jsonl: it was cut"
            )
        return found


def find_losses(run: RunDir, history: History) -> Losses:
    """Compare what the events tell with checkpoints and stored completions.

    Args:
        run: at rest, or just written by somebody else.
        history: of its events.
    """
    stored = run.stored_completions()
    marks = [len(history.told), *(checkpoint.step for checkpoint in run.checkpoints())]
    marks += [step for step in stored if step > history.reached]
    if history.finished is not None:
        marks.append(history.finished.steps)
    ended = _result(run, history)
    if ended is not None:
        marks.append(ended)
    last = max(marks)
    rule = _rule(run)
    earlier = (one for one in history.changes if one.key == KEEP)
    rules = [(one.before, history.resumed_from.get(one.attempt, 0)) for one in earlier]
    rules.append((rule or "all", last))
    told = dict(enumerate(history.told, start=1))
    wrong = (step for step, size in told.items() if size >= 0 and stored.get(step) != size)
    return Losses(
        tuple(step for step in range(1, last + 1) if told.get(step, UNTOLD) == UNTOLD),
        tuple(s for s in wrong if s in stored or all(is_kept(r, s, at) for r, at in rules)),
        last,
        ended is not None,
        rule is not None,
    )


def _result(run: RunDir, history: History) -> int | None:
    """Updates at the end of the newest attempt, by its result, where no event tells of the end."""
    if history.finished is not None:
        return None
    with suppress(RunDirError):
        result = run.read_json(RESULT) or {}
        attempts, steps = result.get("attempts"), result.get("steps")
        if isinstance(attempts, int) and isinstance(steps, int) and attempts >= history.attempt:
            return min(max(steps, 0), MOST_STEPS)
    return None


def _rule(run: RunDir) -> Rule | None:
    """The recipe's word on stored completions; None where it cannot be read."""
    try:
        tables = (run.read_json(RESOLVED) or {})["recipe"]
        rule = tables["checkpoint"]["keep_completions"]
    except RunDirError:
        return None
    except (KeyError, TypeError):  # of an older budgetrl
        return "all"
    return rule if isinstance(rule, int | str) else "all"


def _updates(numbers: Iterable[int]) -> str:
    """ "update 3", "updates 1 to 3 and 7" """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    texts = [f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    if len(texts) > 6:
        texts = [*texts[:5], f"{len(texts) - 5} more stretches"]
    word = "update" if len(runs) == 1 and len(runs[0]) == 1 else "updates"
    return f"{word} {', '.join(texts[:-1])} and {texts[-1]}" if texts[1:] else f"{word} {texts[0]}"
