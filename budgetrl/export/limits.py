"""What of a recipe has no equal elsewhere: refused where the training would be another one.

    refuse(recipe, Target.VERL)          raises, with all that verl cannot do
    unmapped(recipe, mapped)             [{key, value, why}] of what is left behind

A value that only says how budgetrl spends its time is left behind and listed; one that says what is
trained, and by what rule, is refused.
"""

from collections.abc import Callable, Collection, Iterator
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from budgetrl.errors import RecipeError
from budgetrl.export.reward import BY_LENGTH
from budgetrl.export.values import validation
from budgetrl.recipe.flat import flat_values
from budgetrl.recipe.schema import Recipe
from budgetrl.rewards.own_files import is_own


class Target(StrEnum):
    """Where a recipe goes."""

    VERL = "verl"
    """verl's main_ppo, on one or many GPUs."""
    TRL = "trl"
    """The command `trl grpo`."""


class Left(NamedTuple):
    """A value that is left behind."""

    key: str
    value: Any
    why: str


class Limit(NamedTuple):
    """Something that a target has not."""

    is_met: Callable[[Recipe], bool]
    what: str
    instead: str


_BOTH = (
    Limit(
        lambda r: r.schedule.stop_after_steps is None,
        "schedule.stop_after_steps is not set: it ends after updates, not after hours",
        "say how many with --set schedule.stop_after_steps=300 (`budgetrl estimate` says what a "
        "budget buys)",
    ),
    Limit(
        lambda r: r.schedule.by == "budget" and _is_shaped(r),
        'schedule.by = "budget": a learning rate that follows the budget',
        'set schedule.by="steps"',
    ),
    Limit(
        lambda r: (
            _is_shaped(r) and r.schedule.schedule_steps not in (None, r.schedule.stop_after_steps)
        ),
        "schedule.schedule_steps beyond stop_after_steps: its shape ends with the training",
        "set both to one number",
    ),
    Limit(
        lambda r: r.signal.skip == "accuracy",
        'signal.skip = "accuracy": groups left out of the update',
        'set signal.skip="off"',
    ),
    Limit(
        lambda r: r.signal.keep_rows is not None,
        "signal.keep_rows: an update on a part of each group",
        "remove it with --set signal.keep_rows=unset",
    ),
    Limit(
        lambda r: r.grpo.beta > 0 and r.grpo.reference != "base",
        "grpo.reference other than the base",
        'set grpo.reference="base", or grpo.beta=0',
    ),
)
_VERL = (
    Limit(lambda r: r.model.load_in_4bit, "model.load_in_4bit", "set model.load_in_4bit=false"),
    Limit(lambda r: r.lora.dropout > 0, "lora.dropout above 0", "set lora.dropout=0"),
    Limit(
        lambda r: r.grpo.loss_type == "bnpo",
        'grpo.loss_type = "bnpo"',
        'set grpo.loss_type="dapo", the mean over all tokens',
    ),
    Limit(
        lambda r: r.grpo.scale_rewards == "batch",
        'grpo.scale_rewards = "batch"',
        'set it to "group" or "none"',
    ),
    Limit(
        lambda r: r.grpo.mask_truncated_completions,
        "grpo.mask_truncated_completions = true",
        "set it to false",
    ),
    Limit(
        lambda r: r.schedule.shape == "linear",
        'schedule.shape = "linear"',
        'set it to "constant" or "cosine"',
    ),
    Limit(lambda r: r.sampling.min_p > 0, "sampling.min_p above 0", "set sampling.min_p=0"),
)
_TRL = (
    Limit(
        lambda r: r.model.adapter is not None,
        "model.adapter: an adapter to start from",
        "merge it (`budgetrl export RUN --to merged`) and name that as model.id",
    ),
    Limit(
        lambda r: bool(r.sampling.stop),
        "sampling.stop: stop texts",
        "set sampling.stop=[]",
    ),
    Limit(
        lambda r: r.schedule.shape == "linear" and r.schedule.min_share > 0,
        "schedule.min_share under a linear shape",
        'set schedule.shape="cosine", or min_share=0',
    ),
    Limit(
        lambda r: bool(r.signal.resample_rounds),
        "signal.resample_rounds: dynamic sampling",
        "remove it with --set signal.resample_rounds=unset",
    ),
    Limit(
        lambda r: r.prompt.chat_template is not None,
        "prompt.chat_template",
        "put it into the model's tokenizer",
    ),
)
_NAMES = {Target.VERL: "verl", Target.TRL: "TRL's command line"}

