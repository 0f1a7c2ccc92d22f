"""A time limit for a whole exchange.

The limit holds wherever the child spends the time: waiting for its turn, connecting, reading a slow
answer. The way to the server comes on top, so a far server has as much time as a near one; and
so does the time of the bytes that are moved meanwhile (`fair_timeout.py`), those of the exchanges
before, whose end is waited for, among them.
"""

from collections.abc import Callable, Sequence

from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError, TierTimeoutError
from cachesvc.tiers.fair_timeout import FairTimeout
from cachesvc.tiers.l2.contract import Lookup, Tier


class Deadline:
    """Cancels a call of the child after `seconds`.

    Each key of a cancelled call is a `TierTimeoutError`.
    """

    def __init__(
        self,
        child: Tier,
        seconds: float,
        *,
        name: str = "tier",
        way_seconds: Callable[[], float] = lambda: 0.0,
        bytes_moved: Callable[[], int] = lambda: 0,
    ) -> None:
        """`bytes_moved` returns the bytes that were sent to the server or came from it, ever."""
        if seconds <= 0:
            raise ValueError(f"{name}: a deadline must be above 0 s, not {seconds}")
        self._child = child
        self._at_the_server = seconds
        self._way_seconds = way_seconds
        self._bytes_moved = bytes_moved
        self._name = name

    @property
    def _seconds(self) -> float:
        return self._at_the_server + self._way_seconds()

    def _limit(self) -> FairTimeout:
        before, moved = self._bytes_moved(), self._bytes_moved
        return FairTimeout(self._seconds, lambda: moved() - before)

    async def get_many(self, keys: Sequence[Key]) -> Sequence[Lookup]:
        try:
            async with self._limit():
                return await self._child.get_many(keys)
        except TimeoutError:
            return self._timed_out(len(keys))

    async def set_many(self, items: Sequence[tuple[Key, Entry]]) -> Sequence[TierError]:
        try:
            async with self._limit():
                return await self._child.set_many(items)
        except TimeoutError:
            return self._timed_out(len(items))

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[TierError]:
        try:
            async with self._limit():
                return await self._child.delete_many(keys)
        except TimeoutError:
            return self._timed_out(len(keys))

    def _timed_out(self, items: int) -> list[TierError]:
        return [TierTimeoutError(self._name, f"no answer within {self._seconds * 1000:g} ms")] * items

    async def start(self) -> None:
        await self._child.start()

    async def stop(self) -> None:
        await self._child.stop()

    def __repr__(self) -> str:
        return f"<Deadline {self._seconds:g}s {self._child!r}>"
