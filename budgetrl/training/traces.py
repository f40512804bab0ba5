"""Demonstrations that the model makes itself: its own right answers, by rejection sampling.

    sampler = own_traces(prepared, follower)      None: it gave no right answer in the time

For users without a teacher's traces. Answers are drawn from fixed seeds and graded as in GRPO; what
is right, and well-formed where the format counts, is kept once each. They lie in the run
directory as `traces/STAGE.jsonl`: a resumed run learns from the same.
"""

import json
from collections.abc import Iterator
from typing import Any

from budgetrl.data.demonstrations import Demonstration
from budgetrl.data.sampler import ProblemSampler
from budgetrl.engine.ends import closing_id
from budgetrl.files import read_jsonl, write_atomic
from budgetrl.recipe.base import RewardName
from budgetrl.training.callbacks import StepCallback
from budgetrl.training.drawing import answers
from budgetrl.training.setup import Prepared
from budgetrl.types import Problem, RewardBreakdown, Verdict

TIME_SHARE = 0.5
"""Of what the stage may take, at most, for drawing."""
EPOCHS = 1
"""Times that each problem is asked, at most."""


def own_traces(prepared: Prepared, follower: StepCallback) -> ProblemSampler | None:
    """A sampler of the model's own right answers.

    Args:
        prepared: for the stage, with its problems.
        follower: of the stage, which has begun.
    """
    recipe, stage = follower.recipe, follower.progress.stage
    assert stage is not None
    file = prepared.run.scratch("traces") / f"{stage.name}.jsonl"
    if not file.is_file():
        rows = list(_drawn(prepared, follower, _wanted(follower)))
        file.parent.mkdir(exist_ok=True)
        write_atomic(file, "".join(json.dumps(row) + "\n" for row in rows))
    found = [_demonstration(prepared, row) for row in read_jsonl(file)]
    kept: list[Any] = [row for row in found if row.num_tokens <= recipe.sft.max_tokens]
    return ProblemSampler(kept, recipe.seed, recipe.sft.rows_per_step) if kept else None


def _wanted(follower: StepCallback) -> int:
    """Rows that the stage can use: one for each place of its updates, or as many as come."""
    recipe = follower.recipe
    stop = recipe.schedule.stop_after_steps
    return 10**9 if stop is None else stop * recipe.sft.rows_per_step


def _drawn(prepared: Prepared, follower: StepCallback, wanted: int) -> Iterator[dict[str, Any]]:
    """Right answers, problem by problem, until there are enough or the time is over."""
    recipe, clock = follower.recipe, follower.ledger.clock
    begun = clock()
    left_s = min(follower.allotted_s(begun), follower.left_s())
    over = prepared.stopper.until(lambda: begun + TIME_SHARE * left_s - clock())
    asked, made = 0, 0
    while asked < EPOCHS * len(prepared.sampler.problems) and made < wanted and not over():
        number = asked // prepared.sampler.prompts_per_step
        problems = prepared.sampler.batch(number)
        asked += len(problems)
        drawn = answers(prepared, problems, recipe.sft.samples, f"trace {number}", over)
        seen: set[tuple[str, str]] = set()
        for problem, one, breakdown in drawn:
            key = (problem.id, one.text)
            if _is_good(breakdown) and not one.truncated and key not in seen and made < wanted:
                seen.add(key)
                made += 1
                about = {"id": problem.id, "problem": problem.text, "answer": problem.answer}
                yield {**about, "completion": one.text}


def _is_good(breakdown: RewardBreakdown) -> bool:
    form = breakdown.components.get(RewardName.FORMAT)
    return breakdown.verdict is Verdict.CORRECT and (form is None or form > 0)


def _demonstration(prepared: Prepared, row: dict[str, Any]) -> Demonstration:
    renderer, engine = prepared.renderer, prepared.engine
    problem = Problem(row["id"], row["problem"], row["answer"])
    end = closing_id(renderer.closing(), engine.tokenizer, engine.end_ids)
    ids = (*renderer.encode(row["completion"]), end)
    return Demonstration(problem, row["completion"], renderer.ids(problem), ids, "own answer")
