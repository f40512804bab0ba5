"""Thinking under a budget, for one suite: tags, texts and limits become token ids.

budget = think_budget(recipe, spec, engine, prefilled)      None: the suite has no such limit
policy = thinking(engine, budget, memory, ahead)            for `evaluate`
"""

import json
from collections.abc import Sequence
from typing import Any

from budgetrl.data.prompts import CLOSE_THINK, OPEN_THINK
from budgetrl.engine.base import Engine, QueueingEngine
from budgetrl.engine.thinking import ThinkBudget, ThinkingPolicy, Trajectories
from budgetrl.errors import RecipeError
from budgetrl.recipe.base import RewardName
from budgetrl.recipe.eval_tables import CLOSE, CLOSE_WHOLE
from budgetrl.recipe.schema import Eval, Recipe

Policy = Engine | ThinkingPolicy
"""Whoever answers the prompts of an evaluation."""
AT_ONCE = 512
"""Completions of a pass where the engine queues: what a kill may lose."""


def think_budget(recipe: Recipe, spec: Eval, engine: Engine, prefilled: bool) -> ThinkBudget | None:
    """The budget of a suite as an engine takes it.

    Args:
        recipe: says which rewards were trained on.
        spec: the suite.
        engine: has the tokenizer.
        prefilled: the prompt opens `<think>`.

    Raises:
        RecipeError: the model has no think tags that anything tells of, or a text that is appended
            is no plain text to its tokenizer.
    """
    think = spec.think
    if think is None:
        return None
    where = f"suite {spec.suite}: think"
    if engine.tokenizer is None:
        raise RecipeError(f"{where}: engine {engine.name} has no tokens to count.")
    tagged = prefilled or RewardName.FORMAT in recipe.reward_names
    if not (tagged or think.whole):
        raise RecipeError(
            f"{where}: nothing says that this model writes {OPEN_THINK} and {CLOSE_THINK}: its "
            "template opens no thinking, and the recipe has no format reward.",
            hint="think.whole = true (--think-whole) takes the whole completion as thinking, and "
            "think.close then asks for the answer.",
        )
    close = think.close or (CLOSE_WHOLE if think.whole else CLOSE)
    return ThinkBudget(
        max_tokens=think.max_tokens,
        answer_tokens=recipe.answer_tokens(spec),
        close_ids=_plain_ids(engine, close, f"{where}.close"),
        min_tokens=think.min_tokens,
        nudge_ids=_plain_ids(engine, think.nudge, f"{where}.nudge"),
        max_nudges=think.max_nudges if think.min_tokens else 0,
        open_tag=None if think.whole or prefilled else OPEN_THINK,
        close_tag=None if think.whole else CLOSE_THINK,
    )


def thinking(
    engine: Any,
    budget: ThinkBudget | None,
    memory: Trajectories | None = None,
    ahead: Sequence[ThinkBudget] = (),
    rows: int = 1,
) -> Policy:
    """An engine, under a budget of thinking where there is one; see `ThinkingPolicy`."""
    policy: Policy = engine
    return policy if budget is None else ThinkingPolicy(engine, budget, memory, ahead, rows)


def batch_of(recipe: Recipe, engine: Engine, budget: ThinkBudget | None) -> int:
    """Completions that are asked for at a time."""
    batch = recipe.engine.eval_batch
    queues = budget is not None and isinstance(engine, QueueingEngine)
    return max(batch, AT_ONCE) if queues else batch


def protocol_text(budget: ThinkBudget | None) -> str | None:
    """A budget as a protocol has it: all that shapes a completion, besides the total limit."""
    if budget is None:
        return None
    values = {
        "max_tokens": budget.max_tokens,
        "answer_tokens": budget.answer_tokens,
        "close": list(budget.close_ids),
        "whole": budget.close_tag is None,
    }
    if budget.max_nudges:
        values |= {
            "min_tokens": budget.min_tokens,
            "nudge": list(budget.nudge_ids),
            "max_nudges": budget.max_nudges,
        }
    return json.dumps(values)


def _plain_ids(engine: Any, text: str, where: str) -> tuple[int, ...]:
    """Token ids of a text that is appended.

    Raises:
        RecipeError: it holds a token that ends a completion or marks a turn.
    """
    tokenizer = engine.tokenizer
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    marks = {*engine.end_ids, *tokenizer.all_special_ids}
    if found := [tokenizer.convert_ids_to_tokens(i) for i in ids if i in marks]:
        raise RecipeError(
            f"{where}: {text!r} holds {found[0]}, by which this tokenizer marks turns and ends.",
            hint="Take plain words, and the think tags.",
        )
    if not ids:
        raise RecipeError(f"{where}: {text!r} has no tokens.")
    return ids
