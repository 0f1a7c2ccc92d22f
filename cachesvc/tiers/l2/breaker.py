"""When to stop asking a server that does not answer (Nygard, *Release It!*, circuit breaker).

    CLOSED ──threshold failures in a row──► OPEN ──cool-down──► HALF_OPEN ──the probe succeeds──► CLOSED
                                             ▲                      │
                                             └────the probe fails───┘

Without it every batch to a dead server would wait for its whole deadline, and with it every reader whose keys live there.
"""

import random
import time
from collections.abc import Callable
from enum import StrEnum


class BreakerState(StrEnum):
    CLOSED = "closed"
    """Everything is let through."""
    OPEN = "open"
    """Nothing is let through until the cool-down is over."""
    HALF_OPEN = "half-open"
    """One probe is under way."""


class Breaker:
    """Counts consecutive failures. Synchronous; belongs to one event loop."""

    def __init__(
        self,
        *,
        threshold: int = 5,
        cool_down_seconds: float = 1.0,
        jitter: float = 0.5,
        now: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """`threshold` failures in a row open it for `cool_down_seconds`, lengthened by a random share up to `jitter`.

        The jitter keeps the instances of a region from probing a server that comes back all at once. `now`: seconds on a clock
        that never steps.
        """
        if threshold < 1 or cool_down_seconds <= 0 or jitter < 0:
            raise ValueError(
                "a breaker needs a threshold of at least 1, a cool-down above 0 and a jitter of at least 0"
            )
        self.state = BreakerState.CLOSED
        self.failures_in_a_row = 0
        self.times_opened = 0
        self._threshold = threshold
        self._cool_down_seconds = cool_down_seconds
        self._jitter = jitter
        self._now = now
        self._rng = rng or random.Random()  # noqa: S311  spreads load, guards no secret
        self._probe_at = 0.0

    @property
    def is_open(self) -> bool:
        """Is the server left alone, a probe apart?"""
        return self.state is not BreakerState.CLOSED

    def admits(self) -> bool:
        """May this call go through? A yes while not closed makes the call the probe; its outcome must be told.

        A probe that never tells (its caller was cancelled) blocks others for one cool-down, not for ever.
        """
        if self.state is BreakerState.CLOSED:
            return True
        if self._now() < self._probe_at:
            return False
        self.state = BreakerState.HALF_OPEN
        self._probe_at = self._next_probe()
        return True

    def succeeded(self) -> None:
        self.failures_in_a_row = 0
        self.state = BreakerState.CLOSED

    def failed(self) -> None:
        self.failures_in_a_row += 1
        if self.state is BreakerState.OPEN:
            return  # a call that began before it opened
        if self.state is BreakerState.HALF_OPEN or self.failures_in_a_row >= self._threshold:
            self.state = BreakerState.OPEN
            self.times_opened += 1
            self._probe_at = self._next_probe()

    def _next_probe(self) -> float:
        return self._now() + self._cool_down_seconds * (1 + self._jitter * self._rng.random())

    def __repr__(self) -> str:
        return f"<Breaker {self.state} [{self.failures_in_a_row} failures in a row]>"
