"""A loader that lets a limited number of loads run at once.

Further loads wait for their turn, first come first served. The limit protects the origin, not the
caller: a load that waits costs its callers only the deadline that they have anyway, while a
thousand loads at once may take the origin down. A load that waited too long is refused without
having reached the origin.
"""

import asyncio

from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import OriginError
from cachesvc.model.problems import ProblemKind
from cachesvc.telemetry.metrics.histogram import DURATIONS, Histogram
from cachesvc.tiers.origin.contract import Loaded, Loader


class LimitedLoader:
    """Runs at most `limit` loads of `loader` at once; the others wait for their turn.

    A load waits at most `wait_seconds`, and never beyond its own timeout; the time it waited is taken
    off the timeout that the wrapped loader gets. A cancelled caller gives its turn to the next one,
    whether it was cancelled in the queue, at the instant it got its turn, or while loading. `running`
    never exceeds `limit`.
    """

    def __init__(self, loader: Loader, *, limit: int, wait_seconds: float = float("inf")) -> None:
        if limit < 1:
            raise ValueError(f"LimitedLoader: a limit of {limit} would let nothing through")
        self.limit = limit
        self.running = 0
        self.peak = 0
        """The largest number of loads that ever ran at once."""
        self.waiting = 0
        self.refused = 0
        """Loads that got no turn in time."""
        self.durations = Histogram.of(DURATIONS)
        """Seconds that loads took from their turn on, failed and cancelled ones too."""
        self._loader = loader
        self.wait_seconds = wait_seconds
        self._turns = asyncio.Semaphore(limit)

    def __repr__(self) -> str:
        running = f"{self.running}/{self.limit} running"
        return f"<LimitedLoader {running}, {self.waiting} waiting, {self.refused} refused>"

    async def load(self, key: Key, *, known: Entry | None, timeout_seconds: float) -> Loaded:
        left = await self._take_turn(timeout_seconds)
        self.running += 1
        self.peak = max(self.peak, self.running)
        began = asyncio.get_running_loop().time()
        try:
            return await self._loader.load(key, known=known, timeout_seconds=left)
        finally:
            self.durations.observe(asyncio.get_running_loop().time() - began)
            self.running -= 1
            self._turns.release()

    async def _take_turn(self, timeout_seconds: float) -> float:
        """Returns the rest of the timeout, and the caller has a turn; or raises, and it has none."""
        if not self._turns.locked():
            await self._turns.acquire()
            return timeout_seconds
        patience = min(timeout_seconds, self.wait_seconds)
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.waiting += 1
        try:
            async with asyncio.timeout(patience):
                await self._turns.acquire()
        except TimeoutError as error:
            self.refused += 1
            raise OriginError(
                f"{self.limit} loads run already and none ended within {patience:g} s",
                kind=ProblemKind.ORIGIN_BUSY,
            ) from error
        finally:
            self.waiting -= 1
        return max(0.0, timeout_seconds - (loop.time() - began))

    async def start(self) -> None:
        await self._loader.start()

    async def stop(self) -> None:
        await self._loader.stop()
