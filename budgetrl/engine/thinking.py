"""Budget forcing: a policy whose thinking has a limit of its own, and an answer after it.

    policy = ThinkingPolicy(engine, budget, memory)
    policy.generate(...)     at the limit of thinking the closing text is appended, and the answer
                             is written; below the least, its end is replaced by the nudge

As s1 describes it (Muennighoff et al. 2025, arXiv 2501.19393, section 3.1), in passes over any
policy: each is an ordinary generation whose prompt holds what came before, so that adapter, seeds
and deadlines are the engine's own. vLLM's `thinking_token_budget` does the first half in one pass,
but needs a reasoning parser per model, cannot end an answer, and knows no nudge.

Thinking up to a limit is how thinking up to a higher one begins: `Trajectories` keeps what was
drawn, and a lower limit takes it from there. Answers of lower limits are drawn ahead with those of
the highest, many at once, because a pass costs its steps more than its rows. Not here: which tags a
model has (evaluation.think).
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from budgetrl.engine.base import (
    ModelEngine,
    Request,
    SamplingSpec,
    StopCheck,
    sample_seed,
)
from budgetrl.types import Completion, Thinking


@dataclass(frozen=True, slots=True)
class ThinkBudget:
    """How long a model thinks, and what it is told when."""

    max_tokens: int
    answer_tokens: int
    close_ids: tuple[int, ...]
    """Appended at the limit."""
    min_tokens: int = 0
    nudge_ids: tuple[int, ...] = ()
    """Appended where thinking ends below the least."""
    max_nudges: int = 1
    open_tag: str | None = None
    """What begins thinking; None: the prompt has begun it, or all is thinking."""
    close_tag: str | None = None
    """What ends it; None: all is thinking."""


@dataclass(slots=True)
class Trajectory:
    """Thinking as it was drawn, and what the model wrote after it within the limit."""

    ids: list[int] = field(default_factory=list)
    """With nudges, and without an end token."""
    appended: int = 0
    """Tokens of nudges."""
    nudges: int = 0
    ended: bool = False
    """The model ended by itself."""
    end: tuple[int, ...] = ()
    """The end token that it wrote."""

    @property
    def drawn(self) -> int:
        """Tokens that the model wrote."""
        return len(self.ids) - self.appended + len(self.end)


@dataclass(frozen=True, slots=True)
class _Cut:
    """A completion that waits for its answer."""

    place: int
    """Of its request."""
    budget: ThinkBudget
    ids: list[int]
    """What comes before the answer."""
    forced: bool
    """The closing text was appended."""
    room: int
    """Tokens that the answer may have."""

    @property
    def thought(self) -> int:
        """Tokens before the closing text."""
        return len(self.ids) - (len(self.budget.close_ids) if self.forced else 0)


@dataclass(slots=True)
class Trajectories:
    """Thinking that was drawn, for lower limits of the same protocol, and answers drawn ahead.

    It lives as long as one call: token ids are not stored, and text does not give them back.
    """

    _known: dict[tuple[str, int, int], tuple["array[int]", Trajectory]] = field(
        default_factory=dict
    )
    _answers: dict[tuple[tuple[str, int, int], int], "array[int]"] = field(default_factory=dict)

    def keep(self, request: Request, one: Trajectory) -> None:
        """Remember a completion's thinking."""
        rest = replace(one, ids=[])
        self._known[_key(request)] = (array("i", one.ids), rest)

    def take(self, request: Request, limit: int) -> Trajectory | None:
        """The thinking that was drawn for a request, if it is long enough."""
        found = self._known.get(_key(request))
        if found is None:
            return None
        ids, rest = found
        one = replace(rest, ids=ids.tolist())
        return one if one.ended or one.drawn >= limit else None

    def keep_answer(self, request: Request, limit: int, ids: Sequence[int]) -> None:
        """Remember what was answered after so much thinking."""
        self._answers[_key(request), limit] = array("i", ids)

    def answered(self, request: Request, limit: int) -> bool:
        """Whether the answer is there."""
        return (_key(request), limit) in self._answers

    def take_answer(self, request: Request, limit: int) -> list[int] | None:
        """The answer, which is asked for once; None if it was not drawn."""
        ids = self._answers.pop((_key(request), limit), None)
        return None if ids is None else ids.tolist()


def _key(request: Request) -> tuple[str, int, int]:
    return request.problem_id, request.sample, request.seed


