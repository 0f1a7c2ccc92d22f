"""A wall clock that is the event loop's: under looptime, `asyncio.sleep(100)` moves both and takes no time."""

import asyncio

START_US = 1_700_000_000_000_000


class LoopClock:
    """`skew_us` sets it ahead of (or behind) the loop's time; change it to step the clock."""

    def __init__(self, skew_us: int = 0) -> None:
        self.skew_us = skew_us

    def now_us(self) -> int:
        return START_US + round(asyncio.get_running_loop().time() * 1_000_000) + self.skew_us
