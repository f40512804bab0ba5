"""Recipe tables about evaluation, and about the paper that a recipe replicates."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from budgetrl.recipe.base import Count, NonNegative, Share, SuiteName, Table
from budgetrl.recipe.model_tables import Columns
from budgetrl.types import EvalWhen

TAGS = ("<number>", "<table>")
"""Of values that may be either, so that an error speaks of what was given."""


class Rounds(Table):
    """samples = { min, max, until_width }: rounds until the interval is narrow, or the budget ends.

    `min` rounds are always made; rounds that differ do not make protocols differ.
    """

    min: Annotated[int, Field(ge=1, le=10**6)] = 2
    max: Count
    until_width: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | None = None
    """Full width of the 95 % interval of pass@1, in points."""

    @model_validator(mode="before")
    @classmethod
    def _has_an_end(cls, data: Any) -> Any:
        if isinstance(data, str):
            raise ValueError("is neither a number nor a table with min, max and until_width")
        if isinstance(data, dict) and "max" not in data:
            raise ValueError("until_width alone has no end: say max too, such as max = 32")
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min = {self.min} is above max = {self.max}")
        if self.min < self.max and self.until_width is None:
            raise ValueError("min and max need until_width, such as until_width = 3.0 (points)")
        if self.min < 2 and self.until_width is not None:
            raise ValueError("until_width needs min = 2 or more: one round shows no spread")
        return self

    def expected(self, problems: int) -> int:
        """Of a suite that nobody has seen: for plans, with half of the answers right.

        Problems and answers to one problem then spread alike: solve rates as Beta(0.5, 0.5).
        """
        if self.until_width is None:
            return self.max
        spread = 1 / 8
        room = (self.until_width / 100 / (2 * 1.96)) ** 2 * problems - spread
        return self.min if room <= 0 else min(max(self.min, math.ceil(spread / room)), self.max)

    def at_most(self, most: int) -> "Rounds":
        """The same with less time."""
        return self.model_copy(update={"min": min(self.min, most), "max": min(self.max, most)})


CLOSE = "</think>\n"
CLOSE_WHOLE = "\n\nFinal answer: "
"""What is appended at the limit of thinking, where nothing else is said."""


class Think(Table):
    """think = { max_tokens, .. }: a limit for thinking alone, and an answer after it.

    What s1 calls budget forcing: at the limit `close` is appended and the answer is written; where
    thinking ends below `min_tokens`, its end is replaced by `nudge`.
    """

    max_tokens: Count
    close: str | None = None
    """`</think>` and a line break where absent; with `whole`, words that ask for the answer."""
    answer_tokens: Count | None = None
    """The least of 256, the suite's max_tokens and what the model's window leaves, where absent."""
    min_tokens: Annotated[int, Field(ge=0, le=10**9)] = 0
    nudge: str = Field(default="Wait", min_length=1)
    max_nudges: Annotated[int, Field(ge=0, le=100)] = 1
    whole: bool = False
    """Everything is thinking, for models without think tags."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_tokens > self.max_tokens:
            raise ValueError(
                f"think.min_tokens = {self.min_tokens} is above max_tokens = {self.max_tokens}"
            )
        if self.close is not None and not self.close.strip():
            raise ValueError("think.close is blank: the answer would not be asked for")
        return self

    @property
    def appended(self) -> int:
        """Tokens that may be appended, at the most: no tokenizer has more than one for a byte."""
        close = self.close or (CLOSE_WHOLE if self.whole else CLOSE)
        nudges = self.max_nudges * len(self.nudge.encode()) if self.min_tokens else 0
        return len(close.encode()) + nudges


def rounds_of(samples: int | Rounds) -> Rounds:
    """A number is as many rounds at the least and at the most."""
    return Rounds(min=samples, max=samples) if isinstance(samples, int) else samples


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
    samples: Annotated[
        Annotated[Count, Tag(TAGS[0])] | Annotated[Rounds, Tag(TAGS[1])],
        Discriminator(lambda value: TAGS[0 if isinstance(value, int) else 1]),
    ] = 16
    """Of each problem; or a table, for as many as it takes."""
    k: Annotated[tuple[Count, ...], Field(min_length=1)] = (1,)
    max_tokens: Count | None = None
    """sampling.max_tokens where absent."""
    think: Think | None = None
    """A limit of its own for thinking; thinking and answer are then the limit of a completion."""
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
        if max(self.k) > self.rounds.min:
            least = self.rounds.min
            raise ValueError(f"k = {max(self.k)} needs at least as many samples ({least})")
        timed = self.every_steps is not None or bool(self.at_fractions)
        if (EvalWhen.STEP in self.when) != timed:
            raise ValueError('"step" in when and every_steps or at_fractions go together')
        return self

    @property
    def rounds(self) -> Rounds:
        """`samples` as a table."""
        return rounds_of(self.samples)


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
