"""A region's `changes` on Redis: one stream with one consumer group.

A change leaves the stream in one of three ways, each in one transaction:

    acknowledge           closed
    publish(done=[Done])  closed, with its fence, receipt and audit (`fences.py`); the targets that
                          home cells have missed are parked in the same transaction
    bury                  on the dead-letter stream

The server's side is in `lua/`, with `prelude.lua` first.
"""

import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from cachesvc.changes.contract import (
    Attendance,
    Beat,
    Completion,
    OpenChange,
    OpenCount,
    Parked,
    Rival,
    RivalKind,
)
from cachesvc.changes.events.cloudevents import decode_item, encode
from cachesvc.changes.redis import parked_items
from cachesvc.changes.redis.server import (
    CHANGES,
    GROUP,
    TIMEOUT,
    RedisServer,
    RefusedError,
    answered,
    candidate,
)
from cachesvc.model.change import Change
from cachesvc.model.errors import TierError, TierUnavailableError, UnreadableAnswerError
from cachesvc.model.units import Duration
from cachesvc.tiers.answer_shapes import ShapeError, item_id, number, parts, text
from cachesvc.tiers.batching import Batcher
from cachesvc.tiers.breaker import Breaker
from cachesvc.tiers.redis_connections import DEFAULT_ACCESS, Access

T = TypeVar("T")

LARGEST_CHANGE = 8 << 20
"""Bytes of the largest change. A larger one is buried without its fields."""
_RIVALS: Mapping[Any, RivalKind] = {b"instance": "instance", b"deployment": "deployment"}
_EPOCH = re.compile(r"[^\s:]*:[^\s:]*:-?[0-9]{1,18}")
MOST_ADOPTED = 1000
"""Changes that one call looks at, oldest first; the rest waits for its turn."""
RETENTION = Duration.parse("1h")
"""The longest time that a cell keeps a copy, unless configured."""


