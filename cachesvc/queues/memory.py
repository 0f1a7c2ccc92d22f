"""A region's queue in this process: `changes` with its group and `fences`, for tests, drills and a set-up without Redis.

`MemoryQueue` is the server that `MemoryChanges` and `MemoryFenceStream` share; `trim_fences` and `lose` do to it what happens to
a real one. It holds items as the wire has them. Nothing is durable. One event loop.
"""

import asyncio
import itertools
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.clock import SECONDS, Clock
from cachesvc.errors import TierError
from cachesvc.interfaces import (
    Audit,
    Completion,
    Done,
    FenceBatch,
    FenceStart,
    OpenChange,
    OpenCount,
    ReaderPosition,
    ReceiptRecord,
)
from cachesvc.model import Change, Fence
from cachesvc.queues import fence_items
from cachesvc.queues.cloudevents import decode_item, encode
from cachesvc.queues.roll import SILENT_SECONDS, Roll

Position = tuple[int, int]
"""Milliseconds and a number among those of the same millisecond, as Redis numbers the items of a stream."""
Fields = Mapping[bytes, bytes]

RECEIPT_US = 15 * 60 * SECONDS
_ID = re.compile(r"(\d{1,19})-(\d{1,19})")
NOWHERE = "0-0"
"""A reader's position while it has merged nothing."""


class _Taken(Struct):
    consumer: str
    at_us: int


class _Parked(Struct):
    fields: Fields
    tried_us: int


class _Item(Struct, frozen=True):
    position: Position
    fields: Fields


class _Kept(Struct, frozen=True):
    until_us: int
    receipt: ReceiptRecord


class _Report(Struct, frozen=True):
    position: str
    at_us: int
    epoch: int


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
        self.changes: dict[Position, Fields] = {}
        """Accepted, neither closed nor parked, oldest first: items as they came."""
        self.taken: dict[Position, _Taken] = {}
        self.delivered: Position = (0, 0)
        """The group has been given everything up to here."""
        self.parked: dict[Position, _Parked] = {}
        self.dead: list[tuple[str, str, Fields]] = []
        """Buried changes: id, reason, item."""
        self.audit: list[tuple[str, Audit]] = []
        """By the receipt's id."""
        self.fences: list[_Item] = []
        self.paced: dict[str, int] = {}
        """Paced fences by the µs until which they are in force."""
        self.readers: dict[tuple[str, str], _Report] = {}
        self.epoch = 0
        self.announced = ""
        self._receipts: dict[str, _Kept] = {}
        """Oldest first."""
        self._last: Position = (0, 0)
        self.new_change = _Arrivals()
        self.new_item = _Arrivals()

    def __repr__(self) -> str:
        return (
            f"<MemoryQueue [{len(self.changes)} changes open, {len(self.taken)} of them taken, {len(self.parked)} parked, "
            f"{len(self.fences)} fence items]>"
        )

    def append_event(self, event: bytes) -> Position:
        """What any producer may do: the event need not be readable."""
        return self.append_change({b"event": event})

    def append_change(self, fields: Fields) -> Position:
        position = self.next_position()
        self.changes[position] = fields
        self.new_change.announce()
        return position

    def fields_of(self, id_: str) -> Fields | None:
        position = _parse(id_)
        if position in self.parked:
            return self.parked[position].fields
        return self.changes.get(position)

    def close(self, id_: str) -> bool:
        """Take a change out, wherever it is. False: it is in neither place."""
        position = _parse(id_)
        self.taken.pop(position, None)
        was_open = self.changes.pop(position, None) is not None
        return self.parked.pop(position, None) is not None or was_open

    def park(self, id_: str) -> bool:
        fields = self.fields_of(id_)
        if fields is None:
            return False
        self.close(id_)
        self.parked[_parse(id_)] = _Parked(fields, self.clock.now_us())
        return True

    def settle(self, done: Done, position: str) -> None:
        """Close or park a change whose fence is out. One that somebody else settled meanwhile keeps that receipt."""
        was = self.receipt(done.id)
        settled = self.park(done.id) if done.missed else self.close(done.id)
        if settled or was is None:
            where = position or (was.position if was else "")
            state: Literal["parked", "done"] = "parked" if done.missed and settled else "done"
            self.keep_receipt(done.id, ReceiptRecord(state, where, done.cells, done.missed))
        if done.audit is not None and was is None:
            self.audit.append((done.id, done.audit))

    def acknowledge(self, id_: str) -> None:
        """The receipt of one that was parked says that it no longer is."""
        receipt = self.receipt(id_)
        if self.close(id_) and receipt:
            self.keep_receipt(id_, replace(receipt, state="done"))

    def bury(self, id_: str, reason: str) -> None:
        fields = self.fields_of(id_)
        if fields is None:
            return
        self.dead.append((id_, reason, fields))
        self.keep_receipt(id_, replace(self.receipt(id_) or ReceiptRecord("buried"), state="buried", reason=reason))
        self.close(id_)

    def receipt(self, id_: str) -> ReceiptRecord | None:
        kept = self._receipts.get(id_)
        return kept.receipt if kept and kept.until_us > self.clock.now_us() else None

    def keep_receipt(self, id_: str, receipt: ReceiptRecord) -> None:
        now = self.clock.now_us()
        self._receipts.pop(id_, None)
        self._receipts[id_] = _Kept(now + RECEIPT_US, receipt)
        for old in [*itertools.takewhile(lambda key: self._receipts[key].until_us <= now, self._receipts)]:
            del self._receipts[old]

    def next_position(self) -> Position:
        ms = self.clock.now_us() // 1000
        self._last = (ms, 0) if ms > self._last[0] else (self._last[0], self._last[1] + 1)
        return self._last

    def append_item(self, fields: Sequence[bytes]) -> Position:
        position = self.next_position()
        self.fences.append(_Item(position, dict(zip(fields[::2], fields[1::2], strict=True))))
        self.new_item.announce()
        return position

    def remember_paced(self, fence: Fence, until_us: int) -> None:
        now = self.clock.now_us()
        self.paced = {member: until for member, until in self.paced.items() if until > now}
        self.paced[fence_items.paced_member(fence)] = until_us

    def paced_in_force(self) -> list[Fence]:
        now = self.clock.now_us()
        return fence_items.paced_fences(member for member, until in self.paced.items() if until > now)

    def listed_readers(self) -> list[ReaderPosition]:
        """Who is silent for too long is forgotten. A position in another epoch's stream says nothing of this one."""
        now, oldest = self.clock.now_us(), self.clock.now_us() - round(SILENT_SECONDS * SECONDS)
        self.readers = {who: report for who, report in self.readers.items() if report.at_us >= oldest}
        return [
            ReaderPosition(*who, report.position if report.epoch == self.epoch else NOWHERE, now - report.at_us)
            for who, report in self.readers.items()
        ]

    def trim_fences(self, keep: int = 0) -> None:
        """Drop all but the newest `keep` items."""
        self.fences = self.fences[len(self.fences) - keep :] if keep else []

    def lose(self) -> None:
        """Restart, empty."""
        for held in (self.changes, self.taken, self.parked, self.dead, self.audit, self.fences, self.paced, self.readers):
            held.clear()
        self._receipts.clear()
        self.delivered = (0, 0)
        self.announced = ""
        self.epoch += 1


