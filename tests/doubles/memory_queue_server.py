"""The server of a queue in this process, shared by `MemoryChanges` and
`MemoryFenceStream`.

It does what the Lua scripts do on Redis.
"""

import asyncio
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.changes.contract import Attendance, Audit, Done, FollowerPosition, ReceiptRecord, Rival
from cachesvc.changes.redis import fence_items
from cachesvc.changes.redis.followers import SILENT_SECONDS
from cachesvc.model.clock import SECONDS, Clock
from cachesvc.model.errors import TierError
from cachesvc.model.fence import EVERYTHING, Fence
from tests.doubles.memory_parking import MemoryParking

Position = tuple[int, int]
"""Milliseconds, and a number among the items of the same millisecond.

Redis numbers the items of a stream in this way.
"""
Fields = Mapping[bytes, bytes]

_FIRST_EPOCHS = itertools.count(step=1_000_000)
RECEIPT_US = 15 * 60 * SECONDS
ID = re.compile(r"(\d{1,19})-(\d{1,19})")
NOWHERE = "0-0"
"""A follower's position while it has merged nothing."""


class Taken(Struct):
    consumer: str
    at_us: int


class Item(Struct, frozen=True):
    position: Position
    fields: Fields


class _Kept(Struct, frozen=True):
    until_us: int
    receipt: ReceiptRecord
    number: int
    """The number of the last parking when the receipt was written."""


class Attending(Struct, frozen=True):
    me: Attendance
    at_us: int
    came_us: int


class Report(Struct, frozen=True):
    position: str
    at_us: int
    epoch: int


