"""Clocks, which are passed as arguments to everything that needs the time.

All times of the protocol are **integer microseconds since the Unix epoch** (`*_us`, or a name
that says its zero such as `as_of`, `fresh_until`). Deadlines of waits are seconds on the event
loop's own clock and never come from here.
"""

import time
from typing import Protocol

MILLISECONDS = 1_000
SECONDS = 1_000_000


class Clock(Protocol):
    """A wall clock. Those of instances, cells and replicas must agree within `max_clock_skew`."""

    def now_us(self) -> int:
        """Returns microseconds since the epoch. They may step, by less than `max_clock_skew`."""
        ...


class SystemClock:
    """The machine's wall clock."""

    def now_us(self) -> int:
        return time.time_ns() // 1000
