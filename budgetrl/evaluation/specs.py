"""Which suites are asked, and how: names and flags become a recipe's [[eval]] tables.

suite_specs(recipe, ["aime24", "mine.jsonl"], samples=(2, 32), until_width=5) -> [Eval, ..]
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from budgetrl.errors import UsageError, did_you_mean
from budgetrl.recipe.schema import Eval, Recipe, SuiteName


def suite_specs(
    recipe: Recipe,
    names: Sequence[str],
    *,
    samples: int | tuple[int, int] | None = None,
    until_width: float | None = None,
    ks: Sequence[int] | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    seed: int | None = None,
    think: Sequence[int] | None = None,
    think_whole: bool = False,
) -> list[Eval]:
    """The evaluations that are asked for.

    Args:
        recipe: knows suites of its own.
        names: suites or JSONL paths; all of the recipe where empty.
        samples: replaces each suite's own number, as the following do; least and most.
        until_width: points of the interval at which rounds between them end.
        ks: k of pass@k.
        max_tokens: of one completion.
        temperature: 0 is greedy.
        seed: of the sampling.
        think: limits of thinking; each suite comes once for each, the longest first, so that the
            shorter ones can take their thinking from it.
        think_whole: everything is thinking, for models without think tags.

    Raises:
        UsageError: an unknown suite, or a value that makes no sense.
    """
    chosen = [_spec(recipe, name) for name in names] or list(recipe.eval)
    if not chosen:
        raise UsageError(
            "no suite is given, and the target has none of its own.",
            hint=f"--suite takes {', '.join(SuiteName)}, or a JSONL file.",
        )
    changed = {
        "samples": _samples(samples, until_width), "k": None if ks is None else tuple(ks),
        "max_tokens": max_tokens, "temperature": temperature, "seed": seed,
    }  # fmt: skip
    given = {key: value for key, value in changed.items() if value is not None}
    if think is None:
        return [_changed(spec, given) for spec in chosen]
    limits = sorted(set(think), reverse=True)
    return [_changed(spec, given | _think(spec, n, think_whole)) for spec in chosen for n in limits]


def _think(spec: Eval, limit: int, whole: bool) -> dict[str, Any]:
    """As the suite has it, with another limit."""
    own = {} if spec.think is None else spec.think.model_dump()
    return {"think": own | {"max_tokens": limit} | ({"whole": True} if whole else {})}


def _samples(samples: int | tuple[int, int] | None, until_width: float | None) -> Any:
    if isinstance(samples, tuple):
        return {"min": samples[0], "max": samples[1], "until_width": until_width}
    if until_width is not None:
        raise UsageError(
            "--until-width alone has no end.",
            hint="Say how many samples at the least and at the most: --samples 2..32",
        )
    return samples


def _spec(recipe: Recipe, name: str) -> Eval:
    own = {spec.suite: spec for spec in recipe.eval}
    if name in own:
        return own[name]
    if name in set(SuiteName):
        return Eval(suite=name)
    path = Path(name).expanduser()
    if path.is_file():
        stem = "".join(c if c.isalnum() or c in "._-" else "-" for c in path.stem).lstrip("._-")
        return Eval(suite=stem or "suite", path=str(path.resolve()))
    known = [*own, *(suite for suite in SuiteName if suite not in own)]
    raise UsageError(
        f"unknown suite {name!r}, and no such file.",
        hint=f"{did_you_mean(name, known)}Known: {', '.join(known)}; "
        "or give the path of a JSONL file.",
    )


def _changed(spec: Eval, given: dict[str, Any]) -> Eval:
    samples = given.get("samples", spec.rounds.min)
    if "k" not in given:
        least = samples["min"] if isinstance(samples, dict) else samples
        given = given | {"k": tuple(k for k in spec.k if k <= least) or (1,)}
    try:
        return Eval.model_validate(spec.model_dump() | given)
    except ValidationError as error:
        what = "; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())
        raise UsageError(f"suite {spec.suite}: {what}.") from None
