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
    """Rounds that are always made."""
    max: Count
    """Rounds that are made at the most."""
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
    """Tokens of thinking, at the most."""
    close: str | None = None
    """Text appended at that limit; left out: `</think>` and a line break; with `whole`, words that
    ask for the answer."""
    answer_tokens: Count | None = None
    """Tokens of the answer after it; left out: the least of 256, the suite's max_tokens and what
    the model's window leaves."""
    min_tokens: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Thinking that ends below so many tokens goes on."""
    nudge: str = Field(default="Wait", min_length=1)
    """What stands there in place of its end."""
    max_nudges: Annotated[int, Field(ge=0, le=100)] = 1
    """How often, at the most."""
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
    """A data set on the hub."""
    revision: str | None = None
    """Commit, tag or branch on the hub; left out: the main branch."""
    config: str | None = None
    """The configuration of a hub data set that has several."""
    split: str | None = None
    """The split of a hub data set; left out: the suite's own, or "test"."""
    columns: Columns | None = None
    """Names of its columns, where they are others."""
    samples: Annotated[
        Annotated[Count, Tag(TAGS[0])] | Annotated[Rounds, Tag(TAGS[1])],
        Discriminator(lambda value: TAGS[0 if isinstance(value, int) else 1]),
    ] = 16
    """Completions of each problem; or a table, for as many as it takes."""
    k: Annotated[tuple[Count, ...], Field(min_length=1)] = (1,)
    """Each k for which pass@k is reported; none above samples."""
    max_tokens: Count | None = None
    """The longest completion, in tokens; left out: sampling.max_tokens."""
    think: Think | None = None
    """A limit of its own for thinking; thinking and answer are then the limit of a completion."""
    temperature: NonNegative = 0.6
    """As in sampling; 0: always the likeliest token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """As in sampling."""
    seed: Annotated[int, Field(ge=0)] = 1000
    """Decides what is sampled, whatever the seed of the run."""
    when: tuple[EvalWhen, ...] = (EvalWhen.BASELINE, EvalWhen.FINAL)
    """When it is run; []: never."""
    every_steps: Count | None = None
    """Steps between two evaluations ("step" in when)."""
    at_fractions: tuple[Share, ...] = ()
    """Shares of the training after which it is evaluated ("step" in when)."""

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
    """Prompts that are completed for it; 0: never measured."""
    every_steps: Count | None = None
    """Steps between two measurements; left out: only at the start and the end."""


class Select(Table):
    """[select]: which checkpoint the final evaluation judges."""

    use: Literal["last", "best"] = "last"
    """The newest checkpoint, or the one with the best result in `suite`."""
    suite: str | None = None
    """The [[eval]] that decides."""
    metric: str = "pass@1"
    """What is compared in it, always "pass@1"; ties go to the earlier checkpoint."""

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
    """Its title."""
    arxiv: str = ""
    """Its number on arXiv."""
    table: str = ""
    """Where its results stand."""
    row: str = ""
    """Name of this model's row in the paper's tables."""


class Expected(Table):
    """One of [[expected]]: a number that the paper prints."""

    key: str
    """Unique name, such as aime24@1.final."""
    metric: str
    """What it measures."""
    value: float
    """The number as printed."""
    where: str
    """Page, table or figure it stands in."""
    rank: int | Literal["unstated"] | None = None
    """Rank of the adapter that it was measured with; "unstated": the paper does not say."""


class Stated(Table):
    """One of [[stated]]: a value that the paper states."""

    key: str
    """A key of the recipe, such as lora.rank."""
    where: str
    """Where in the paper."""


class Inferred(Table):
    """One of [[inferred]]: a value that the paper does not state, and where it is taken from."""

    key: str
    """A key of the recipe, such as lora.rank."""
    source: str
    """What the value rests on."""


class Deviation(Table):
    """One of [[deviation]]: a value that differs from the paper on purpose."""

    key: str
    """A key of the recipe, such as lora.rank."""
    paper: Any
    """The paper's value."""
    here: Any
    """The recipe's value; "unset" where it has none."""
    why: str
    """Why it differs."""