class RedisChanges:
    """The `changes` stream of one region on one Redis server."""

    def __init__(
        self,
        url: str,
        region: str,
        *,
        consumer: str = "",
        decode: Callable[[str, Mapping[bytes, bytes]], OpenChange] = decode_item,
        timeout: Duration = TIMEOUT,
        max_open: int = 1_000_000,
        retention: Duration = RETENTION,
        access: Access = DEFAULT_ACCESS,
        breaker: Breaker | None = None,
    ) -> None:
        """Makes a stream that is not connected yet.

        `consumer`: the name under which this instance takes changes; held changes that it appends are
        taken under that name at once. `decode` reads an item by its id and fields, and never raises.
        `max_open`: the changes that may be open at once, without the parked ones; beyond them `append` is
        refused, and no change is lost silently. `retention`: the longest time that a cell keeps a copy.
        What is parked is forgotten a minute later, as a cell forgets its fences. A heartbeat trims `fences`
        to that time.
        """
        self._server = RedisServer(url, f"changes of {region}", timeout, access, breaker)
        self._source = f"/cachesvc/{region}"
        self._consumer = consumer
        self._decode = decode
        self._max_open = max_open
        self._most_at_once = MOST_ADOPTED
        """Changes that one exchange asks for at most."""
        self._retention_us = int(retention)
        self._outlived_us = self._retention_us + 60_000_000
        script, unspanned, batcher = self._server.script, self._server.unspanned, self._server.batcher
        self._append_all, self._acknowledge_all = unspanned("append"), unspanned("acknowledge")
        self._appends: Batcher[tuple[bytes, bool], str] = batcher(
            self._append_together, "append", weigh=lambda events: sum(len(event) for event, _ in events)
        )
        self._acknowledgements: Batcher[str, None] = batcher(self._acknowledge_together, "acknowledge")
        self._make_group = script("make_group")
        self._bury, self._parked = script("bury"), script("parked")
        self._completion, self._adopt = script("completion"), script("adopt")
        self._forget = script("forget")

    def __repr__(self) -> str:
        return f"<RedisChanges {self._source}>"

    async def start(self) -> None:
        """Does nothing: the server is connected when it is first used."""

    async def stop(self) -> None:
        await self._server.stop()

    async def append(self, change: Change, *, held_until_us: int = 0, traceparent: str = "") -> str:
        id_ = uuid.uuid4().hex
        event = encode(
            change, id_=id_, source=self._source, held_until_us=held_until_us, traceparent=traceparent
        )
        return answered(await self._appends.submit((event, held_until_us > 0)))

    async def append_event(self, event: bytes) -> str:
        """Durably accepts an event of ours, as it stands, and returns its id. Raises `TierError`."""
        return answered(await self._appends.submit((event, False)))

    async def _append_together(self, events: list[tuple[bytes, bool]]) -> Sequence[str | TierError]:
        """Appends the events of many callers; the ones that find the stream full are refused.

        They are taken in the same step if all of them are held, as those of an instance are.
        """
        consumer = self._consumer if all(is_held for _, is_held in events) else ""
        ids = await self._append_all(
            [self._max_open, consumer, *(event for event, _ in events)],
            lambda said: [one if one is None else item_id(one) for one in parts(said, len(events))],
        )
        full = TierUnavailableError(
            self._server.where, f"{self._max_open} changes are open: the consumers do not keep up"
        )
        return [full if id_ is None else id_ for id_ in ids]

    async def take(self, consumer: str, *, count: int, wait_seconds: float) -> Sequence[OpenChange]:
        try:
            return await self._take(consumer, count, wait_seconds)
        except RefusedError as error:
            if not error.why.startswith("NOGROUP"):
                raise
        await self._make_group([candidate()])
        return await self._take(consumer, count, wait_seconds)

    async def _take(self, consumer: str, count: int, wait_seconds: float) -> list[OpenChange]:
        block = round(wait_seconds * 1000) or None  # 0 would wait for ever
        count = min(count, self._most_at_once)
        reading: Any = self._server.redis.xreadgroup(
            GROUP, consumer, {CHANGES: ">"}, count=count, block=block
        )
        return await self._measured(
            reading,
            lambda streams: [
                self._open(item) for batch in (streams or {}).values() for items in batch for item in items
            ],
            wait_seconds,
        )

    async def _measured(
        self, exchange: Awaitable[Any], taken: Callable[[Any], T], wait_seconds: float = 0
    ) -> T:
        """Returns `taken` of an answer with many changes.

        After one that could not be read, fewer changes are asked for at once: they may be more bytes than
        a reply may have, and the same changes would be answered again and again. A single one has no more
        than `LARGEST_CHANGE` (`adopt.lua`).
        """
        try:
            found: T = await self._server.guarded(exchange, wait_seconds=wait_seconds, taken=taken)
        except UnreadableAnswerError:
            self._most_at_once = max(self._most_at_once // 10, 1)
            raise
        self._most_at_once = min(2 * self._most_at_once, MOST_ADOPTED)
        return found

    async def reclaim(self, consumer: str, *, idle_seconds: float, count: int) -> Sequence[OpenChange]:
        await self._adopt([consumer, round(idle_seconds * 1_000_000), MOST_ADOPTED, LARGEST_CHANGE], number)
        found: list[OpenChange] = []
        cursor = "0-0"
        while len(found) < count:
            claiming: Any = self._server.redis.xautoclaim(
                CHANGES,
                GROUP,
                consumer,
                round(idle_seconds * 1000),
                cursor,
                count=min(count - len(found), self._most_at_once),
            )
            try:
                cursor, items = await self._measured(claiming, self._claimed)
            except RefusedError as error:
                if error.why.startswith("NOGROUP"):
                    return found
                raise
            found += items
            if cursor == "0-0":
                break
        return found

    async def forget_consumers(self, *, idle_seconds: float) -> int:
        return int(await self._forget([round(idle_seconds * 1_000_000)]))

    async def parked(self, *, idle_seconds: float, count: int) -> Sequence[Parked]:
        """Returns what is parked for cells that no consumer has tried for `idle_seconds`.

        The queue keeps that a cell is tried, not which consumer tries it: a consumer that dies meanwhile
        leaves the cell to any other.
        """
        found: Sequence[Parked] = await self._parked(
            [round(idle_seconds * 1_000_000), count, self._outlived_us],
            lambda said: [parked_items.parse(*map(text, parts(one, 3))) for one in parts(said)],
        )
        return found

    def _claimed(self, answer: Any) -> tuple[str, list[OpenChange]]:
        """Returns where the next call goes on, and the changes of this one."""
        return item_id(answer[0]), [self._open(item) for item in answer[1]]

    def _open(self, item: tuple[bytes, Mapping[bytes, bytes]]) -> OpenChange:
        name, fields = item
        id_ = item_id(name)
        try:
            return self._decode(id_, fields)
        except Exception as defect:  # noqa: BLE001  whatever it is, it is of one change alone
            return OpenChange(id_, reason=f"cannot be read: {type(defect).__name__}")

    async def acknowledge(self, ids: Sequence[str]) -> None:
        for outcome in await self._acknowledgements.submit_many(ids):
            answered(outcome)

    async def _acknowledge_together(self, ids: list[str]) -> Sequence[None]:
        await self._acknowledge_all([*ids])
        return [None] * len(ids)

    async def bury(self, change: OpenChange) -> None:
        await self._bury([change.id, change.reason])

    async def completion(self, me: Attendance | None = None, beat: Beat | None = None) -> Completion:
        attends = [me.incarnation, me.live_us, ",".join(me.cells), me.name] if me else ["", 0, "", ""]
        beats = [beat.unless_beaten_us, beat.latest_us, beat.epoch, beat.queue, beat.oldest] if beat else []
        found: Completion = await self._completion(
            [candidate(), *attends, self._retention_us // 1000, *beats], _completion_in
        )
        return found

    @property
    def master(self) -> str:
        """`host:port` of the master that sentinels named last; empty if none did."""
        return self._server.master

    async def reconnect(self) -> None:
        await self._server.reconnect()


def _completion_in(said: Any) -> Completion:
    """Returns the answer of `completion.lua`. Raises `ShapeError`."""
    complete_to, epoch, announced, now_us, oldest, rivals, queue, count, has_beaten = parts(said, 9)
    if not _EPOCH.fullmatch(epoch := text(epoch)):
        raise ShapeError("not an epoch")
    return Completion(
        number(complete_to),
        epoch,
        announced=text(announced) == epoch,
        now_us=number(now_us),
        oldest=item_id(oldest) if oldest else "",
        lost=int(epoch.rpartition(":")[2]),
        rivals=[_rival(one) for one in parts(rivals)],
        queue=text(queue),
        count=OpenCount(*map(number, parts(count, 6))),
        has_beaten=number(has_beaten) == 1,
    )


def _rival(said: Any) -> Rival:
    kind, incarnation, name, was_first = parts(said, 4)
    if kind not in _RIVALS:
        raise ShapeError("not a rival")
    return Rival(_RIVALS[kind], text(incarnation), text(name), number(was_first) == 1)
