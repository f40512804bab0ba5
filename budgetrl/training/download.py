"""The phase in which a run brings what it needs from the hub, before it loads anything.

Data first, because it is small and its faults are the user's; the model after it. Bytes so far are
events, for the display. A download that will not end inside the budget is given up while there is
still something left.
"""

import time
from dataclasses import dataclass

from budgetrl.errors import BudgetError, ModelError
from budgetrl.events import Download
from budgetrl.hub.config import read_config
from budgetrl.hub.errors import RETRY_LATER
from budgetrl.hub.fetch import STALL_FACTOR, Watch, fetch, read_timeout_s
from budgetrl.hub.pins import Pin, Pins
from budgetrl.training.log import RunLog
from budgetrl.units import duration, gib

PACE_S = 2.0
"""Between two events."""
SETTLED_S = 15.0
"""After this long the pace is believed."""
STALL_SHARE = 0.2
"""Of what is left of the budget; a download that stands still is given up no later."""
DATA_FIRST = ("data", "eval")


def bring(pins: Pins, log: RunLog) -> None:
    """Download what is missing, in a phase of its own.

    Raises:
        BudgetError: it would not end inside the budget; parts are kept.
        HubError, ModelError, DataError, RefusedError: see `hub.fetch`.
    """
    wanted = sorted(
        (pin for pin in pins.values() if pin.to_download),
        key=lambda pin: (not pin.need.key.startswith(DATA_FIRST), pin.to_download),
    )
    if not wanted:
        return
    for pin in wanted:
        if pin.need.what == "model":
            _refuse_other_kinds(pin)
    with log.phase("download"):
        for pin in wanted:
            _bring(pin, log)


def _refuse_other_kinds(pin: Pin) -> None:
    """Refuse what no engine can load as a language model, before its weights are fetched."""
    from transformers import __version__
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = read_config(pin.need.repo.id, pin.found.commit)
    kind = None if config is None else config.values.get("model_type")
    if kind is not None and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(
            f"{pin.need.repo.label}: {str(kind)[:40]!r} is no language model that transformers "
            f"{__version__} generates text with; nothing of it was downloaded.",
            hint="Take a model that writes text alone, such as those of `budgetrl recipes list`.",
        )


def _bring(pin: Pin, log: RunLog) -> None:
    stall_s = min(STALL_FACTOR * read_timeout_s(), max(2.0, STALL_SHARE * log.ledger.remaining_s))
    teller = _Teller(pin, log)
    watch = Watch(pin.to_download, teller.tell, stall_s)
    try:
        fetch(pin.found, pin.files, watch)
    finally:
        teller.emit(watch)


@dataclass(slots=True)
class _Teller:
    """Says how far a download is, and ends one that the budget cannot pay."""

    pin: Pin
    log: RunLog
    next_s: float = 0.0

    def tell(self, watch: Watch) -> None:
        """Called often."""
        now = time.monotonic()
        if now >= self.next_s:
            self.next_s = now + PACE_S
            self.emit(watch)
        self._refuse_late(watch)

    def emit(self, watch: Watch) -> None:
        """An event of the bytes so far."""
        self.log.emit(
            Download(
                repo=self.pin.need.repo.id,
                commit=self.pin.found.commit,
                bytes=watch.done,
                total_bytes=watch.total,
                seconds=watch.elapsed_s,
            )
        )

    def _refuse_late(self, watch: Watch) -> None:
        left_s, needed_s = self.log.ledger.remaining_s, watch.remaining_s
        early = watch.elapsed_s < min(SETTLED_S, STALL_SHARE * left_s)
        if needed_s is None or early or needed_s <= left_s:
            return
        raise BudgetError(
            f"{self.pin.need.repo.label}: at this pace the other {gib(watch.total - watch.done)} "
            f"take {duration(needed_s)}, and {duration(left_s)} of the budget are left; what came "
            "is kept.",
            hint=f"Give more with --hours, or download it before. {RETRY_LATER}",
        )
