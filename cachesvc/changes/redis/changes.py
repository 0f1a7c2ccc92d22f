"""A region's `changes` on Redis: one stream with one consumer group.

A change leaves the stream in one of three ways, each in one transaction:

    acknowledge           closed
    publish(done=[Done])  closed, with its fence, receipt and audit (`fences.py`); the targets that
                          home cells have missed are parked in the same transaction
    bury                  on the dead-letter stream

The server's side is in `lua/`, with `prelude.lua` first.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cachesvc.changes.contract import Attendance, Completion, OpenChange, OpenCount, Parked, Rival
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
from cachesvc.model.errors import TierError, TierUnavailableError
from cachesvc.model.units import Duration
from cachesvc.tiers.batching import Batcher

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
        decode: Callable[[str, Mapping[bytes, bytes]], OpenChange] = decode_item,
        timeout: Duration = TIMEOUT,
        max_open: int = 1_000_000,
        retention: Duration = RETENTION,
    ) -> None:
        """Makes a stream that is not connected yet.

        `decode` reads an item by its id and fields, and never raises. `max_open`: the changes that may be
        open at once, without the parked ones; beyond them `append` is refused, and no change is lost
        silently. `retention`: the longest time that a cell keeps a copy. What is parked is forgotten a
        minute later, as a cell forgets its fences.
        """
        self._server = RedisServer(url, f"changes of {region}", timeout)
        self._source = f"/cachesvc/{region}"
        self._decode = decode
        self._max_open = max_open
        self._outlived_us = int(retention) + 60_000_000
        script, unspanned, batcher = self._server.script, self._server.unspanned, self._server.batcher
        self._append_all, self._acknowledge_all = unspanned("append"), unspanned("acknowledge")
        self._appends: Batcher[bytes, str] = batcher(self._append_together, "append", weigh=len)
        self._acknowledgements: Batcher[str, None] = batcher(self._acknowledge_together, "acknowledge")
        self._make_group = script("make_group")
        self._bury, self._parked = script("bury"), script("parked")
        self._completion, self._adopt = script("completion"), script("adopt")
        self._forget = script("forget")
        self._open_count = script("open_count")

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
        return answered(await self._appends.submit(event))

    async def _append_together(self, events: list[bytes]) -> Sequence[str | TierError]:
        """Appends the events of many callers; the ones that find the stream full are refused."""
        ids = await self._append_all([self._max_open, *events])
        full = TierUnavailableError(
            self._server.where, f"{self._max_open} changes are open: the consumers do not keep up"
        )
        return [full if id_ is None else str(id_.decode()) for id_ in ids]

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
        reading = self._server.redis.xreadgroup(GROUP, consumer, {CHANGES: ">"}, count=count, block=block)
        streams: Any = await self._server.guarded(reading, wait_seconds=wait_seconds)
        return [self._open(item) for batch in (streams or {}).values() for items in batch for item in items]

    async def reclaim(self, consumer: str, *, idle_seconds: float, count: int) -> Sequence[OpenChange]:
        await self._adopt([consumer, round(idle_seconds * 1_000_000), MOST_ADOPTED])
        found: list[OpenChange] = []
        cursor = "0-0"
        while len(found) < count:
            claiming = self._server.redis.xautoclaim(
                CHANGES, GROUP, consumer, round(idle_seconds * 1000), cursor, count=count - len(found)
            )
            try:
                answer: Any = await self._server.guarded(claiming)
            except RefusedError as error:
                if error.why.startswith("NOGROUP"):
                    return found
                raise
            found += [self._open(item) for item in answer[1]]
            cursor = answer[0].decode()
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
        found = await self._parked([round(idle_seconds * 1_000_000), count, self._outlived_us])
        return [parked_items.parse(cell.decode(), name.decode(), text.decode()) for cell, name, text in found]

    def _open(self, item: tuple[bytes, Mapping[bytes, bytes]]) -> OpenChange:
        item_id, fields = item
        return self._decode(item_id.decode(), fields)

    async def acknowledge(self, ids: Sequence[str]) -> None:
        for outcome in await self._acknowledgements.submit_many(ids):
            answered(outcome)

    async def _acknowledge_together(self, ids: list[str]) -> Sequence[None]:
        await self._acknowledge_all([*ids])
        return [None] * len(ids)

    async def bury(self, change: OpenChange) -> None:
        await self._bury([change.id, change.reason])

    async def completion(self, me: Attendance | None = None) -> Completion:
        attends = [me.incarnation, me.live_us, ",".join(me.cells), me.name] if me else ["", 0, "", ""]
        complete_to, epoch, announced, now_us, oldest, rivals, queue = await self._completion(
            [candidate(), *attends]
        )
        return Completion(
            complete_to,
            epoch.decode(),
            announced=announced == epoch,
            now_us=now_us,
            oldest=oldest.decode(),
            lost=int(epoch.rpartition(b":")[2]),
            rivals=[
                Rival(kind.decode(), incarnation.decode(), name.decode(), was_first == 1)
                for kind, incarnation, name, was_first in rivals
            ],
            queue=queue.decode(),
        )

    async def reconnect(self) -> None:
        await self._server.reconnect()

    async def open_count(self) -> OpenCount:
        return OpenCount(*await self._open_count([]))
