"""A region's `fences` on Redis: a stream in which every follower keeps its own position.

    read:  wait for what the queue pushes (`pushes.py`): an item that follows the one at the position,
           under its epoch, is delivered as it is
           anything else is only a hint → one script: the epoch, and the items from the position on,
           the item at the position included
           another epoch, or that item is gone → gap: first take the new position, then say so
           a queue that does not push its items → the hint is XREAD's answer

A publisher that sees another epoch publishes again what it published in the last minute: the server
that took over may lack it. The server's side is in `lua/`, with `prelude.lua` first.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cachesvc.changes.contract import (
    Done,
    FenceBatch,
    FenceStart,
    FollowerPosition,
    Item,
    OtherQueueError,
    Parked,
    ReceiptRecord,
    epoch_of,
    mark_of,
    position_in,
)
from cachesvc.changes.redis import fence_items, parked_items
from cachesvc.changes.redis import receipt_lines as receipts
from cachesvc.changes.redis.followers import NOWHERE, Followers
from cachesvc.changes.redis.pushes import Push, Pushes
from cachesvc.changes.redis.server import (
    FENCES,
    TIMEOUT,
    RedisServer,
    RefusedError,
    answered,
    candidate,
    mapping,
)
from cachesvc.model.errors import TierError, UnreadableAnswerError
from cachesvc.model.fence import Fence
from cachesvc.model.units import Duration
from cachesvc.telemetry.traces.trace import SpanContext
from cachesvc.tiers.answer_shapes import data, item_id, number, parts, text
from cachesvc.tiers.batching import Batcher
from cachesvc.tiers.breaker import Breaker
from cachesvc.tiers.redis_connections import DEFAULT_ACCESS, Access
from cachesvc.tiers.redis_report import RedisReport

log = logging.getLogger(__name__)

REMEMBER_SECONDS = 60.0
"""Items that were published within this time are published again under a new epoch."""
REMEMBER_ITEMS = 10_000
"""Bounds the items that are remembered, should more than a hundred per second be
published: beyond it the oldest items are not published again."""
REMEMBER_BYTES = 16 << 20
"""Bounds the bytes of these items, with the same consequence: a million fences."""

REMEMBER_PACED = 16_384
"""Bounds the paced fences that are remembered for another epoch: 4 MB.

Beyond it, the half of them that ends first becomes one that concerns everything."""

LIST_SECONDS = 10.0
"""A follower that reports lists the others so often at least."""

MOST_FENCES = 16_384
"""Fences and completed changes of one exchange, unless a single caller has more.

They are 256 KiB of pairs."""

LARGEST_ITEM, MOST_FIELDS = 1 << 20, 32
"""Bytes and fields of the largest item that is read; the largest of ours has half of it.

