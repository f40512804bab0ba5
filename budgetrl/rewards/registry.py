"""A recipe's [[rewards]] as one function: the weighted sum, with its parts kept.

    reward = build_reward(recipe.rewards, prefilled=False, max_tokens=3584, pool=pool)
    reward(completions, golds, num_tokens) -> [RewardBreakdown, ...]

The paper's is R = 0.2 R_format + R_accuracy. A part that raises or is not a number makes its row's
total None and its verdict `error`, so a fault is seen as a fault and never as a 0.
"""

import ast
import hashlib
import importlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from budgetrl.errors import RecipeError, RewardError, is_out_of_memory
from budgetrl.recipe.schema import Reward, RewardName
from budgetrl.rewards.shaping import cosine, signed, soft_overlong, think_format
from budgetrl.rewards.worker import GradedRow
from budgetrl.types import RewardBreakdown, Verdict

MAX_FAULTY_SHARE = 0.05
"""More rows than this without a reward in one step end the run."""


class Grader(Protocol):
    """Judges completions, such as a `GradingPool`."""

    def grade(self, rows: Sequence[tuple[str, str]]) -> Sequence[GradedRow]:
        """One verdict per (completion, gold answer)."""
        ...


class Row(NamedTuple):
    """What a reward may look at; a user's own function gets these as keyword arguments."""

    completion: str
    gold: str
    num_tokens: int
    verdict: Verdict


Part = Callable[[Row], float]


@dataclass(frozen=True, slots=True)
class RewardSum:
    """The weighted sum of a recipe's rewards."""

    parts: Mapping[str, tuple[float, Part]]
    """Name -> weight and function."""
    grader: Grader
    code_hashes: Mapping[str, str]
    """Files of the user's own rewards and the SHA-256 of each."""

    def __call__(
        self, completions: Sequence[str], golds: Sequence[str], num_tokens: Sequence[int]
    ) -> list[RewardBreakdown]:
        """One breakdown per completion, in order."""
        graded = self.grader.grade(list(zip(completions, golds, strict=True)))
        return [
            self._breakdown(Row(completion, gold, tokens, one.verdict), one.extracted)
            for completion, gold, tokens, one in zip(
                completions, golds, num_tokens, graded, strict=True
            )
        ]

    def _breakdown(self, row: Row, extracted: str | None) -> RewardBreakdown:
        values = {name: _value(name, part, row) for name, (_, part) in self.parts.items()}
        weighted = [(weight, values[name]) for name, (weight, _) in self.parts.items() if weight]
        if row.verdict is Verdict.ERROR or any(value is None for _, value in weighted):
            return RewardBreakdown(None, values, Verdict.ERROR, extracted)
        total = math.fsum(weight * value for weight, value in weighted if value is not None)
        return RewardBreakdown(total, values, row.verdict, extracted)


