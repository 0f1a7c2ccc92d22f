"""A tier that measures its child: one observation per exchange, of every kind and outcome.

It stands below the breaker, whose refusals are no exchanges, and above the deadline, which may end
an exchange.
"""

from collections.abc import Sequence
from time import perf_counter

from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError
from cachesvc.telemetry.metrics.histogram import DURATIONS, Histogram
from cachesvc.tiers.l2.contract import Lookup, Tier


class Measured:
    """Observes how long each call of the child takes."""

    def __init__(self, child: Tier) -> None:
        self._child = child
        self.durations = {operation: Histogram.of(DURATIONS) for operation in ("gets", "sets", "deletes")}
        """Seconds of exchanges, failed ones too, by operation."""

    async def get_many(self, keys: Sequence[Key]) -> Sequence[Lookup]:
        began = perf_counter()
        try:
            return await self._child.get_many(keys)
        finally:
            self.durations["gets"].observe(perf_counter() - began)

    async def set_many(self, items: Sequence[tuple[Key, Entry]]) -> Sequence[TierError]:
        began = perf_counter()
        try:
            return await self._child.set_many(items)
        finally:
            self.durations["sets"].observe(perf_counter() - began)

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[TierError]:
        began = perf_counter()
        try:
            return await self._child.delete_many(keys)
        finally:
            self.durations["deletes"].observe(perf_counter() - began)

    async def start(self) -> None:
        await self._child.start()

    async def stop(self) -> None:
        await self._child.stop()

    def __repr__(self) -> str:
        return f"<Measured {self._child!r}>"
