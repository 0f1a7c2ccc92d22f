"""Tiers and cells that a test can break, hang or record. Each wraps a real one."""

import asyncio
import copy
from collections.abc import Sequence
from typing import Any

from cachesvc.model.clock import Clock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError, TierUnavailableError
from cachesvc.tiers.l2.contract import Lookup, Tier
from cachesvc.tiers.l3.contract import CellKeyState, Claimed, Read, Reply
from tests.doubles.memory_cell import MemoryCell, new_issuer


class ChaosTier:
    """A tier that can be down; records what it was asked."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.down = False
        self.gets: list[str] = []
        self.sets: list[str] = []
        self.deletes: list[str] = []
        self.hold_gets: asyncio.Event | None = None
        """If set, answers are taken at once but given only when the event is set.

        So an answer returns late.
        """

    is_empty = False

    async def ask(self, key: Key) -> Lookup:
        return (await self.get_many((key,)))[0]

    async def get_many(self, keys: Sequence[Key]) -> Sequence[Lookup]:
        self.gets += [key.text for key in keys]
        if self.down:
            return [TierUnavailableError("chaos", "down")] * len(keys)
        found = await self.tier.get_many(keys)
        if self.hold_gets is not None:
            await self.hold_gets.wait()
        return found

    async def set_many(self, items: Sequence[tuple[Key, Entry]]) -> Sequence[Any]:
        self.sets += [key.text for key, _ in items]
        if self.down:
            return [TierUnavailableError("chaos", "down")]
        return await self.tier.set_many(items)

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[Any]:
        self.deletes += [key.text for key in keys]
        if self.down:
            return [TierUnavailableError("chaos", "down")]
        return await self.tier.delete_many(keys)

    async def start(self) -> None:
        await self.tier.start()

    async def stop(self) -> None:
        await self.tier.stop()


class ChaosCell:
    """A cell that can be down or answer late; in all else it is the cell that it wraps."""

    BATCHES = frozenset({"read_many", "fill_many", "put_many", "fence_many", "renew_many", "release_many"})
    MOST_CALLS = 10_000
    """The most calls of one test.

    A path that asks without end fails its test by this: no timeout would end it, because nothing here
    takes time.
    """

    def __init__(self, cell: MemoryCell) -> None:
        self.cell = cell
        self.name = cell.name
        self.down = False
        self.calls: list[tuple[str, int]] = []
        self.hold: dict[str, asyncio.Event] = {}
        """Method → event that holds back the answer.

        The call itself takes effect at once; its answer is given when the event is set.
        """

    def __getattr__(self, method: str) -> Any:
        inner = getattr(self.cell, method)
        if method not in self.BATCHES:
            return inner

        async def call(items: Sequence[Any], **options: Any) -> Any:
            self.calls.append((method, len(items)))
            assert len(self.calls) < self.MOST_CALLS, f"{method} is called without end"
            if self.down:
                return [TierUnavailableError(self.name, "down")] * len(items)
            answer = await inner(items, **options)
            if (event := self.hold.get(method)) is not None:
                await event.wait()
            return answer

        return call

    async def ask(self, read: Read) -> Reply | TierError:
        return (await self.read_many((read,)))[0]  # type: ignore[no-any-return]  # as `__getattr__` makes it

    async def claim(self, *told: Any) -> Claimed:
        if self.down:
            raise TierUnavailableError(self.name, "down")
        return await self.cell.claim(*told)

    def release(self, key: Key, lease: str) -> None:
        self.calls.append(("release", 1))
        if not self.down:
            self.cell.release(key, lease)

    async def inspect(self, key: Key, tags: Sequence[str]) -> CellKeyState:
        if self.down:
            raise TierUnavailableError(self.name, "down")
        return await self.cell.inspect(key, tags)

    def replica(self, clock: Clock) -> MemoryCell:
        """The content of a replica on this clock, if replication stops now."""
        replica = copy.deepcopy(self.cell, {id(self.cell._clock): clock})
        replica.issuer = new_issuer()
        return replica

    def promote(self, replica: MemoryCell) -> None:
        """Lets the replica take over: what the cell held and issued after the copy is lost."""
        self.cell = replica
        replica.restart()

    def count(self, method: str) -> int:
        """The number of calls of this method."""
        return sum(1 for name, _ in self.calls if name == method)