_WHY = {
    "data.filter.*": "the rows are filtered before they are written",
    "data.*": "the rows are read here, and written in its own form",
    "eval.*.k": "it reports the mean and the best of n",
    "eval.*.seed": "its validation has no seed of its own",
    "eval.*": "one protocol for all suites, or none: evaluate with `budgetrl eval` afterwards",
    "budget.*": "it has no budget: it ends after schedule.stop_after_steps",
    "select.*": "it judges no checkpoint: choose one yourself",
    "entropy.*": "measured by budgetrl alone",
    "expected.*": "what a paper prints is for reports",
    "checkpoint.*": "it saves by updates, and keeps what it is told to keep",
    "signal.order": "it draws problems uniformly",
    "signal.*": "it gives groups without signal no gradient, and still pays for them",
    "engine.*": "an engine of its own",
    "sampling.expected_tokens": "for plans",
    "model.revision": "it takes the newest commit: download this one and name the folder",
    "schedule.*": "without a shape it says nothing",
    "batch.fill": "it has a way of its own to fill passes",
    "tracker.*": "it has trackers of its own",
    "prompt.*": "inside the prompts",
}
"""Pattern of keys -> why they are left behind; the first that fits."""


def refuse(recipe: Recipe, target: Target) -> None:
    """Refuse what would be another training there.

    Raises:
        RecipeError: names every such value, and what to set instead.
    """
    if recipe.stages:
        raise RecipeError(
            f"{recipe.name} has stages, and {_NAMES[target]} runs one algorithm from start to end.",
            hint="Export a recipe of its GRPO stage alone, with model.id the folder that "
            "`budgetrl export RUN --to merged` makes of the stages before it.",
        )
    found = [limit for limit in limits_of(target) if limit.is_met(recipe)]
    if found:
        way_out = "; ".join(limit.instead for limit in found)
        raise RecipeError(
            f"{recipe.name}: {_NAMES[target]} has no equal of "
            f"{'; '.join(limit.what for limit in found)}.",
            hint=f"{way_out[0].upper()}{way_out[1:]}.",
        )


def limits_of(target: Target) -> tuple[Limit, ...]:
    """All that a target refuses, besides stages."""
    return (*_BOTH, *(_VERL if target is Target.VERL else _TRL))


def unmapped(recipe: Recipe, mapped: Collection[str], target: Target) -> list[Left]:
    """Values other than the defaults that are not carried over, and why."""
    usual = flat_values(_bare(recipe))
    left = [
        Left(key, value, _why(key))
        for key, value in flat_values(recipe).items()
        if not _is_name(key)
        and not _is_usual_length(key, value, recipe)
        and value != usual.get(_generic(key, usual), None)
        and not any(fnmatchcase(key, pattern) for pattern in mapped)
    ]
    return [*left, *_remarks(recipe, target)]


def _remarks(recipe: Recipe, target: Target) -> Iterator[Left]:
    """What is carried over, but not as it is here."""
    for reward in recipe.rewards:
        if is_own(reward.name):
            yield Left(
                f"rewards.{reward.name}",
                reward.weight,
                "your function: its module has to lie on PYTHONPATH there",
            )
        elif target is Target.VERL and reward.name in BY_LENGTH:
            yield Left(
                f"rewards.{reward.name}",
                reward.weight,
                "verl tells a reward the text alone: its tokens are counted anew, which may differ "
                "by a few where text and tokens are not one to one",
            )
    if "llama-3" in recipe.model.id.lower() and "date_string" not in recipe.prompt.template_kwargs:
        yield Left(
            "prompt.template_kwargs.date_string",
            None,
            "the chat template prints the day, there that on which it runs: pin it, such as "
            '--set prompt.template_kwargs.date_string="26 Jul 2024"',
        )
    spec = validation(recipe)
    if target is Target.VERL and spec is not None:
        for other in recipe.eval:
            if (other.samples, other.temperature, other.top_p) != (
                spec.samples,
                spec.temperature,
                spec.top_p,
            ):
                yield Left(
                    f"eval.{other.suite}.samples",
                    other.samples,
                    f"verl has one protocol for all suites, here that of {spec.suite}",
                )


def _is_name(key: str) -> bool:
    """Whether a value says what something is called, and nothing of what is done."""
    of_elements = key.startswith("eval.") and key.endswith(".suite")
    return key.startswith(("recipe.", "paper")) or of_elements


def _is_usual_length(key: str, value: Any, recipe: Recipe) -> bool:
    """Whether an evaluation's limit is that of the training, which is there for both."""
    is_limit = key.startswith("eval.") and key.endswith(".max_tokens")
    return is_limit and value == recipe.sampling.max_tokens


def _is_shaped(recipe: Recipe) -> bool:
    return recipe.schedule.shape != "constant" or recipe.schedule.warmup_share > 0


def _why(key: str) -> str:
    return next((why for pattern, why in _WHY.items() if fnmatchcase(key, pattern)), "no equal")


def _bare(recipe: Recipe) -> Recipe:
    """A recipe with nothing but what it must have: everything else at its default."""
    return Recipe.model_validate(
        {
            "recipe": {"name": "bare"},
            "model": {"id": "bare"},
            "lora": {"rank": 1, "alpha": 1.0},
            "data": {"path": "bare"},
            "schedule": {"learning_rate": 1.0},
            "eval": [{"suite": "math500"}],
        },
        strict=False,
    )


def _generic(key: str, usual: dict[str, Any]) -> str:
    """The default's key: evaluations are compared with one of defaults."""
    table, _, rest = key.partition(".")
    return f"eval.math500.{rest.rpartition('.')[2]}" if table == "eval" else key
