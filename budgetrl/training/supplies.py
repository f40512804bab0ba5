"""What a stage learns from: its problems or demonstrations, and its rewards.

Stages that change nothing of [data] share what the run has loaded. Everything is loaded before the
first update, so that a file that cannot be used is found before anything is paid for it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from budgetrl.data.demonstrations import Demonstrations, load_demonstrations
from budgetrl.data.difficulty import solve_rates
from budgetrl.data.overlap import find_overlap
from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.rows import LoadedProblems
from budgetrl.data.sampler import ProblemSampler
from budgetrl.data.usable import Usable, load_usable, remark_on_room
from budgetrl.engine.base import ModelEngine
from budgetrl.engine.ends import closing_id
from budgetrl.errors import DataError
from budgetrl.recipe.schema import Recipe, Stage, StageKind
from budgetrl.rewards.pool import GradingPool
from budgetrl.rewards.registry import RewardSum, build_reward
from budgetrl.training.log import RunLog
from budgetrl.types import Verdict

Supply = tuple[ProblemSampler, RewardSum]


@dataclass(slots=True)
class Supplier:
    """Loads what stages learn from."""

    recipe: Recipe
    """Of the run."""
    renderer: PromptRenderer
    engine: ModelEngine
    pool: GradingPool
    usable: Usable
    """Of the run's own [data]."""
    log: RunLog
    allow_code: bool
    reward_files: Mapping[str, str] | None
    told: dict[str, Any] = field(default_factory=dict)
    """For the manifest, by stage."""

    def of(self, part: Recipe, stage: Stage | None) -> Supply:
        """Sampler and reward of a stage; of the run where it has none.

        Raises:
            DataError: rows that cannot be used, or nothing left to learn from.
        """
        reward = build_reward(
            part.rewards,
            prefilled=self.renderer.prefilled,
            max_tokens=part.sampling.max_tokens,
            pool=self.pool,
            allow_code=self.allow_code,
            files=self.reward_files,
        )
        if stage is not None and stage.kind is StageKind.SFT and part.sft.source == "data":
            return self._demonstrations(part, stage), reward
        problems = self.usable.problems
        if part.data != self.recipe.data:
            window = self.engine.context_tokens
            usable = load_usable(part, self.renderer, self.pool.gold_problems, window)
            tell_left_out(usable, part, self.log)
            problems = usable.problems
            if stage is not None:
                self.told[stage.name] = describe(usable.loaded) | {"used": len(problems)}
        sampler = ProblemSampler(
            problems,
            part.seed,
            part.batch.prompts_per_step,
            rates=solve_rates(part.signal),
            group_size=part.grpo.num_generations,
            explore=part.signal.explore,
        )
        return sampler, reward

    def manifest(self) -> dict[str, Any]:
        """What was loaded for stages alone."""
        return {"stages": self.told} if self.told else {}

    def _demonstrations(self, part: Recipe, stage: Stage) -> ProblemSampler:
        loaded = load_demonstrations(part, self.renderer, self._end_id(), self._judge)
        suites = {name: suite.problems for name, suite in self.usable.suites.items()}
        overlap = find_overlap([row.problem for row in loaded.rows], suites)
        kept = [row for row in loaded.rows if row.problem.id not in overlap.exact]
        if not kept:
            raise DataError(
                f"{loaded.source}: all demonstrations also stand in what the run is judged by.",
                hint="Give other data: nobody trains on what judges.",
            )
        self._tell(stage, part, loaded, len(overlap.exact))
        self.told[stage.name] = {
            "source": loaded.source,
            "fingerprint": loaded.fingerprint,
            "rows": len(loaded.rows),
            "used": len(kept),
            "overlong": loaded.overlong,
            "unchecked": loaded.unchecked,
            "tokens": sum(row.num_tokens for row in kept),
            "dropped": [{"where": one.where, "why": one.why} for one in loaded.dropped],
        }
        rows: Any = kept  # walked through by seed and epoch, as problems are
        return ProblemSampler(rows, part.seed, part.sft.rows_per_step)

    def _end_id(self) -> int:
        return closing_id(self.renderer.closing(), self.engine.tokenizer, self.engine.end_ids)

    def _judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        return [row.verdict for row in self.pool.grade(pairs)]

    def _tell(self, stage: Stage, part: Recipe, loaded: Demonstrations, overlapping: int) -> None:
        """One warning for each reason why rows are not used as they are."""
        if loaded.dropped:
            first = loaded.dropped[0]
            self.log.warn(
                f"dropped_rows_{stage.name}",
                f"stage {stage.name}: {len(loaded.dropped)} rows were left out, such as "
                f"{first.where}: {first.why}; all are listed in the manifest",
            )
        if loaded.overlong:
            done = "left out" if part.sft.overlong == "drop" else "cut"
            self.log.warn(
                f"overlong_rows_{stage.name}",
                f"stage {stage.name}: {loaded.overlong} rows have more than sft.max_tokens = "
                f"{part.sft.max_tokens} tokens and were {done}",
            )
        if overlapping:
            self.log.warn(
                f"overlap_{stage.name}",
                f"stage {stage.name}: {overlapping} demonstrations are of problems that stand in "
                "an evaluation suite, and were left out",
            )


def staged(recipe: Recipe, parts: Sequence[Recipe]) -> Iterator[tuple[Recipe, Stage | None]]:
    """The recipe of each stage with its stage; the run's own where there are none."""
    yield from zip(parts, recipe.stages or (None,), strict=True)


def tell_left_out(usable: Usable, recipe: Recipe, log: RunLog) -> None:
    """One warning for each reason why problems are not used as they are."""
    if dropped := usable.loaded.dropped:
        first = dropped[0]
        log.warn(
            "dropped_rows",
            f"{len(dropped)} training rows were left out, such as {first.where}: "
            f"{first.why}; all are listed in the manifest",
        )
    if usable.loaded.repeats:
        log.warn(
            "repeated_rows",
            f"{usable.loaded.repeats} training rows say the same as an earlier one: left out",
        )
    overlap = usable.overlap
    if overlap.exact or overlap.near:
        log.warn(
            "overlap",
            f"{len(overlap.exact)} training problems also stand in an evaluation suite and were "
            f"left out; {len(overlap.near)} share 13 words with one",
        )
    if usable.overlong:
        log.warn(
            "overlong_prompts",
            f"{usable.overlong} prompts are longer than {recipe.prompt.max_tokens} tokens and were "
            "left out",
        )
    rooms = [remark_on_room(recipe, spec, usable.longest[spec.suite]) for spec in recipe.eval]
    if remarks := [remark for remark in rooms if remark is not None]:
        log.warn("long_suite_prompts", "; ".join(remarks))


def describe(loaded: LoadedProblems) -> dict[str, Any]:
    """What was loaded, for the manifest."""
    return {
        "source": loaded.source,
        "fingerprint": loaded.fingerprint,
        "problems": len(loaded.problems),
        "repeats": loaded.repeats,
        "dropped": [{"where": entry.where, "why": entry.why} for entry in loaded.dropped],
    }
