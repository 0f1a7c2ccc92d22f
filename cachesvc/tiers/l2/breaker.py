"""Decides when to stop asking a server that does not answer.

    CLOSED ──threshold failures in a row──► OPEN ──cool-down──► HALF_OPEN ──probe succeeds──► CLOSED
                                             ▲                      │
                                             └─────probe fails──────┘

Without a breaker, every batch to a dead server would wait for its whole deadline, and so would
every reader whose keys belong to that server. (Nygard, *Release It!*: the circuit breaker.)
"""

import random
import time
from collections.abc import Callable
from enum import StrEnum


class BreakerState(StrEnum):
    """The three states of a breaker."""

    CLOSED = "closed"
    """Every call is let through."""
    OPEN = "open"
    """No call is let through until the cool-down is over."""
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
        """Makes a closed breaker.

        `threshold` failures in a row open it for `cool_down_seconds`, lengthened by a random share of that
        time, up to `jitter`. The jitter keeps the instances of a region from probing a server that comes
        back all at once. `now` returns seconds on a clock that never steps. Raises `ValueError` for a bound
        that makes no sense.
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
        """True if the server is left alone, apart from probes."""
        return self.state is not BreakerState.CLOSED

    def admits(self) -> bool:
        """True if this call may go through.

        While the breaker is not closed, an admitted call is the probe, and its outcome must be told by
        `succeeded` or `failed`. A probe that never tells (its caller was cancelled) blocks other calls for
        one cool-down, not for ever.
        """
        if self.state is BreakerState.CLOSED:
            return True
        if self._now() < self._probe_at:
            return False
        self.state = BreakerState.HALF_OPEN
        self._probe_at = self._next_probe()
        return True

    def succeeded(self) -> None:
        """Closes the breaker: the server has answered."""
        self.failures_in_a_row = 0
        self.state = BreakerState.CLOSED

    def seen(self) -> None:
        """Closes an open breaker: the server has answered a question that is no call.

        Without calls there is no probe, and the server of an idle instance would stay left alone. A server
        that answers questions only is left alone again after `threshold` calls.
        """
        if self.state is BreakerState.OPEN:
            self.succeeded()

    def failed(self) -> None:
        """Counts a failure, which may open the breaker."""
        self.failures_in_a_row += 1
        if self.state is BreakerState.OPEN:
            return  # the failed call began before the breaker opened
        if self.state is BreakerState.HALF_OPEN or self.failures_in_a_row >= self._threshold:
            self.state = BreakerState.OPEN
            self.times_opened += 1
            self._probe_at = self._next_probe()

    def _next_probe(self) -> float:
        return self._now() + self._cool_down_seconds * (1 + self._jitter * self._rng.random())

    def __repr__(self) -> str:
        return f"<Breaker {self.state} [{self.failures_in_a_row} failures in a row]>"
