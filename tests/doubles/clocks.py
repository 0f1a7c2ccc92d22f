"""A wall clock that shows the event loop's time.

Under looptime, `asyncio.sleep(100)` moves both and takes no time.
"""

import asyncio

START_US = 1_700_000_000_000_000


class LoopClock:
    """A clock that is ahead of the loop's time by `skew_us`, or behind if it is negative.

    A test steps the clock by changing `skew_us`.
    """

    def __init__(self, skew_us: int = 0) -> None:
        self.skew_us = skew_us

    def now_us(self) -> int:
        return START_US + round(asyncio.get_running_loop().time() * 1_000_000) + self.skew_us
