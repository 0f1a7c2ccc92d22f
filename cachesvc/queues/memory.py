"""A region's queue in this process: `changes` with its group and `fences`, for tests, drills and a set-up without Redis.

`MemoryQueue` is the server that `MemoryChanges` and `MemoryFenceStream` share; `trim_fences` and `lose` do to it what happens to
a real one. Nothing is durable. One event loop.
"""

import asyncio
import itertools
from bisect import bisect_left
from collections.abc import Sequence

from msgspec import Struct

from cachesvc.clock import Clock
from cachesvc.interfaces import FenceBatch, FenceStart, OpenChange
from cachesvc.model import Change, Fence
from cachesvc.queues.cloudevents import decode, encode

Position = tuple[int, int]
"""Milliseconds and a number among those of the same millisecond, as Redis numbers the items of a stream."""


class _Taken(Struct):
    consumer: str
    at_us: int


class _Item(Struct, frozen=True):
    position: Position
    fences: Sequence[Fence] = ()
    complete_to: int | None = None


class _Arrivals:
    """Wakes those who wait for the next one."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def announce(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return at the next arrival, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._next.wait()
        except TimeoutError:
            return


class MemoryQueue:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.changes: dict[Position, bytes] = {}
        """Accepted and not acknowledged, oldest first: events as they came."""
        self.taken: dict[Position, _Taken] = {}
        self.delivered: Position = (0, 0)
        """The group has been given everything up to here."""
        self.dead: list[tuple[str, str, bytes]] = []
        """Buried changes: id, reason, event."""
        self.fences: list[_Item] = []
        self.epoch = 0
        self._last: Position = (0, 0)
        self.new_change = _Arrivals()
        self.new_item = _Arrivals()

    def __repr__(self) -> str:
        return (
            f"<MemoryQueue [{len(self.changes)} changes open, {len(self.taken)} of them taken, {len(self.fences)} fence items]>"
        )

    def append_event(self, event: bytes) -> Position:
        """What any producer may do: the event need not be readable."""
        position = self.next_position()
        self.changes[position] = event
        self.new_change.announce()
        return position

    def close(self, ids: Sequence[str]) -> None:
        for id_ in ids:
            position = _parse(id_)
            self.changes.pop(position, None)
            self.taken.pop(position, None)

    def next_position(self) -> Position:
        ms = self.clock.now_us() // 1000
        self._last = (ms, 0) if ms > self._last[0] else (self._last[0], self._last[1] + 1)
        return self._last

    def append_item(self, item: _Item) -> None:
        self.fences.append(item)
        self.new_item.announce()

    def trim_fences(self, keep: int = 0) -> None:
        """Drop all but the newest `keep` items."""
        self.fences = self.fences[len(self.fences) - keep :] if keep else []

    def lose(self) -> None:
        """Restart, empty."""
        self.changes.clear()
        self.taken.clear()
        self.fences.clear()
        self.delivered = (0, 0)
        self.epoch += 1


class MemoryChanges:
    def __init__(self, queue: MemoryQueue, *, source: str = "/cachesvc") -> None:
        self._queue = queue
        self._source = source
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        return f"<MemoryChanges {self._queue!r}>"

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def append(self, change: Change, *, held_until_us: int = 0) -> str:
        event = encode(change, id_=str(next(self._numbers)), source=self._source, held_until_us=held_until_us)
        return _text(self._queue.append_event(event))

    async def take(self, consumer: str, *, count: int, wait_seconds: float) -> Sequence[OpenChange]:
        taken = self._take(consumer, count)
        if not taken:
            await self._queue.new_change.wait(wait_seconds)
            taken = self._take(consumer, count)
        return taken

    def _take(self, consumer: str, count: int) -> list[OpenChange]:
        queue = self._queue
        new = [position for position in queue.changes if position > queue.delivered][:count]
        if new:
            queue.delivered = new[-1]
        return self._given(consumer, new)

    async def reclaim(self, consumer: str, *, idle_seconds: float, count: int) -> Sequence[OpenChange]:
        latest = self._queue.clock.now_us() - round(idle_seconds * 1_000_000)
        idle = [position for position, taken in sorted(self._queue.taken.items()) if taken.at_us <= latest]
        return self._given(consumer, idle[:count])

    def _given(self, consumer: str, positions: Sequence[Position]) -> list[OpenChange]:
        queue = self._queue
        for position in positions:
            queue.taken[position] = _Taken(consumer, queue.clock.now_us())
        return [decode(_text(position), queue.changes[position]) for position in positions]

    async def acknowledge(self, ids: Sequence[str]) -> None:
        self._queue.close(ids)

    async def bury(self, change: OpenChange) -> None:
        event = self._queue.changes.get(_parse(change.id))
        if event is not None:
            self._queue.dead.append((change.id, change.reason, event))
        self._queue.close([change.id])

    async def complete_to(self) -> int:
        now = self._queue.clock.now_us()
        oldest = next(iter(self._queue.changes), None)
        return now if oldest is None else min(oldest[0] * 1000, now)


class MemoryFenceStream:
    """One reader with one position, and a publisher."""

    def __init__(
        self, queue: MemoryQueue, region: str, *, skew_us: int = 100_000, retention_us: int = 3_600_000_000, max_batch: int = 1000
    ) -> None:
        self.region = region
        self._queue = queue
        self._skew_us = skew_us
        self._retention_us = retention_us
        self._max_batch = max_batch
        self._epoch = -1
        self._position: Position = (0, 0)
        self._delivered = False

    def __repr__(self) -> str:
        return f"<MemoryFenceStream {self.region} at {_text(self._position)}>"

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def publish(self, fences: Sequence[Fence], *, done: Sequence[str] = ()) -> None:
        if fences:
            self._queue.append_item(_Item(self._queue.next_position(), tuple(fences)))
        self._queue.close(done)

    async def heartbeat(self, complete_to: int) -> None:
        self._queue.append_item(_Item(self._queue.next_position(), complete_to=complete_to))
        oldest_ms = (self._queue.clock.now_us() - self._retention_us) // 1000
        items = self._queue.fences
        items[:] = itertools.dropwhile(lambda item: item.position[0] < oldest_ms, items)

    async def open(self) -> FenceStart:
        position = self._take_position()
        return FenceStart(floor=position[0] * 1000 + 999 + 3 * self._skew_us)

    async def read(self, *, wait_seconds: float) -> FenceBatch:
        if self._delivered and not self._has_gap() and not self._after():
            await self._queue.new_item.wait(wait_seconds)
        if self._has_gap():
            self._take_position()
            return FenceBatch((), None, gap=True)
        items = self._after()
        if items:
            self._position, self._delivered = items[-1].position, True
        heartbeats = [item.complete_to for item in items if item.complete_to is not None]
        return FenceBatch([fence for item in items for fence in item.fences], heartbeats[-1] if heartbeats else None)

    def _take_position(self) -> Position:
        """Before the oldest retained item; in an empty stream before one appended for this, so that a later loss shows."""
        queue = self._queue
        if not queue.fences:
            queue.append_item(_Item(queue.next_position()))
        self._epoch, self._position, self._delivered = queue.epoch, queue.fences[0].position, False
        return self._position

    def _has_gap(self) -> bool:
        items = self._queue.fences
        here = self._index()
        return self._epoch != self._queue.epoch or here == len(items) or items[here].position != self._position

    def _after(self) -> Sequence[_Item]:
        first = self._index() + self._delivered
        return self._queue.fences[first : first + self._max_batch]

    def _index(self) -> int:
        return bisect_left(self._queue.fences, self._position, key=lambda item: item.position)


def _text(position: Position) -> str:
    return f"{position[0]}-{position[1]}"


def _parse(id_: str) -> Position:
    ms, _, number = id_.partition("-")
    return int(ms), int(number)