class _Arrivals:
    """Wakes tasks that wait for the next arrival."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def announce(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Returns at the next arrival, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._next.wait()
        except TimeoutError:
            return


class MemoryQueue:
    """The state of one region's queue."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.changes: dict[Position, Fields] = {}
        """Accepted changes that are not closed: the items as they came, oldest first."""
        self.taken: dict[Position, Taken] = {}
        self.delivered: Position = (0, 0)
        """The consumer group has been given everything up to here."""
        self.consumers: dict[str, int] = {}
        """The consumers of the group, each with the µs of its last call."""
        self.parking = MemoryParking()
        self.dead: list[tuple[str, str, Fields]] = []
        """Buried changes: id, reason, item."""
        self.audit: list[tuple[str, Audit]] = []
        """Audit entries by the receipt's id."""
        self.fences: list[Item] = []
        self.paced: dict[str, int] = {}
        """Paced fences by the µs until which they are in force."""
        self.most_paced, self.paced_given_up = 100_000, 0
        self.followers: dict[tuple[str, str, str], Report] = {}
        """By region, instance and incarnation."""
        self.epoch = next(_FIRST_EPOCHS)
        self.beaten_us = 0
        """When the last heartbeat was published."""
        self.announced = ""
        self.attending: dict[str, Attending] = {}
        """By incarnation."""
        self.added = self.closed = 0
        """Changes that were appended, and those that were taken out by an instance."""
        self._ahead: tuple[Position, int] | None = None
        """The oldest open change if its id is ahead of the clock; the µs at which that was seen."""
        self._receipts: dict[str, _Kept] = {}
        """Oldest first."""
        self._last: Position = (0, 0)
        self.new_change = _Arrivals()
        self.new_item = _Arrivals()

    def __repr__(self) -> str:
        return (
            f"<MemoryQueue [{len(self.changes)} changes open, {len(self.taken)} of them taken,"
            f" {len(self.parking)} parked, {len(self.fences)} fence items]>"
        )

    def has_beaten(self, within_us: int) -> bool:
        return 0 <= self.clock.now_us() - self.beaten_us < within_us

    def beat(self, complete_to: int, retention_us: int) -> None:
        """Publishes a heartbeat, and drops items that are older than the retention."""
        self.beaten_us = self.clock.now_us()
        self.append_item(fence_items.heartbeat(complete_to))
        oldest_ms = (self.clock.now_us() - retention_us) // 1000
        self.fences[:] = itertools.dropwhile(lambda item: item.position[0] < oldest_ms, self.fences)

    def append_event(self, event: bytes) -> Position:
        """Appends an event, as any producer may: the event need not be readable."""
        return self.append_change({b"event": event})

    @property
    def epoch_of_changes(self) -> str:
        return f"{self.epoch}:{self.lost}"

    @property
    def lost(self) -> int:
        """Changes that are not there and were not closed."""
        return self.added - self.closed - len(self.changes)

    def attended(self, me: Attendance) -> list[Rival]:
        """Notes the consumer; its rivals among the others that are alive."""
        now = self.clock.now_us()
        came_us = min(
            self.attending[me.incarnation].came_us if me.incarnation in self.attending else now, now
        )
        found: list[Rival] = []
        for incarnation, other in list(self.attending.items()):
            if incarnation == me.incarnation:
                continue
            if not now - me.live_us <= other.at_us <= now:
                del self.attending[incarnation]
                continue
            was_first = (other.came_us, incarnation) < (came_us, me.incarnation)
            if other.me.name == me.name and other.at_us > came_us:
                found.append(Rival("instance", incarnation, other.me.name, was_first))
            if _are_foreign(me, other.me):
                found.append(Rival("deployment", incarnation, other.me.name, was_first))
        self.attending[me.incarnation] = Attending(me, now, came_us)
        return found

    def trim_changes(self, keep: int) -> None:
        """Drops all but the newest changes, as a producer's XADD with MAXLEN does."""
        for position in list(self.changes)[: len(self.changes) - keep]:
            del self.changes[position]

    def delete_consumer(self, name: str) -> None:
        """Forgets a consumer with what it had taken (XGROUP DELCONSUMER)."""
        self.consumers.pop(name, None)
        self.taken = {position: taken for position, taken in self.taken.items() if taken.consumer != name}

    def departed(self, idle_us: int) -> list[str]:
        """The consumers that made no call for that long and have taken nothing."""
        busy = {taken.consumer for position, taken in self.taken.items() if position in self.changes}
        latest = self.clock.now_us() - idle_us
        return [
            name for name, called_us in self.consumers.items() if called_us <= latest and name not in busy
        ]

    def orphans(self, idle_us: int) -> list[Position]:
        """Changes of that age that were delivered and are nobody's."""
        latest_ms = (self.clock.now_us() - idle_us) // 1000
        return [
            position
            for position in self.changes
            if position <= self.delivered and position not in self.taken and position[0] <= latest_ms
        ]

    def append_change(self, fields: Fields) -> Position:
        position = self.next_position()
        self.added += 1
        self.changes[position] = fields
        self.new_change.announce()
        return position

    def fields_of(self, id_: str) -> Fields | None:
        return self.changes.get(parse(id_))

    def close(self, id_: str) -> bool:
        """Removes a change; False if it is not there."""
        position = parse(id_)
        self.taken.pop(position, None)
        was_open = self.changes.pop(position, None) is not None
        self.closed += was_open
        return was_open

    def settle(self, done: Done, position: str) -> None:
        """Closes a change whose fence is published, and parks what cells have missed.

        A change that another instance settled meanwhile keeps that instance's receipt.
        """
        was = self.receipt(done.id)
        settled = self.fields_of(done.id) is not None if done.stays_open else self.close(done.id)
        settled = settled or (done.is_from_journal and was is None)
        if settled or was is None:
            if settled:
                self.parking.park(done.parked, self.clock.now_us())
            where = position or (was.position if was else "")
            state: Literal["parked", "done"] = "parked" if done.parked and settled else "done"
            self.keep_receipt(done.id, ReceiptRecord(state, where, done.cells, done.missed))
        if done.audit is not None and was is None:
            self.audit.append((done.id, done.audit))

    def bury(self, id_: str, reason: str) -> None:
        fields = self.fields_of(id_)
        if fields is None:
            return
        self.dead.append((id_, reason, fields))
        self.keep_receipt(
            id_, replace(self.receipt(id_) or ReceiptRecord("buried"), state="buried", reason=reason)
        )
        self.close(id_)

    def receipt(self, id_: str) -> ReceiptRecord | None:
        kept = self._receipts.get(id_)
        if kept is None or kept.until_us <= self.clock.now_us():
            return None
        if (receipt := kept.receipt).state != "parked":
            return receipt
        left = tuple(cell for cell in receipt.missed if self.parking.is_left(cell, kept.number))
        cells = tuple(sorted({*receipt.cells, *receipt.missed} - set(left)))
        return replace(receipt, state="parked" if left else "done", cells=cells, missed=left)

    def keep_receipt(self, id_: str, receipt: ReceiptRecord) -> None:
        now = self.clock.now_us()
        self._receipts.pop(id_, None)
        self._receipts[id_] = _Kept(now + RECEIPT_US, receipt, self.parking.number)
        for old in [*itertools.takewhile(lambda key: self._receipts[key].until_us <= now, self._receipts)]:
            del self._receipts[old]

    def next_position(self) -> Position:
        ms = self.clock.now_us() // 1000
        self._last = (ms, 0) if ms > self._last[0] else (self._last[0], self._last[1] + 1)
        return self._last

    def accepted_at(self, position: Position) -> int:
        """A time at which the change was accepted already, µs."""
        at, now = position[0] * 1000, self.clock.now_us()
        if at <= now:
            return at
        if self._ahead is None or self._ahead[0] != position:
            self._ahead = (position, now)
        return min(self._ahead[1], now)

    def append_item(self, fields: Sequence[bytes]) -> Position:
        position = self.next_position()
        self.fences.append(Item(position, dict(zip(fields[::2], fields[1::2], strict=True))))
        self.new_item.announce()
        return position

    def remember_paced(self, fence: Fence, until_us: int) -> None:
        now = self.clock.now_us()
        self.paced = {member: until for member, until in self.paced.items() if until > now}
        self.paced[fence_items.paced_member(fence)] = until_us
        if (surplus := len(self.paced) - self.most_paced) > 0:
            self.paced_given_up += surplus
            by_end = sorted(self.paced.items(), key=lambda one: one[1])
            given_up = fence_items.paced_fences(member for member, _ in by_end[: surplus + 1])
            everything = Fence(0, max(f.at for f in given_up), soft=True, namespace=EVERYTHING, over=1)
            member, until = fence_items.paced_member(everything), by_end[surplus][1]
            self.paced = dict(by_end[surplus + 1 :])
            self.paced[member] = max(until, self.paced.get(member, 0))

    def paced_in_force(self) -> list[Fence]:
        now = self.clock.now_us()
        return fence_items.paced_fences(member for member, until in self.paced.items() if until > now)

    def listed_followers(self) -> list[FollowerPosition]:
        """The followers of this epoch's stream.

        A follower that was silent for too long is forgotten. A position in another epoch's stream says
        nothing about this one.
        """
        now, oldest = self.clock.now_us(), self.clock.now_us() - round(SILENT_SECONDS * SECONDS)
        # A report that is ahead of the clock came before the clock was set back: it counts from now on.
        reports = {who: replace(one, at_us=min(one.at_us, now)) for who, one in self.followers.items()}
        self.followers = {who: report for who, report in reports.items() if report.at_us >= oldest}
        return [
            FollowerPosition(
                region,
                instance,
                report.position if report.epoch == self.epoch else NOWHERE,
                now - report.at_us,
                incarnation,
            )
            for (region, instance, incarnation), report in self.followers.items()
        ]

    def trim_fences(self, keep: int = 0) -> None:
        """Drops all but the newest `keep` items."""
        self.fences = self.fences[len(self.fences) - keep :] if keep else []

    def be_promoted(self) -> None:
        """Is a master again, after it was a replica: its data may be another server's."""
        self.epoch += 1

    def lose(self) -> None:
        """Restarts with nothing."""
        for held in (
            self.changes,
            self.taken,
            self.parking,
            self.dead,
            self.audit,
            self.fences,
            self.paced,
            self.followers,
            self.attending,
        ):
            held.clear()
        self._receipts.clear()
        self.delivered = (0, 0)
        self.announced = ""
        self.added = self.closed = 0
        self.beaten_us = 0
        self.epoch += 1


def _are_foreign(one: Attendance, other: Attendance) -> bool:
    mine, theirs = (dict(cell.split("=") for cell in of.cells) for of in (one, other))
    both = [(mine[name], theirs[name]) for name in mine.keys() & theirs.keys()]
    reached = [pair for pair in both if all(pair)]
    if not both:
        return bool(mine and theirs)
    return bool(reached) and all(one != other for one, other in reached)


def text_of(position: Position) -> str:
    return f"{position[0]}-{position[1]}"


def parse(id_: str) -> Position:
    """The position that an id names.

    Raises `TierError` for what is no id, as a server does: a caller that passes one has lost a
    change.
    """
    found = ID.fullmatch(id_)
    if found is None:
        raise TierError("memory queue", f"{id_!r} is not the id of a change")
    return int(found[1]), int(found[2])