class MemoryChanges:
    def __init__(
        self,
        queue: MemoryQueue,
        *,
        decode: Callable[[str, Mapping[bytes, bytes]], OpenChange] = decode_item,
        source: str = "/cachesvc",
    ) -> None:
        self._queue = queue
        self._decode = decode
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
        latest = self._queue.clock.now_us() - round(idle_seconds * SECONDS)
        idle = [position for position, taken in sorted(self._queue.taken.items()) if taken.at_us <= latest]
        return self._given(consumer, idle[:count])

    def _given(self, consumer: str, positions: Sequence[Position]) -> list[OpenChange]:
        queue = self._queue
        for position in positions:
            queue.taken[position] = _Taken(consumer, queue.clock.now_us())
        return [self._decode(_text(position), queue.changes[position]) for position in positions]

    async def parked(self, consumer: str, *, idle_seconds: float, count: int) -> Sequence[OpenChange]:
        """That it is tried is kept, not by whom: a consumer that dies over one leaves it to any other."""
        now = self._queue.clock.now_us()
        by_try = sorted(self._queue.parked.items(), key=lambda item: item[1].tried_us)
        idle = [item for item in by_try if item[1].tried_us <= now - round(idle_seconds * SECONDS)][:count]
        for _, parked in idle:
            parked.tried_us = now
        return [self._decode(_text(position), parked.fields) for position, parked in idle]

    async def acknowledge(self, ids: Sequence[str]) -> None:
        for id_ in ids:
            self._queue.acknowledge(id_)

    async def bury(self, change: OpenChange) -> None:
        self._queue.bury(change.id, change.reason)

    async def completion(self) -> Completion:
        queue = self._queue
        now, oldest, epoch = queue.clock.now_us(), next(iter(queue.changes), None), str(queue.epoch)
        return Completion(now if oldest is None else min(oldest[0] * 1000, now), epoch, announced=queue.announced == epoch)

    async def announced(self, epoch: str) -> None:
        if epoch == str(self._queue.epoch):
            self._queue.announced = epoch

    async def open_count(self) -> OpenCount:
        return OpenCount(len(self._queue.changes), len(self._queue.parked), len(self._queue.dead))


