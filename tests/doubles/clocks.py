"""Wall clocks for tests: one shows the event loop's time, one is turned by hand.

Under looptime, `asyncio.sleep(100)` moves the loop's time and `LoopClock`, and takes no time.
"""

import asyncio

from cachesvc.model.clock import SECONDS

START_US = 1_700_000_000_000_000


class LoopClock:
    """A clock that is ahead of the loop's time by `skew_us`, or behind if it is negative.

    A test steps the clock by changing `skew_us`.
    """

    def __init__(self, skew_us: int = 0) -> None:
        self.skew_us = skew_us

    def now_us(self) -> int:
        return START_US + round(asyncio.get_running_loop().time() * 1_000_000) + self.skew_us


class ManualClock:
    """A clock that moves only when it is told to."""

    def __init__(self, start_us: int = START_US) -> None:
        self._now_us = start_us

    def now_us(self) -> int:
        return self._now_us

    def advance(self, *, seconds: float = 0, us: int = 0) -> None:
        self._now_us += us + round(seconds * SECONDS)
