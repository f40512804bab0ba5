"""A clock for tests: time passes only when told to."""


class FakeClock:
    """Monotonic seconds; call it to read them."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
