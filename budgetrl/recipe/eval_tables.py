"""Recipe tables about evaluation, and about the paper that a recipe replicates."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from budgetrl.recipe.base import Count, NonNegative, Share, SuiteName, Table
from budgetrl.recipe.model_tables import Columns
from budgetrl.types import EvalWhen


class Eval(Table):
    """One of [[eval]]: a suite, its protocol and when it is run."""

    suite: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """A known suite, or any name together with `path` or `id`."""
    path: str | None = None
    """A file or folder as data.path takes them, or `asset:NAME`."""
    id: str | None = None
    revision: str | None = None
    config: str | None = None
    split: str | None = None
    columns: Columns | None = None
    samples: Count = 16
    k: Annotated[tuple[Count, ...], Field(min_length=1)] = (1,)
    max_tokens: Count | None = None
    """sampling.max_tokens where absent."""
    temperature: NonNegative = 0.6
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    seed: Annotated[int, Field(ge=0)] = 1000
    when: tuple[EvalWhen, ...] = (EvalWhen.BASELINE, EvalWhen.FINAL)
    every_steps: Count | None = None
    at_fractions: tuple[Share, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known = self.suite in set(SuiteName)
        if not known and self.path is None and self.id is None:
            names = ", ".join(SuiteName)
            raise ValueError(f"unknown suite {self.suite!r}; known: {names}, or give path or id")
        if max(self.k) > self.samples:
            raise ValueError(f"k = {max(self.k)} needs at least as many samples ({self.samples})")
        timed = self.every_steps is not None or bool(self.at_fractions)
        if (EvalWhen.STEP in self.when) != timed:
            raise ValueError('"step" in when and every_steps or at_fractions go together')
        return self


class Entropy(Table):
    """[entropy]: exact token entropy (paper Eq. 1) on fresh completions of fixed prompts."""

    prompts: Annotated[int, Field(ge=0)] = 16
    """0: never measured."""
    every_steps: Count | None = None
    """Besides the start and the end."""


class Select(Table):
    """[select]: which checkpoint the final evaluation judges."""

    use: Literal["last", "best"] = "last"
    suite: str | None = None
    metric: str = "pass@1"
    """Ties go to the earlier checkpoint."""

    @model_validator(mode="after")
    def _best_needs_suite(self) -> Self:
        if self.use == "best" and self.suite is None:
            raise ValueError('select.use = "best" needs select.suite')
        if self.metric != "pass@1":
            raise ValueError('select.metric must be "pass@1"')
        return self


class Paper(Table):
    """[paper]: the publication that the recipe replicates."""

    title: str
    arxiv: str = ""
    table: str = ""
    row: str = ""
    """Name of this model's row in the paper's tables."""


class Expected(Table):
    """One of [[expected]]: a number that the paper prints."""

    key: str
    """Unique name, such as aime24@1.final."""
    metric: str
    value: float
    where: str
    rank: int | Literal["unstated"] | None = None


class Stated(Table):
    """One of [[stated]]: a value that the paper states."""

    key: str
    where: str


class Inferred(Table):
    """One of [[inferred]]: a value that the paper does not state, and where it is taken from."""

    key: str
    source: str


class Deviation(Table):
    """One of [[deviation]]: a value that differs from the paper on purpose."""

    key: str
    paper: Any
    here: Any
    why: str
