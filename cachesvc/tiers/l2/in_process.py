"""Copies in this process: a stand-in where there is no memcached, and L2 in many tests.

The least recently used entry is evicted first, by bytes, as in memcached. Expiry is checked when an
entry is asked for.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Sequence

from cachesvc.model.clock import Clock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError
from cachesvc.model.footprint import footprint
from cachesvc.model.units import Size
from cachesvc.tiers.l2.contract import Lookup
from cachesvc.tiers.l2.statistics import Fullness, TierStatistics


class MemoryTier:
    """A bounded dict in the order of use, the least recently used entry first."""

    def __init__(self, clock: Clock, max_bytes: int, *, max_entry_bytes: int = Size.parse("1MiB")) -> None:
        """Makes an empty tier.

        `max_bytes` bounds values, keys and overhead together; an entry above `max_entry_bytes` is dropped.
        """
        self._clock = clock
        self._max_bytes = max_bytes
        self._max_entry_bytes = min(max_entry_bytes, max_bytes)
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._bytes = 0
        self._hits = self._misses = self._dropped = self._batches = self._batched_keys = self._evictions = 0

    is_empty = False

    def ask(self, key: Key) -> Awaitable[Lookup]:
        answer: asyncio.Future[Lookup] = asyncio.get_running_loop().create_future()
        answer.set_result(self._look_up((key,))[0])
        return answer

    async def get_many(self, keys: Sequence[Key]) -> Sequence[Lookup]:
        return self._look_up(keys)

    async def look(self, key: Key) -> Lookup:
        """Returns the copy for a person who asks: nothing changes and nothing is counted."""
        entry = self._entries.get(key.id)
        return entry if entry is not None and entry.kept_until > self._clock.now_us() else None

    def _look_up(self, keys: Sequence[Key]) -> list[Entry | None]:
        self._count_batch(len(keys))
        now_us = self._clock.now_us()
        found = [self._get(key.id, now_us) for key in keys]
        missed = found.count(None)
        self._misses += missed
        self._hits += len(found) - missed
        return found

    def _get(self, key_id: bytes, now_us: int) -> Entry | None:
        entry = self._entries.get(key_id)
        if entry is None:
            return None
        if entry.kept_until <= now_us:
            self._discard(key_id)
            return None
        self._entries[key_id] = self._entries.pop(key_id)  # now the most recently used
        return entry

    async def set_many(self, items: Sequence[tuple[Key, Entry]]) -> Sequence[TierError]:
        self._count_batch(len(items))
        now_us = self._clock.now_us()
        for key, entry in items:
            if footprint(key.id, entry) > self._max_entry_bytes or entry.kept_until <= now_us:
                self._dropped += 1
            else:
                self._keep(key.id, entry)
        return ()

    def _keep(self, key_id: bytes, entry: Entry) -> None:
        self._discard(key_id)
        self._entries[key_id] = entry
        self._bytes += footprint(key_id, entry)
        while self._bytes > self._max_bytes:
            self._discard(next(iter(self._entries)))
            self._evictions += 1

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[TierError]:
        self._count_batch(len(keys))
        for key in keys:
            self._discard(key.id)
        return ()

    def _discard(self, key_id: bytes) -> None:
        entry = self._entries.pop(key_id, None)
        if entry is not None:
            self._bytes -= footprint(key_id, entry)

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def _count_batch(self, keys: int) -> None:
        self._batches += 1
        self._batched_keys += keys

    def statistics(self) -> TierStatistics:
        return TierStatistics(
            hits=self._hits,
            misses=self._misses,
            errors=0,
            batches=self._batches,
            batched_keys=self._batched_keys,
            dropped=self._dropped,
            failed_writes=0,
        )

    async def fullness(self) -> Fullness:
        return Fullness(len(self._entries), self._bytes, self._max_bytes, self._evictions)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<MemoryTier [{len(self._entries)} entries, {self._bytes} of {self._max_bytes} bytes]>"
