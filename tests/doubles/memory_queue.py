"""A region's queue in this process: `changes` with its group, and `fences`.

`MemoryQueue` is the server that `MemoryChanges` and `MemoryFenceStream` share; its `trim_fences`
and `lose` do to it what happens to a real server. It holds items in their wire form. Nothing is
durable, and everything runs on one event loop.
"""

import itertools
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from cachesvc.changes import contract
from cachesvc.changes.contract import (
    Attendance,
    Beat,
    Completion,
    Done,
    FenceBatch,
    FenceStart,
    FollowerPosition,
    OpenChange,
    OpenCount,
    OtherQueueError,
    Parked,
    ReceiptRecord,
    epoch_of,
    mark_of,
    position_in,
    position_of,
)
from cachesvc.changes.events.cloudevents import decode_item, encode
from cachesvc.changes.redis import fence_items
from cachesvc.changes.redis.followers import Followers
from cachesvc.model.change import Change, Target, TargetKind
from cachesvc.model.clock import SECONDS
from cachesvc.model.fence import Fence
from cachesvc.telemetry.traces.trace import SpanContext
from tests.doubles.memory_queue_server import (
    ID,
    NOWHERE,
    Item,
    MemoryQueue,
    Position,
    Report,
    Taken,
    parse,
    text_of,
)

__all__ = ["MemoryChanges", "MemoryFenceStream", "MemoryQueue"]

OUTLIVED_US = 3660 * SECONDS
"""After this time no copy is left that a parked target concerns: an hour, and a minute."""


class MemoryChanges:
    """The stream of changes and its consumer group."""

    def __init__(
        self,
        queue: MemoryQueue,
        *,
        consumer: str = "",
        decode: Callable[[str, Mapping[bytes, bytes]], OpenChange] = decode_item,
        source: str = "/cachesvc",
        retention_us: int = 3_600_000_000,
    ) -> None:
        self._queue = queue
        self._retention_us = retention_us
        self._consumer = consumer
        self._decode = decode
        self._source = source
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        return f"<MemoryChanges {self._queue!r}>"

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def append(self, change: Change, *, held_until_us: int = 0, traceparent: str = "") -> str:
        id_ = str(next(self._numbers))
        event = encode(
            change, id_=id_, source=self._source, held_until_us=held_until_us, traceparent=traceparent
        )
        is_waiting = any(position > self._queue.delivered for position in self._queue.changes)
        position = self._queue.append_event(event)
        if held_until_us and self._consumer and not is_waiting:
            self._take(self._consumer, 1)
        return text_of(position)

    async def append_event(self, event: bytes) -> str:
        return text_of(self._queue.append_event(event))

    async def take(self, consumer: str, *, count: int, wait_seconds: float) -> Sequence[OpenChange]:
        taken = self._take(consumer, count)
        if not taken:
            await self._queue.new_change.wait(wait_seconds)
            taken = self._take(consumer, count)
        return taken

    def _take(self, consumer: str, count: int) -> list[OpenChange]:
        queue = self._queue
        queue.consumers[consumer] = queue.clock.now_us()
        new = [position for position in queue.changes if position > queue.delivered][:count]
        if new:
            queue.delivered = new[-1]
        return self._given(consumer, new)

    async def reclaim(self, consumer: str, *, idle_seconds: float, count: int) -> Sequence[OpenChange]:
        queue, idle_us = self._queue, round(idle_seconds * SECONDS)
        queue.consumers[consumer] = queue.clock.now_us()
        latest = queue.clock.now_us() - idle_us
        for position in queue.orphans(idle_us):
            queue.taken[position] = Taken(consumer, latest)
        queue.taken = {
            position: taken for position, taken in queue.taken.items() if position in queue.changes
        }
        idle = [position for position, taken in sorted(queue.taken.items()) if taken.at_us <= latest]
        return self._given(consumer, idle[:count])

    def _given(self, consumer: str, positions: Sequence[Position]) -> list[OpenChange]:
        queue = self._queue
        for position in positions:
            queue.taken[position] = Taken(consumer, queue.clock.now_us())
        return [self._decode(text_of(position), queue.changes[position]) for position in positions]

    async def forget_consumers(self, *, idle_seconds: float) -> int:
        departed = self._queue.departed(round(idle_seconds * SECONDS))
        for name in departed:
            self._queue.delete_consumer(name)
        return len(departed)

    async def parked(self, *, idle_seconds: float, count: int) -> Sequence[Parked]:
        now_us, idle_us = self._queue.clock.now_us(), round(idle_seconds * SECONDS)
        return [*self._queue.parking.take(now_us, idle_us, count, OUTLIVED_US)]

    async def acknowledge(self, ids: Sequence[str]) -> None:
        for id_ in ids:
            self._queue.close(id_)

    async def bury(self, change: OpenChange) -> None:
        self._queue.bury(change.id, change.reason)

    async def completion(self, me: Attendance | None = None, beat: Beat | None = None) -> Completion:
        queue = self._queue
        now, oldest = queue.clock.now_us(), next(iter(queue.changes), None)
        epoch = queue.epoch_of_changes
        found = Completion(
            now if oldest is None else queue.accepted_at(oldest),
            epoch,
            announced=queue.announced == epoch,
            now_us=now,
            oldest="" if oldest is None else text_of(oldest),
            lost=queue.lost,
            rivals=queue.attended(me) if me else (),
            queue=str(queue.epoch),
            count=self._count(),
        )
        if beat is None:
            return found
        has_beaten = queue.has_beaten(beat.unless_beaten_us)
        if not has_beaten and _may_beat(found, beat):
            queue.beat(found.complete_to, self._retention_us)
            has_beaten = True
        return replace(found, has_beaten=has_beaten)

    def _count(self) -> OpenCount:
        queue = self._queue
        return OpenCount(
            len(queue.changes),
            len(queue.parking),
            len(queue.dead),
            queue.parking.overflowed,
            len(queue.paced),
            queue.paced_given_up,
        )

    async def reconnect(self) -> None:
        """Does nothing: there is no connection."""


