"""How far behind a near cache may be: the time of the service by a clock of our own, and how long that vouches for copies.

A heartbeat says two times by the clock of its instance: `now`, and `complete_to`, up to which everything has been told. Between
heartbeats the service's time is ours and an offset. The smallest offset seen counts, not the latest: a process that was stopped
for a while, or has been busy, finds heartbeats in its socket that came long ago, and would take them for news. The offset
leaks a little, so that a clock of the service that was set back is believed in the end.
"""

import math

SILENCE_SECONDS = 1.5
"""A heartbeat comes at least every half second; the feed counts as down after this."""
LEAK = 0.01
"""Seconds per second."""

_SECOND = 1_000_000


class Watermark:
    """`received` and `moment` are monotonic seconds of this process, all else microseconds of the service."""

    def __init__(self) -> None:
        self._offset = math.inf
        self._received = -math.inf
        self._complete_to = 0

    def heartbeat(self, complete_to: int, now: int, received: float) -> None:
        """`complete_to`: of the region that is furthest behind; 0 if one was never read."""
        leaked = LEAK * (received - self._received) if self.is_known else 0.0
        self._offset = min(received - now / _SECOND, self._offset + leaked)
        self._received = received
        self._complete_to = complete_to

    @property
    def is_known(self) -> bool:
        return self._offset < math.inf

    def now(self, moment: float) -> int:
        """The service's time; only once `is_known`."""
        return int((moment - self._offset) * _SECOND)

    def local(self, at: int) -> float:
        """The monotonic time of a time of the service."""
        return at / _SECOND + self._offset

    def bound(self, moment: float) -> float:
        """Seconds: a change may have been accepted so long ago and not be known here."""
        return moment - self.local(self._complete_to)

    def trusted_until(self, max_lag: float) -> float:
        """Copies may be answered up to this monotonic time, unless another heartbeat comes."""
        if not self.is_known:
            return -math.inf
        return min(self.local(self._complete_to) + max_lag, self._received + SILENCE_SECONDS)