`read.lua` answers a larger one without its fields: no reply would be small enough else, and the
follower could never pass it.
"""

_ID = re.compile(r"\d{1,19}-\d{1,19}")
"""The id of an item of a stream; a caller may ask for the receipt of any text."""


class _Publication(Struct, frozen=True, gc=False):
    """The part of one caller in an exchange that publishes."""

    fences: Sequence[Fence]
    done: Sequence[Done]
    report: bool
    causes: Sequence[SpanContext]

    @property
    def weight(self) -> int:
        return len(self.fences) + len(self.done) + sum(len(done.parked) for done in self.done)


class _Listing(Struct, frozen=True):
    """The followers, and the epoch of the server that has listed them."""

    epoch: str
    followers: Sequence[FollowerPosition]


class RedisFenceStream:
    """The `fences` stream of one region on one Redis server."""

    def __init__(
        self,
        url: str,
        region: str,
        *,
        skew: Duration,
        retention: Duration,
        follower: tuple[str, str] = ("", ""),
        incarnation: str = "",
        timeout: Duration = TIMEOUT,
        max_batch: int = 1024,
        access: Access = DEFAULT_ACCESS,
        breaker: Breaker | None = None,
    ) -> None:
        """Makes a stream that is not connected yet.

        `follower`: region and name of the instance that follows the stream, which others wait for;
        without it nobody waits. `incarnation` tells it from another process of that name.
        `max_batch`: items of one read at most.
        """
        self.region = region
        self._server = RedisServer(url, f"fences of {region}", timeout, access, breaker)
        script = self._server.script
        self._vouch, self._open, self._read = script("vouch"), script("open"), script("read")
        self._list_followers, self._settle = script("followers"), script("settle")
        unspanned, batcher = self._server.unspanned, self._server.batcher
        self._publish_all, self._list_for_all = unspanned("publish"), unspanned("followers")
        self._look_up_receipts = unspanned("receipt")
        self._publications: Batcher[_Publication, str] = batcher(
            self._publish_together,
            "publish",
            weigh=lambda publications: sum(publication.weight for publication in publications),
            most_weight=MOST_FENCES,
        )
        self._listings: Batcher[None, _Listing] = batcher(self._list_together, "followers")
        self._receipts: Batcher[str, ReceiptRecord | None] = batcher(self._receipts_together, "receipt")
        self._skew_us = int(skew)
        self._retention_us = int(retention)
        self._follower = f"{'/'.join(follower)}#{incarnation}" if any(follower) else ""
        self._followers = Followers()
        self._listed_count, self._list_at = 0, 0.0
        self._max_batch = max_batch
        self._epoch = b""
        self._channel, self._mark = b"", mark_of("")
        """The channel on which the epoch's items are pushed, and the epoch's mark in positions."""
        self._position = b""
        self._delivered = False
        """True if the item at the position has been delivered; false only after `open` and after
        a gap."""
        self._pushes = Pushes(self._server)
        self._looks_first = False
        """True if the last wait for news has failed, or if news has come that was not delivered.

        The next read looks first, and does not wait: only then is it known which server this is. While
        it waited, no heartbeat would end the wait, as consumers send none until all of the region use
        one queue."""
        self._published_epoch = b""
        self._published: deque[tuple[float, list[bytes]]] = deque()
        self._published_bytes = 0
        self._paced: dict[str, int] = {}
        """Paced fences published from here, with the µs until which they are in force: under a new
        epoch all of them are published again, however old they are."""

    def __repr__(self) -> str:
        return f"<RedisFenceStream {self.region} at {self._position.decode() or 'no position'}>"

    @property
    def epoch(self) -> str:
        return self._epoch.decode()

    async def start(self) -> None:
        """Does nothing: the server is connected when it is first used."""

    async def stop(self) -> None:
        """Signs off, so that no invalidation waits for this instance, and disconnects.

        If the queue is out of reach, other instances wait for this one until it has been silent long
        enough.
        """
        try:
            if self._follower and self._position:
                await self._sign_off()
        except TierError:
            log.info(
                "%r could not sign off: "
                "others wait for this instance until it has been silent for long enough",
                self,
            )
        finally:
            await self._pushes.stop()
            await self._server.stop()

    async def _sign_off(self) -> None:
        leaving: Any = self._server.redis.hdel("fences:readers", self._follower)
        await self._server.guarded(leaving)

    async def server_report(self, now_us: Callable[[], int]) -> RedisReport:
        """Returns the report of the queue's server on itself. Raises `TierError`.

        `now_us` is the own clock.
        """
        return await self._server.report(now_us)

    async def now_us(self) -> int:
        """Returns the queue's clock. Raises `TierError`."""
        time: Any = self._server.redis.time()
        now_us: int = await self._server.guarded(time, taken=_time_in)
        return now_us

    async def publish(
        self,
        fences: Sequence[Fence],
        *,
        done: Sequence[Done] = (),
        report: bool = False,
        causes: Sequence[SpanContext] = (),
    ) -> str:
        if not (fences or done):
            return ""
        position = answered(await self._publications.submit(_Publication(fences, done, report, causes)))
        return position if fences else ""

    async def _publish_together(self, publications: list[_Publication]) -> Sequence[str]:
        """Publishes the fences of many callers as if they were one caller's.

        They share items, so that a thousand puts at once are not a thousand items for every instance to
        merge. The position is the last item's for all of them: not before any caller's own fences.
        """
        fences = [fence for one in publications for fence in one.fences]
        items = fence_items.encode(
            fences,
            report=any(one.report for one in publications),
            causes=list(dict.fromkeys(cause for one in publications for cause in one.causes)),
        )
        paced = {
            fence_items.paced_member(fence): fence.at + fence.over + self._retention_us
            for fence in fences
            if fence.over
        }
        epoch, position = await self._append(
            items,
            paced,
            [done for one in publications for done in one.done],
            {done.id for one in publications if not one.fences for done in one.done},
        )
        await self._repeat_after(epoch)
        now = asyncio.get_running_loop().time()
        self._remember_items(now, items)
        if paced:
            self._remember_paced(paced, max(fence.at for fence in fences))
        return [position_in(epoch.decode(), position.decode()) if items else ""] * len(publications)

    def _remember_items(self, now: float, items: Iterable[list[bytes]]) -> None:
        for item in items:
            self._published.append((now, item))
            self._published_bytes += sum(map(len, item))
        while len(self._published) > REMEMBER_ITEMS or self._published_bytes > REMEMBER_BYTES:
            self._forget_oldest_item()

    def _forget_oldest_item(self) -> None:
        _, item = self._published.popleft()
        self._published_bytes -= sum(map(len, item))

    def _remember_paced(self, paced: Mapping[str, int], now_us: int) -> None:
        self._paced.update(paced)
        if len(self._paced) > REMEMBER_PACED:
            in_force = {member: until for member, until in self._paced.items() if until > now_us}
            self._paced = fence_items.fewer(in_force, REMEMBER_PACED)

    async def settle(self, taken: Sequence[Parked], *, anew: Sequence[Parked] | None = None) -> None:
        texts = [
            (one.cell, parked_items.name_of(one), parked_items.text_of(one), parked_items.servers_of(one))
            for one in taken
        ]
        lists = msgspec.json.encode([[_to_park(one) for one in anew or ()], texts])
        applied = [parked_items.applied_pair(one) if anew is None else b"" for one in taken]
        placement = next((one.placement for one in taken if one.target), 0)
        await self._settle([candidate(), self._retention_us // 1000, placement, lists, *applied])

    async def heartbeat(self, complete_to: int, epoch: str, *, unless_beaten_us: int = 0) -> None:
        await self._vouch_for([fence_items.heartbeat(complete_to)], epoch, unless_beaten_us)

    async def announce(self, fences: Sequence[Fence], epoch: str) -> None:
        await self._vouch_for(fence_items.encode(fences), epoch, None)

    async def _vouch_for(
        self, items: Sequence[list[bytes]], changes_epoch: str, unless_beaten_us: int | None
    ) -> None:
        """Publishes a heartbeat; without `unless_beaten_us`, the fences that announce the epoch."""
        recent = "" if unless_beaten_us is None else unless_beaten_us
        flat = [argument for item in items for argument in (len(item), *item)]
        try:
            epoch = await self._vouch(
                [candidate(), self._retention_us // 1000, changes_epoch, recent, len(items), *flat], data
            )
        except RefusedError as error:
            if not error.why.startswith("OTHEREPOCH"):
                raise
            raise OtherQueueError(error.where, error.why) from error
        await self._repeat_after(epoch)

    @property
    def master(self) -> str:
        """`host:port` of the master that sentinels named last; empty if none did."""
        return self._server.master

    async def reconnect(self) -> None:
        await self._server.reconnect()

    async def _append(
        self,
        items: Sequence[list[bytes]],
        paced: Mapping[str, int] | None = None,
        done: Sequence[Done] = (),
        silent: Set[str] = frozenset(),
    ) -> tuple[bytes, bytes]:
        """Appends items, and returns the epoch and the position of the last item.

        `silent`: the ids of the changes in `done` to which none of the items belongs.
        """
        dones = [
            (
                item.id,
                ",".join(item.cells),
                receipts.audit_fields(item),
                [_to_park(one) for one in item.parked],
                ",".join(item.missed),
                item.id not in silent,
                item.stays_open,
                item.is_from_journal,
            )
            for item in done
        ]
        beside = msgspec.json.encode([list((paced or {}).items()), dones])
        flat = [argument for item in items for argument in (len(item), *item)]
        epoch, position = await self._publish_all(
            [candidate(), self._retention_us // 1000, beside, len(items), *flat], _published_in
        )
        return epoch, position

    async def _repeat_after(self, epoch: bytes) -> None:
        """Publishes again, under a new epoch, what was published from here.

        A fence that is published twice is harmless, because fences merge by their newest time; without the
        repetition, the fences in the lost tail would reach other instances only by chance.
        """
        known, oldest = self._published_epoch, asyncio.get_running_loop().time() - REMEMBER_SECONDS
        while self._published and self._published[0][0] < oldest:
            self._forget_oldest_item()
        if known and known != epoch and (self._published or self._paced):
            epoch, _ = await self._append([item for _, item in self._published], self._paced)
        self._published_epoch = epoch

    async def open(self) -> FenceStart:
        tail, paced = await self._take_position(self._follower)
        ms = int(self._position.partition(b"-")[0])
        return FenceStart(
            ms * 1000 + 999 + 3 * self._skew_us, paced, self._before_the_position(), self._in_epoch(tail)
        )

    async def read(self, *, wait_seconds: float) -> FenceBatch:
        """Returns the next batch.

        A cancelled call has either moved the position and answered, or done nothing.
        """
        if not self._position:
            return await self._gap()
        if self._looks_first or not (self._delivered and wait_seconds):
            return await self._look()
        self._looks_first = True
        before = self._position
        if self._pushes.is_trusted and await self._pushes.follow(self._channel):
            batch = await self._look()
            if batch.gap or self._position != before:
                return batch
            self._looks_first = True
        if not self._pushes.is_trusted:
            await self._pushes.stop()
            await self._wait(wait_seconds)
            return await self._look()
        pushed = await self._pushes.next(wait_seconds)
        if items := self._following(pushed):
            return await self.deliver(items)
        batch = await self._look()
        if not pushed and self._position != before:
            self._pushes.note_missed()
        return batch

    def _following(self, pushed: Sequence[Push | None]) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
        """Returns the items that were pushed one after the other, from the position on.

        Ends before one that does not follow: then the next read looks into the stream.
        """
        items: list[tuple[bytes, Mapping[bytes, bytes]]] = []
        at = self._position
        for push in pushed:
            if push is None or push.epoch != self._epoch or len(items) == self._max_batch:
                return items
            if push.before == at:
                if push.fields is None:
                    return items
                items.append((push.id, push.fields))
                at = push.id
            elif _place(push.id) > _place(at):
                self._pushes.note_missed()
                return items
        self._looks_first = False
        return items

    async def _look(self) -> FenceBatch:
        """Reads the items after the position from the stream."""
        most = self._max_batch + self._delivered
        epoch, items = await self._read([self._position, most, LARGEST_ITEM, MOST_FIELDS], _items_in)
        self._looks_first = False
        if epoch != self._epoch or not items or items[0][0] != self._position:
            return await self._gap()
        return await self.deliver(items[self._delivered :])

    async def _wait(self, seconds: float) -> None:
        block = max(round(seconds * 1000), 1)  # 0 would wait for ever
        waiting: Any = self._server.redis.xread({FENCES: self._position}, count=1, block=block)
        await self._server.guarded(waiting, wait_seconds=seconds)

    async def _gap(self) -> FenceBatch:
        """Takes a new position, and returns it as a gap.

        The last report stands until the caller has raised its floor: the raised floor is what makes a
        report of the new position true.
        """
        _, paced = await self._take_position("")
        return FenceBatch(paced, None, gap=True, position=self._before_the_position(), report=True)

    async def _take_position(self, register: str) -> tuple[bytes, Sequence[Fence]]:
        """Moves to the oldest item; returns the newest one's id, and the paced fences in force."""
        arguments = [candidate(), self._retention_us // 1000, register]
        # An answer that cannot be read leaves the old position, at which the gap is met again.
        epoch, position, tail, paced = await self._open(arguments, _opened_in)
        self._epoch, self._position, self._delivered = epoch, position, False
        self._channel, self._mark = b"fences:" + epoch.partition(b":")[0], mark_of(epoch.decode())
        return tail, paced

    async def rest(self) -> None:
        await self._pushes.stop()

    async def deliver(self, items: Sequence[Item]) -> FenceBatch:
        said = fence_items.decode((int(id_.partition(b"-")[0]), fields) for id_, fields in items)
        paced = await self._paced_in_force() if said.unreadable else ()
        if items:
            self._position, self._delivered = items[-1][0], True
        position = self._in_epoch(self._position) if self._delivered else self._before_the_position()
        fences, gap = [*said.fences, *paced], said.unreadable > 0
        return FenceBatch(
            fences,
            said.complete_to,
            gap,
            position,
            said.report or gap,
            said.published,
            said.causes,
            said.unreadable,
            items,
        )

    def _in_epoch(self, id_: bytes) -> str:
        return f"{id_.decode()}@{self._mark}"

    def _before_the_position(self) -> str:
        """Returns the last position before the own one, whose item is yet to be delivered."""
        ms, number = (int(part) for part in self._position.split(b"-"))
        return position_in(self.epoch, f"{ms}-{number - 1}" if number else f"{ms - 1}-{(1 << 64) - 1}")

    async def _paced_in_force(self) -> Sequence[Fence]:
        reading: Any = self._server.redis.zrangebyscore("fences:paced", await self.now_us(), "+inf")
        found: Sequence[Fence] = await self._server.guarded(reading, taken=_paced_in)
        return found

    async def report(self, position: str) -> None:
        """Says that this instance is alive and has merged everything up to `position`.

        The followers are listed if there are more or fewer than before, and now and then: they are
        remembered for the time after the server has lost its list.
        """
        known = self._listed_count if asyncio.get_running_loop().time() < self._list_at else ""
        report = [self._follower, position.partition("@")[0] or NOWHERE, self._epoch or "-", known]
        epoch, found = await self._list_followers(report, _followers_in)
        if found is not None:
            self._listed(epoch, found)

    async def followers(self, of: str = "") -> Sequence[FollowerPosition]:
        listing = answered(await self._listings.submit(None))
        if of and epoch_of(of) != mark_of(listing.epoch):
            raise OtherQueueError(self._server.where, "not the queue that the fence was published at")
        return listing.followers

    async def _list_together(self, callers: list[None]) -> Sequence[_Listing]:
        """Asks once for all callers that wait for the followers."""
        epoch, found = await self._list_for_all(["", "", "", ""], _followers_in)
        return [self._listed(epoch, found or ())] * len(callers)

    def _listed(self, epoch: str, listed: Sequence[FollowerPosition]) -> _Listing:
        now = asyncio.get_running_loop().time()
        self._listed_count, self._list_at = len(listed), now + LIST_SECONDS
        return _Listing(epoch, self._followers.known(listed, epoch, now))

    async def receipt(self, id_: str) -> ReceiptRecord | None:
        return answered(await self._receipts.submit(id_)) if _ID.fullmatch(id_) else None

    async def _receipts_together(self, ids: list[str]) -> Sequence[ReceiptRecord | TierError | None]:
        epoch, kept = await self._look_up_receipts([*ids], partial(_receipts_in, count=len(ids)))
        return [None if one is None else self._receipt_in(epoch, one) for one in kept]

    def _receipt_in(self, epoch: str, said: Any) -> ReceiptRecord | TierError:
        """Returns the receipt; one that cannot be read is the failure of its own caller."""
        try:
            return _record(epoch, text(said))
        except ValueError:
            return UnreadableAnswerError(self._server.where, "a receipt that cannot be read")


def _place(id_: bytes) -> tuple[int, int]:
    ms, _, number = id_.partition(b"-")
    return int(ms), int(number)


def _to_park(parked: Parked) -> tuple[str, str, int, str]:
    """Returns what a script parks. The placement is a text: Lua's numbers have 53 bits."""
    return parked.cell, parked_items.name_of(parked), parked.at, str(parked.placement)


def _time_in(said: Any) -> int:
    """Returns the time, µs, of redis-py's pair of seconds and µs."""
    seconds, us = parts(list(said), 2) if type(said) is tuple else ("", "")
    return number(seconds) * 1_000_000 + number(us)


def _published_in(said: Any) -> tuple[bytes, bytes]:
    """Returns the epoch, and the id of the last item or nothing, as `publish.lua` answers."""
    epoch, position = parts(said, 2)
    return data(epoch), item_id(position).encode() if position else data(position)


def _opened_in(said: Any) -> tuple[bytes, bytes, bytes, Sequence[Fence]]:
    """Returns the epoch, the ids of the oldest and the newest item, and the paced fences."""
    epoch, oldest, newest, paced = parts(said, 4)
    return data(epoch), item_id(oldest).encode(), item_id(newest).encode(), _paced_in(paced)


def _paced_in(said: Any) -> Sequence[Fence]:
    return fence_items.paced_fences([data(member) for member in parts(said)])


def _items_in(said: Any) -> tuple[bytes, list[tuple[bytes, Mapping[bytes, bytes]]]]:
    """Returns the epoch, and the items with their fields, as `read.lua` answers."""
    epoch, items = parts(said, 2)
    found: list[tuple[bytes, Mapping[bytes, bytes]]] = []
    for item in parts(items):
        id_, fields = parts(item, 2)
        item_id(id_)
        found.append((id_, mapping(fields)))
    return data(epoch), found


def _followers_in(said: Any) -> tuple[str, Sequence[FollowerPosition] | None]:
    """Returns the epoch and the followers; None if there are as many as the caller knows."""
    epoch, *listed = parts(said)
    if not listed:
        return text(epoch), None
    (found,) = listed
    epoch = text(epoch)
    return epoch, [_follower_position(epoch, *parts(one, 3)) for one in parts(found)]


def _follower_position(epoch: str, name: Any, place: Any, silent_us: Any) -> FollowerPosition:
    instance, _, incarnation = text(name).rpartition("#")
    region, _, instance = instance.partition("/")
    position = NOWHERE if (id_ := item_id(place)) == NOWHERE else position_in(epoch, id_)
    return FollowerPosition(region, instance, position, number(silent_us), incarnation)


def _receipts_in(said: Any, count: int) -> tuple[str, list[Any]]:
    """Returns the epoch, and what was kept of each receipt, as `receipt.lua` answers."""
    epoch, kept = parts(said, 2)
    return text(epoch), parts(kept, count)


def _record(epoch: str, text: str) -> ReceiptRecord:
    """Returns a receipt whose position is of the epoch of the server that has kept it.

    A replica that was promoted has kept the fence's item with it, under the same id.
    """
    record = receipts.parse(text)
    return replace(record, position=position_in(epoch, record.position)) if record.position else record