class MemoryFenceStream:
    """A publisher, and one follower with one position."""

    def __init__(
        self,
        queue: MemoryQueue,
        region: str,
        *,
        skew_us: int = 100_000,
        retention_us: int = 3_600_000_000,
        follower: tuple[str, str] = ("", ""),
        incarnation: str = "",
        max_batch: int = 1000,
    ) -> None:
        self.region = region
        self._queue = queue
        self._skew_us = skew_us
        self._retention_us = retention_us
        self._follower = (*follower, incarnation)
        self._followers = Followers()
        self._max_batch = max_batch
        self._epoch = -1
        self._position: Position = (0, 0)
        self._delivered = False

    def __repr__(self) -> str:
        return f"<MemoryFenceStream {self.region} at {text_of(self._position)}>"

    @property
    def epoch(self) -> str:
        return "" if self._epoch < 0 else str(self._epoch)

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Signs the follower off, so that nothing waits for this instance."""
        self._queue.followers.pop(self._follower, None)

    async def publish(
        self,
        fences: Sequence[Fence],
        *,
        done: Sequence[Done] = (),
        report: bool = False,
        causes: Sequence[SpanContext] = (),
    ) -> str:
        queue = self._queue
        positions = [
            text_of(queue.append_item(item))
            for item in fence_items.encode(fences, report=report, causes=causes)
        ]
        position = positions[-1] if positions else ""
        for fence in fences:
            if fence.over:
                queue.remember_paced(fence, fence.at + fence.over + self._retention_us)
        for change in done:
            queue.settle(change, position)
        return position_in(str(queue.epoch), position) if position else ""

    async def settle(self, taken: Sequence[Parked], *, anew: Sequence[Parked] | None = None) -> None:
        self._queue.parking.park(anew or (), self._queue.clock.now_us())
        applied = [*self._queue.parking.settle(taken)]
        fences = [
            Fence(
                target.digest,
                one.at,
                namespace=_namespace_of(target),
                placement=one.placement,
                issuers=one.issuers,
            )
            for one in applied
            if anew is None and (target := one.target) is not None and not one.soft
        ]
        for item in fence_items.encode(fences):
            self._queue.append_item(item)

    async def reconnect(self) -> None:
        """Does nothing: there is no connection."""

    def _check(self, epoch: str) -> None:
        if epoch != self._queue.epoch_of_changes:
            raise OtherQueueError("memory queue", "not the one whose changes were looked at")

    async def announce(self, fences: Sequence[Fence], epoch: str) -> None:
        self._check(epoch)
        for item in fence_items.encode(fences):
            self._queue.append_item(item)
        self._queue.announced = epoch

    async def heartbeat(self, complete_to: int, epoch: str, *, unless_beaten_us: int = 0) -> None:
        self._check(epoch)
        if not self._queue.has_beaten(unless_beaten_us):
            self._queue.beat(complete_to, self._retention_us)

    async def open(self) -> FenceStart:
        position, queue = self._take_position(), self._queue
        if self._follower[0]:
            queue.followers[self._follower] = Report(NOWHERE, queue.clock.now_us(), queue.epoch)
        return FenceStart(
            floor=position[0] * 1000 + 999 + 3 * self._skew_us,
            fences=queue.paced_in_force(),
            position=self._in_epoch(_before(position)),
            tail=self._in_epoch(queue.fences[-1].position),
        )

    async def read(self, *, wait_seconds: float) -> FenceBatch:
        if self._delivered and not self._has_gap() and not self._after():
            await self._queue.new_item.wait(wait_seconds)
        if self._has_gap():
            before = _before(self._take_position())
            return FenceBatch(
                self._queue.paced_in_force(), None, gap=True, position=self._in_epoch(before), report=True
            )
        return await self.deliver([(text_of(item.position).encode(), item.fields) for item in self._after()])

    async def rest(self) -> None: ...

    async def deliver(self, items: Sequence[contract.Item]) -> FenceBatch:
        if items:
            self._position, self._delivered = position_of(items[-1][0].decode()), True
        said = fence_items.decode((position_of(id_.decode())[0], fields) for id_, fields in items)
        gap = not said.whole
        fences = [*said.fences, *self._queue.paced_in_force()] if gap else said.fences
        position = self._position if self._delivered else _before(self._position)
        return FenceBatch(
            fences,
            said.complete_to,
            gap,
            self._in_epoch(position),
            said.report or gap,
            said.published,
            said.causes,
            said.unreadable,
            items,
        )

    async def report(self, position: str) -> None:
        """Reports the follower's position, and lists the followers.

        The followers are listed here, too, so that the list is recent when the queue forgets them.
        """
        if self._follower[0]:
            self._queue.followers[self._follower] = Report(
                position or NOWHERE, self._queue.clock.now_us(), self._epoch
            )
        await self.followers()

    async def followers(self, of: str = "") -> Sequence[FollowerPosition]:
        queue = self._queue
        if of and epoch_of(of) != mark_of(str(queue.epoch)):
            raise OtherQueueError("memory queue", "not the one that the fence was published at")
        return self._followers.known(
            queue.listed_followers(), str(queue.epoch), queue.clock.now_us() / SECONDS
        )

    async def receipt(self, id_: str) -> ReceiptRecord | None:
        if not ID.fullmatch(id_):
            return None
        if (kept := self._queue.receipt(id_)) is not None:
            position = position_in(str(self._queue.epoch), kept.position) if kept.position else ""
            return replace(kept, position=position)
        if parse(id_) in self._queue.changes:
            return ReceiptRecord("open")
        return None

    def _in_epoch(self, position: Position) -> str:
        return position_in(self.epoch, text_of(position))

    def _take_position(self) -> Position:
        """Sets the position before the oldest retained item.

        If the stream is empty, an item is appended for this, so that a later loss shows.
        """
        queue = self._queue
        if not queue.fences:
            queue.append_item((b"o", b"1"))
        self._epoch, self._position, self._delivered = queue.epoch, queue.fences[0].position, False
        return self._position

    def _has_gap(self) -> bool:
        items = self._queue.fences
        here = self._index()
        return (
            self._epoch != self._queue.epoch or here == len(items) or items[here].position != self._position
        )

    def _after(self) -> Sequence[Item]:
        first = self._index() + self._delivered
        return self._queue.fences[first : first + self._max_batch]

    def _index(self) -> int:
        return bisect_left(self._queue.fences, self._position, key=lambda item: item.position)


def _may_beat(found: Completion, beat: Beat) -> bool:
    """True if there is nothing that only the consumer can decide."""
    return (
        not any(one.kind == "deployment" and one.was_first for one in found.rivals)
        and beat.epoch == found.epoch
        and found.announced
        and beat.queue == found.queue
        and found.now_us <= beat.latest_us
        and not (found.oldest and found.oldest == beat.oldest)
    )


def _namespace_of(target: Target) -> str:
    return target.namespace if target.kind is TargetKind.NAMESPACE else ""


def _before(position: Position) -> Position:
    """The last position before this one.

    It is the position of a follower that has merged everything before the item at `position`.
    """
    ms, number = position
    return (ms, number - 1) if number else (ms - 1, (1 << 64) - 1)
