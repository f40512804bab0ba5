"""Draw tokens so that each row depends on its own seed, not on the batch it is in.

Categorical sampling by the Gumbel-max trick: argmax(log p + g) with g ~ Gumbel(0, 1) drawn from
the row's own generator. The processor also sums what it sees: the log-probability of each drawn
token and the exact entropy of the tempered distribution (before top-p and top-k cut it).
"""

from collections.abc import Iterable, Sequence

import torch
from transformers import (
    LogitsProcessor,
    MinPLogitsWarper,
    StoppingCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from budgetrl.engine.base import SamplingSpec, StopCheck

_NOISE_FLOATS = 1 << 22
"""Random numbers drawn ahead, over all rows: 16 MiB."""


class SeededSampler(LogitsProcessor):
    """Turns logits into one-hot choices; used with greedy search.

    Args:
        sampling: temperature (0 is greedy), top_p, top_k, min_p.
        seeds: one per row.
        eos_ids: tokens that end a row.
        device: where the logits are.
    """

    def __init__(
        self,
        sampling: SamplingSpec,
        seeds: Sequence[int],
        eos_ids: Sequence[int],
        device: torch.device,
    ) -> None:
        self._warpers: list[LogitsProcessor] = []
        self._temperature = sampling.temperature
        if sampling.temperature not in (0.0, 1.0):
            self._warpers.append(TemperatureLogitsWarper(sampling.temperature))
        self._cuts: list[LogitsProcessor] = []
        if sampling.top_k > 0:
            self._cuts.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1.0:
            self._cuts.append(TopPLogitsWarper(sampling.top_p))
        if sampling.min_p > 0.0:
            self._cuts.append(MinPLogitsWarper(sampling.min_p))
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self._eos = torch.tensor(list(eos_ids), device=device)
        self._running = torch.ones(len(seeds), dtype=torch.bool, device=device)
        self._noise: torch.Tensor | None = None
        self._position = 0
        self.entropy_sum = torch.zeros(len(seeds), dtype=torch.float64, device=device)
        """Per row, over the tokens drawn so far, in nats."""
        self._logps: list[torch.Tensor] = []
        self.tokens = torch.zeros(len(seeds), dtype=torch.long, device=device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V) -> scores that are 0 at the drawn token and -inf elsewhere."""
        scores = scores.float()
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        log_p = torch.log_softmax(scores, dim=-1)
        cut = log_p
        for warper in self._cuts:
            cut = warper(input_ids, cut)
        choice = cut if self._temperature == 0.0 else cut + self._gumbel(cut.shape[-1], cut.device)
        token = choice.argmax(dim=-1)
        self._account(log_p, token)
        drawn = torch.full_like(scores, -torch.inf)
        return drawn.scatter_(1, token[:, None], 0.0)

    def logps(self, lengths: Iterable[int]) -> list[list[float]]:
        """Log-probability, tempered, of each of the first tokens of each row."""
        drawn = torch.stack(self._logps, dim=1).tolist()
        return [row[:length] for row, length in zip(drawn, lengths, strict=True)]

    def _account(self, log_p: torch.Tensor, token: torch.Tensor) -> None:
        running = self._running.double()
        entropy = -(log_p.exp() * log_p).nan_to_num(0.0).sum(dim=-1)
        self.entropy_sum += entropy.double() * running
        self._logps.append(log_p.gather(1, token[:, None])[:, 0])
        self.tokens += self._running.long()
        self._running &= ~torch.isin(token, self._eos)

    def _gumbel(self, vocabulary: int, device: torch.device) -> torch.Tensor:
        rows = len(self._generators)
        ahead = max(1, min(32, _NOISE_FLOATS // (rows * vocabulary)))
        index = self._position % ahead
        if index == 0 or self._noise is None:
            if self._noise is None:
                self._noise = torch.empty(rows, ahead, vocabulary, device=device)
            for row in self._running.nonzero()[:, 0].tolist():
                self._noise[row].exponential_(generator=self._generators[row])
            self._noise.log_().neg_()
        self._position += 1
        return self._noise[:, index]


class StopWhen(StoppingCriteria):
    """Ends generation between two tokens when asked to, and remembers that it did."""

    def __init__(self, should_stop: StopCheck) -> None:
        self._should_stop = should_stop
        self.stopped = False

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        """True for all rows once stopped."""
        self.stopped = self.stopped or self._should_stop()
        return torch.full((input_ids.shape[0],), self.stopped, device=input_ids.device)


class RoomIsUsed(StoppingCriteria):
    """Ends each row where its own room for a completion ends.

    Args:
        prompt_tokens: of the padded prompts.
        rooms: tokens of each row.
        device: where the rows are.
    """

    def __init__(self, prompt_tokens: int, rooms: Sequence[int], device: torch.device) -> None:
        self._ends = prompt_tokens + torch.tensor(list(rooms), device=device)

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        """True for the rows that are as long as they may be."""
        return input_ids.shape[1] >= self._ends