def build_reward(
    specs: Sequence[Reward],
    *,
    prefilled: bool,
    max_tokens: int,
    pool: Grader,
    allow_code: bool = False,
) -> RewardSum:
    """The reward of a recipe.

    Args:
        specs: the recipe's [[rewards]].
        prefilled: the prompt already opens `<think>`.
        max_tokens: sampling.max_tokens, for length-scaled rewards.
        pool: judges the answers.
        allow_code: whether a user's own function may be imported.

    Raises:
        RecipeError: a user's function that is not allowed or not there.
    """
    parts: dict[str, tuple[float, Part]] = {}
    hashes: dict[str, str] = {}
    for spec in specs:
        if ":" in spec.name:
            part, file = _users_own(spec, allow_code)
            hashes[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
        else:
            part = _known(spec, prefilled, max_tokens)
        parts[spec.name] = (spec.weight, part)
    return RewardSum(parts, pool, hashes)


def check_faults(breakdowns: Sequence[RewardBreakdown]) -> None:
    """Refuse to go on when too many rows have no reward; call it after the rows are stored.

    Raises:
        RewardError: more than 5 % of the rows.
    """
    faulty = sum(breakdown.total is None for breakdown in breakdowns)
    if faulty > MAX_FAULTY_SHARE * len(breakdowns):
        raise RewardError(
            f"{faulty} of {len(breakdowns)} completions of one step could not be rewarded.",
            hint='The step\'s file under completions/ shows them (verdict "error"); worker.log '
            "has the errors. Mend the reward or the data, then `budgetrl resume`.",
        )


def _known(spec: Reward, prefilled: bool, max_tokens: int) -> Part:
    given = spec.parameters
    makers: dict[RewardName, Part] = {
        RewardName.ACCURACY: lambda row: 1.0 if _correct(row) else 0.0,
        RewardName.FORMAT: lambda row: think_format(row.completion, prefilled=prefilled),
        RewardName.SIGNED: lambda row: signed(_correct(row)),
        RewardName.COSINE: lambda row: cosine(
            _correct(row), row.num_tokens, **({"max_tokens": max_tokens} | given)
        ),
        RewardName.SOFT_OVERLONG: lambda row: soft_overlong(
            row.num_tokens,
            **({"max_tokens": max_tokens, "cache_tokens": max(1, max_tokens // 5)} | given),
        ),
    }
    return makers[RewardName(spec.name)]


def _correct(row: Row) -> bool:
    if row.verdict is Verdict.ERROR:
        raise _Ungraded
    return row.verdict is Verdict.CORRECT


class _Ungraded(Exception):
    """Nobody knows whether the answer is right, so accuracy is no 0."""


def _value(name: str, part: Part, row: Row) -> float | None:
    try:
        value = float(part(row))
    except _Ungraded:
        return None
    except Exception as error:  # a user's function may raise anything; the row says so
        if is_out_of_memory(error):  # a reward model on the GPU: no fault of this row
            raise
        sys.stderr.write(f"reward {name} failed: {type(error).__name__}: {error}\n")
        return None
    return value if math.isfinite(value) else None


def _users_own(spec: Reward, allow_code: bool) -> tuple[Part, Path]:
    """A function given as module:function, and the file that it is in."""
    if not allow_code:
        raise RecipeError(
            f"[[rewards]] {spec.name}: runs code of yours.",
            hint="Say that you want this with --allow-code.",
        )
    file = find_function(spec.name)
    module_name, _, function_name = spec.name.partition(":")
    try:
        with _import_from(_root_of(file, module_name)):
            module = importlib.import_module(module_name)
    except Exception as error:  # the module may raise anything while it is imported
        raise RecipeError(
            f"[[rewards]] {spec.name}: importing {file} raised {type(error).__name__}: {error}."
        ) from error
    function: Any = getattr(module, function_name, None)
    if not callable(function):
        raise RecipeError(f"[[rewards]] {spec.name}: {function_name} is no function.")

    def part(row: Row) -> float:
        return float(function(**row._asdict(), **spec.parameters))

    return part, file


def find_function(name: str) -> Path:
    """The file of a reward given as "module:function", found without importing anything.

    The module is looked for in the current folder, then on Python's path.

    Raises:
        RecipeError: no such file, it is not Python, or it has no such name.
    """
    module_name, _, function_name = name.partition(":")
    parts = module_name.split(".")
    folders = [Path.cwd(), *(Path(folder) for folder in sys.path if folder)]
    paths = (Path(folder, *parts) for folder in folders)
    candidates = (
        file for path in paths for file in (path.with_suffix(".py"), path / "__init__.py")
    )
    file = next((file for file in candidates if file.is_file()), None)
    if file is None:
        raise RecipeError(
            f"[[rewards]] {name}: there is no module {module_name}.",
            hint="Put it in the current folder or on PYTHONPATH.",
        )
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise RecipeError(f"[[rewards]] {name}: {file} is not Python: {error}.") from None
    if function_name not in _names_of(tree):
        raise RecipeError(f"[[rewards]] {name}: {file} defines no {function_name}.")
    return file.resolve()


def _names_of(tree: ast.Module) -> set[str]:
    """The names that a module defines, assigns or imports at its top level."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
    return names


def _root_of(file: Path, module_name: str) -> Path:
    """The folder from which the module is imported."""
    depth = module_name.count(".") + (file.name == "__init__.py")
    return file.parents[depth]


@contextmanager
def _import_from(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