class ThinkingPolicy:
    """An engine under a budget of thinking.

    Args:
        engine: draws.
        budget: of thinking and answer.
        memory: of the same protocol under higher limits, drawn before.
        ahead: lower limits that are asked for next; their answers are drawn with these.
        rows: that a pass may have where fewer are asked for.
    """

    def __init__(
        self,
        engine: ModelEngine,
        budget: ThinkBudget,
        memory: Trajectories | None = None,
        ahead: Sequence[ThinkBudget] = (),
        rows: int = 1,
    ) -> None:
        self._rows = rows
        self._engine, self._decode, self._ends = engine, engine.decode, engine.end_ids
        self._budget, self._ahead = budget, tuple(ahead)
        self._memory = Trajectories() if memory is None else memory

    def generate(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> list[Completion | None]:
        """One completion per request; None for those not finished when stopped."""
        limit = self._budget.max_tokens
        found = {i: self._memory.take(r, limit) for i, r in enumerate(requests)}
        fresh = [i for i, one in found.items() if one is None]
        drawn = self._think([requests[i] for i in fresh], sampling, should_stop)
        for i, one in zip(fresh, drawn, strict=True):
            if one is not None:
                self._memory.keep(requests[i], one)
                found[i] = one
        cuts = [
            cut
            for i, one in found.items()
            if one is not None
            for budget in (self._budget, *self._ahead)
            if (cut := self._cut(i, one, budget)) is not None
        ]
        self._draw_answers(requests, cuts, sampling, should_stop)
        own = {cut.place: cut for cut in cuts if cut.budget is self._budget}
        return [
            None if one is None else self._whole(requests[i], one, own.get(i))
            for i, one in found.items()
        ]

    def _think(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> list[Trajectory | None]:
        """Thinking up to the limit, with nudges; None where it was stopped."""
        found: list[Trajectory | None] = [Trajectory() for _ in requests]
        open_ = list(range(len(requests)))
        for turn in range(self._budget.max_nudges + 1):
            if not open_:
                break
            so_far = [(i, one) for i in open_ if (one := found[i]) is not None]
            rooms = [self._budget.max_tokens - one.drawn for _, one in so_far]
            asked = [_after(requests[i], one.ids, f"think {turn}", turn) for i, one in so_far]
            made = self._draw(asked, rooms, sampling, should_stop)
            open_ = []
            for (i, one), completion in zip(so_far, made, strict=True):
                if completion is None:
                    found[i] = None
                    continue
                self._take_over(one, completion)
                if turn < self._budget.max_nudges and self._nudge(one):
                    open_.append(i)
        return found

    def _take_over(self, one: Trajectory, ids: Sequence[int]) -> None:
        ended = bool(ids) and ids[-1] in self._ends
        one.ids += ids[:-1] if ended else ids
        one.ended, one.end = ended, tuple(ids[-1:]) if ended else ()

    def _nudge(self, one: Trajectory) -> bool:
        """Replace an end of thinking that came too early; whether there was one."""
        budget = self._budget
        span = self._closing(one.ids)
        ends_at = len(one.ids) if span is None else span[0]
        if span is None and not one.ended:
            return False
        if ends_at - one.appended >= budget.min_tokens or not self._opened(one.ids):
            return False
        one.ids = [*one.ids[:ends_at], *budget.nudge_ids]
        one.appended += len(budget.nudge_ids)
        one.nudges += 1
        one.ended, one.end = False, ()
        return True

    def _cut(self, place: int, one: Trajectory, budget: ThinkBudget) -> _Cut | None:
        """What comes before the answer under a limit; None where the completion is whole."""
        if one.ended and one.drawn <= budget.max_tokens:
            return None
        ids = one.ids[: budget.max_tokens + one.appended]
        span = self._closing(ids)
        if span is None:
            return _Cut(place, budget, [*ids, *budget.close_ids], True, budget.answer_tokens)
        return _Cut(place, budget, ids, False, max(0, budget.answer_tokens - len(ids) + span[1]))

    def _draw_answers(
        self,
        requests: Sequence[Request],
        cuts: Sequence[_Cut],
        sampling: SamplingSpec,
        should_stop: StopCheck,
    ) -> None:
        """Answers that are not there yet, into the memory."""
        new = [
            (cut, _after(requests[cut.place], cut.ids, f"answer {cut.budget.max_tokens}", 1))
            for cut in cuts
            if not self._memory.answered(requests[cut.place], cut.budget.max_tokens)
        ]
        for together in _passes(new, max(self._rows, len(requests))):
            asked, rooms = _with_stems(together), [cut.room for cut, _ in together]
            made = self._draw(asked, rooms, sampling, should_stop)
            for (cut, _), ids in zip(together, made, strict=True):
                if ids is not None:
                    self._memory.keep_answer(requests[cut.place], cut.budget.max_tokens, ids)

    def _whole(self, request: Request, one: Trajectory, cut: _Cut | None) -> Completion | None:
        """A completion with its answer; None where that was not drawn to its end."""
        if cut is None:
            return self._completion(one, one.ids, one.end, (), forced=False, cut=False)
        answer = self._memory.take_answer(request, self._budget.max_tokens)
        if answer is None:
            return None
        unended = not answer or answer[-1] not in self._ends
        closing = self._budget.close_ids if cut.forced else ()
        return self._completion(one, cut.ids, answer, closing, forced=cut.forced, cut=unended)

    def _completion(
        self,
        one: Trajectory,
        ids: Sequence[int],
        more: Sequence[int],
        closing: Sequence[int],
        *,
        forced: bool,
        cut: bool,
    ) -> Completion:
        appended = one.appended + len(closing)
        span = self._closing(ids)
        thought = len(ids) - len(closing) if forced or span is None else span[0]
        thinking = Thinking(
            tokens=max(0, thought - one.appended) if self._opened(ids) else 0,
            appended=appended,
            nudges=one.nudges,
            forced=forced,
        )
        whole = [*ids, *more]
        return Completion(self._decode(whole), len(whole) - appended, cut, thinking=thinking)

    def _draw(
        self,
        requests: Sequence[Request],
        rooms: Sequence[int],
        sampling: SamplingSpec,
        should_stop: StopCheck,
    ) -> list[list[int] | None]:
        """Ids of a pass, each row no longer than its room; None where it was stopped."""
        some = [i for i, room in enumerate(rooms) if room > 0]
        found: list[list[int] | None] = [[] for _ in requests]
        if not some:
            return found
        spec = replace(sampling, max_tokens=max(rooms[i] for i in some))
        made = self._engine.generate([requests[i] for i in some], spec, should_stop)
        for i, completion in zip(some, made, strict=True):
            found[i] = None if completion is None else list(completion.ids[: rooms[i]])
        return found

    def _opened(self, ids: Sequence[int]) -> bool:
        tag = self._budget.open_tag
        return tag is None or tag in self._decode(ids)

    def _closing(self, ids: Sequence[int]) -> tuple[int, int] | None:
        """Where the closing tag begins and ends among the ids; None where thinking is open."""
        tag = self._budget.close_tag
        if tag is None or tag not in self._decode(ids):
            return None
        low, high = 0, len(ids)  # the tag is whole in the first `high` ids, not in the first `low`
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (low, middle) if tag in self._decode(ids[:middle]) else (middle, high)
        start = high - 1
        while tag not in self._decode(ids[start:high]):
            start -= 1
        return start, high


def _passes(
    cuts: Sequence[tuple[_Cut, Request]], rows: int
) -> Iterator[list[tuple[_Cut, Request]]]:
    """Answers that are drawn together, the longest first.

    Rows of a pass are padded to its longest one. So many are taken at once that a pass holds no
    more tokens than `rows` of the longest ones.
    """

    def length(one: tuple[_Cut, Request]) -> int:
        return len(one[1].prompt_ids) + one[0].room

    ordered = sorted(cuts, key=length, reverse=True)
    most = rows * length(ordered[0]) if ordered else 0
    start = 0
    while start < len(ordered):
        count = max(1, most // length(ordered[start]))
        yield ordered[start : start + count]
        start += count


def _with_stems(together: Sequence[tuple[_Cut, Request]]) -> list[Request]:
    """Their requests, which share what is thought with the longest one of the same completion."""
    longest: dict[int, _Cut] = {}
    for cut, _ in together:
        if cut.thought > longest.setdefault(cut.place, cut).thought:
            longest[cut.place] = cut
    return [
        request if longest[cut.place] is cut else replace(request, stem=_stem(cut, request))
        for cut, request in together
    ]


def _stem(cut: _Cut, request: Request) -> int:
    """Tokens of a prompt up to where thinking was cut; one is left to be read."""
    own = len(request.prompt_ids) - len(cut.ids)
    return min(own + cut.thought, len(request.prompt_ids) - 1)


def _after(request: Request, ids: Sequence[int], what: str, turn: int) -> Request:
    """The request that goes on after some ids; the first one is the request itself."""
    if turn == 0:
        return request
    seed = sample_seed(request.seed, what, request.sample)
    return replace(request, prompt_ids=(*request.prompt_ids, *ids), seed=seed)
