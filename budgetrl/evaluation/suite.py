"""A suite as it is asked: problems with their prompts, the protocol, and how many rounds of it.

suite_in(recipe, spec, prompted(renderer, problems), engine, date, think)   for `evaluate`
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.rows import fingerprint
from budgetrl.engine.base import SAMPLER_VERSION, Engine
from budgetrl.engine.thinking import ThinkBudget
from budgetrl.evaluation.think import batch_of, protocol_text
from budgetrl.grading.rules import GRADER_VERSION
from budgetrl.recipe.eval_tables import Rounds
from budgetrl.recipe.schema import EngineName, Eval, Recipe
from budgetrl.types import Problem, Protocol as EvalProtocol


@dataclass(frozen=True, slots=True)
class PromptedProblem:
    """A problem and the prompt that asks it."""

    problem: Problem
    prompt: str
    """Rendered text."""
    prompt_ids: tuple[int, ...]


def prompted(renderer: PromptRenderer, problems: Sequence[Problem]) -> list[PromptedProblem]:
    """Problems with their rendered prompts."""
    return [PromptedProblem(p, renderer.text(p), renderer.ids(p)) for p in problems]


def protocol_of(
    suite: str,
    prompted: Sequence[PromptedProblem],
    *,
    temperature: float,
    top_p: float,
    max_tokens: int,
    seed: int,
    grader: str,
    stop: Sequence[str] = (),
    date: str | None = None,
    sequence_tokens: int | None = None,
    think: ThinkBudget | None = None,
    sampler: str | None = None,
) -> EvalProtocol:
    """The protocol of an evaluation: hashes of problems and rendered prompts, and its numbers.

    What else ends a completion counts as part of the prompt: texts, and the length of prompt and
    completion where a prompt is so long that it matters.
    """
    asked: list[object] = [[item.prompt for item in prompted], list(stop)]
    longest = max((len(item.prompt_ids) for item in prompted), default=0)
    if sequence_tokens is not None and longest + max_tokens > sequence_tokens:
        asked.append(sequence_tokens)
    prompts = json.dumps(asked)
    return EvalProtocol(
        suite=suite,
        suite_fingerprint=fingerprint(item.problem for item in prompted),
        prompt=hashlib.sha256(prompts.encode()).hexdigest()[:16],
        temperature=float(temperature),
        top_p=float(top_p),
        max_tokens=max_tokens,
        seed=seed,
        grader=grader,
        date=date,
        think=protocol_text(think),
        sampler=sampler,
    )


def protocol_in(
    recipe: Recipe,
    spec: Eval,
    prompted: Sequence[PromptedProblem],
    grader: str,
    date: str | None,
    think: ThinkBudget | None = None,
) -> EvalProtocol:
    """The protocol of one of a recipe's evaluations, or of one asked as it would be."""
    drawn_here = recipe.engine.name is EngineName.PLAIN and spec.temperature > 0
    return protocol_of(
        spec.suite,
        prompted,
        temperature=spec.temperature,
        top_p=spec.top_p,
        max_tokens=recipe.eval_max_tokens(spec),
        seed=spec.seed,
        grader=grader,
        stop=recipe.sampling.stop,
        date=date,
        sequence_tokens=recipe.eval_tokens(spec),
        think=think,
        sampler=SAMPLER_VERSION if drawn_here else None,
    )


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite as it is asked."""

    problems: Sequence[PromptedProblem]
    """Their ids are unique."""
    protocol: EvalProtocol
    rounds: int | Rounds
    """That are wanted: so many, or until the interval is narrow."""
    ks: Sequence[int]
    """Of pass@k; those above the complete rounds are left out."""
    batch: int
    """Completions asked for at a time; an engine that queues is asked for all at once."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion."""
    sequence_tokens: int | None = None
    """Prompt and completion together, where a completion ends too."""


def suite_in(
    recipe: Recipe,
    spec: Eval,
    problems: Sequence[PromptedProblem],
    engine: Engine,
    date: str | None,
    think: ThinkBudget | None,
) -> Suite:
    """A suite of a recipe, or one asked as its own are."""
    return Suite(
        problems,
        protocol_in(recipe, spec, problems, GRADER_VERSION, date, think),
        spec.rounds,
        spec.k,
        batch_of(recipe, engine, think),
        recipe.sampling.stop,
        recipe.eval_tokens(spec),
    )
