"""How far a near cache may be behind, and until when its copies can be trusted.

A heartbeat says two times by the clock of its instance: `now`, and `complete_to`, the time up to
which everything has been told. Between heartbeats the service's time is computed as this process's
monotonic time less an offset. The smallest offset seen counts, not the latest. A process that was
stopped for a while, or was busy, finds heartbeats in its socket that arrived long ago. With the
latest offset it would take the times in them for the present. The offset leaks a little (`LEAK`),
so that a clock of the service that was set back is believed in the end.
"""

import math

SILENCE_SECONDS = 1.5
"""Seconds without a heartbeat after which the feed counts as down.

A heartbeat comes at least every half second.
"""
LEAK = 0.01
"""Growth of the smallest offset, in seconds per second between heartbeats."""

_SECOND = 1_000_000


class Watermark:
    """The newest heartbeat, and the offset between the service's clock and this process's.

    `received` and `moment` are monotonic seconds of this process. `at`, `now` and `complete_to` are
    microseconds of the service. `Near` holds its lock around calls that change it.
    """

    def __init__(self) -> None:
        self._offset = math.inf
        self._received = -math.inf
        self._complete_to = 0

    def heartbeat(self, complete_to: int, now: int, received: float) -> None:
        """Merges a heartbeat that arrived at `received`.

        `complete_to` is that of the region that is furthest behind; 0 if a region was never read.
        """
        leaked = LEAK * (received - self._received) if self.is_known else 0.0
        self._offset = min(received - now / _SECOND, self._offset + leaked)
        self._received = received
        self._complete_to = complete_to

    @property
    def is_known(self) -> bool:
        """True once a heartbeat has come."""
        return self._offset < math.inf

    def now(self, moment: float) -> int:
        """Returns the service's time at `moment`; it may be called only once `is_known` is true."""
        return int((moment - self._offset) * _SECOND)

    def local(self, at: int) -> float:
        """Returns the monotonic time of this process at which the service's clock says `at`."""
        return at / _SECOND + self._offset

    def bound(self, moment: float) -> float:
        """Returns the staleness bound at `moment` in seconds.

        A change that was accepted longer ago than the bound is known here.
        """
        return moment - self.local(self._complete_to)

    def trusted_until(self, max_lag: float) -> float:
        """Returns the monotonic time until which copies may be answered; a heartbeat extends it."""
        if not self.is_known:
            return -math.inf
        return min(self.local(self._complete_to) + max_lag, self._received + SILENCE_SECONDS)
