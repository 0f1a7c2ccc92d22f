"""Time enters by argument.

All times of the protocol are **integer microseconds since the Unix epoch** (`*_us`, or a name that says its zero such as
`as_of`, `fresh_until`). Deadlines of waits are seconds on the event loop's own clock and never come from here.
"""

import time
from typing import Protocol

MILLISECONDS = 1_000
SECONDS = 1_000_000


class Clock(Protocol):
    """A wall clock. Instances, cells and replicas are assumed to agree within `max_clock_skew`."""

    def now_us(self) -> int:
        """Microseconds since the epoch. May step; the protocol allows for `max_clock_skew`."""
        ...


class SystemClock:
    """The machine's wall clock."""

    def now_us(self) -> int:
        return time.time_ns() // 1000