class MemoryFenceStream:
    """One reader with one position, and a publisher."""

    def __init__(
        self,
        queue: MemoryQueue,
        region: str,
        *,
        skew_us: int = 100_000,
        retention_us: int = 3_600_000_000,
        reader: tuple[str, str] = ("", ""),
        max_batch: int = 1000,
    ) -> None:
        self.region = region
        self._queue = queue
        self._skew_us = skew_us
        self._retention_us = retention_us
        self._reader = reader
        self._roll = Roll()
        self._max_batch = max_batch
        self._epoch = -1
        self._position: Position = (0, 0)
        self._delivered = False

    def __repr__(self) -> str:
        return f"<MemoryFenceStream {self.region} at {_text(self._position)}>"

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Signs off, so that nobody waits for this instance."""
        self._queue.readers.pop(self._reader, None)

    async def publish(self, fences: Sequence[Fence], *, done: Sequence[Done] = (), report: bool = False) -> str:
        queue = self._queue
        positions = [_text(queue.append_item(item)) for item in fence_items.encode(fences, report=report)]
        position = positions[-1] if positions else ""
        for fence in fences:
            if fence.over:
                queue.remember_paced(fence, fence.at + fence.over + self._retention_us)
        for change in done:
            queue.settle(change, position)
        return position

    async def heartbeat(self, complete_to: int) -> None:
        self._queue.append_item(fence_items.heartbeat(complete_to))
        oldest_ms = (self._queue.clock.now_us() - self._retention_us) // 1000
        items = self._queue.fences
        items[:] = itertools.dropwhile(lambda item: item.position[0] < oldest_ms, items)

    async def open(self) -> FenceStart:
        position, queue = self._take_position(), self._queue
        if any(self._reader):
            queue.readers[self._reader] = _Report(NOWHERE, queue.clock.now_us(), queue.epoch)
        return FenceStart(
            floor=position[0] * 1000 + 999 + 3 * self._skew_us,
            fences=queue.paced_in_force(),
            position=_text(_before(position)),
            tail=_text(queue.fences[-1].position),
        )

    async def read(self, *, wait_seconds: float) -> FenceBatch:
        if self._delivered and not self._has_gap() and not self._after():
            await self._queue.new_item.wait(wait_seconds)
        if self._has_gap():
            before = _before(self._take_position())
            return FenceBatch(self._queue.paced_in_force(), None, gap=True, position=_text(before), report=True)
        items = self._after()
        if items:
            self._position, self._delivered = items[-1].position, True
        return self._batch(fence_items.decode(item.fields for item in items))

    def _batch(self, said: fence_items.Items) -> FenceBatch:
        gap = not said.whole
        fences = [*said.fences, *self._queue.paced_in_force()] if gap else said.fences
        position = self._position if self._delivered else _before(self._position)
        return FenceBatch(fences, said.complete_to, gap, _text(position), said.report or gap)

    async def report(self, position: str) -> None:
        """The roll is called here too: it keeps fresh for the day the queue forgets its readers."""
        if any(self._reader):
            self._queue.readers[self._reader] = _Report(position or NOWHERE, self._queue.clock.now_us(), self._epoch)
        await self.readers()

    async def readers(self) -> Sequence[ReaderPosition]:
        queue = self._queue
        return self._roll.call(queue.listed_readers(), str(queue.epoch), queue.clock.now_us() / SECONDS)

    async def receipt(self, id_: str) -> ReceiptRecord | None:
        if not _ID.fullmatch(id_):
            return None
        if (kept := self._queue.receipt(id_)) is not None:
            return kept
        if _parse(id_) in self._queue.changes:
            return ReceiptRecord("open")
        return ReceiptRecord("parked") if _parse(id_) in self._queue.parked else None

    def _take_position(self) -> Position:
        """Before the oldest retained item; in an empty stream before one appended for this, so that a later loss shows."""
        queue = self._queue
        if not queue.fences:
            queue.append_item((b"o", b"1"))
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


def _before(position: Position) -> Position:
    """The last position that is earlier: all that a reader has merged who has yet to be given the item here."""
    ms, number = position
    return (ms, number - 1) if number else (ms - 1, (1 << 64) - 1)


def _text(position: Position) -> str:
    return f"{position[0]}-{position[1]}"


def _parse(id_: str) -> Position:
    """As a server, it refuses what is no id: a caller that passes one has lost a change."""
    found = _ID.fullmatch(id_)
    if found is None:
        raise TierError("memory queue", f"{id_!r} is not the id of a change")
    return int(found[1]), int(found[2])
