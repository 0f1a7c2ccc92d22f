"""A region's two streams on Redis. The server's side: `prelude.lua`.

`changes` has one consumer group. Of `fences` every reader keeps its own position:

    read:  wait (XREAD, only a hint) → one script: the epoch, and the items from the position on, its own item included
           another epoch, or the own item gone → gap: first take the new position, then say so

A publisher that sees another epoch publishes again what it published in the last minute: the server that took over may lack it.
"""

import asyncio
import secrets
import uuid
from collections import deque
from collections.abc import Sequence
from typing import Any

from cachesvc.errors import TierUnavailableError
from cachesvc.interfaces import FenceBatch, FenceStart, OpenChange
from cachesvc.model import Change, Fence
from cachesvc.queues import fence_items
from cachesvc.queues.cloudevents import decode, encode
from cachesvc.queues.redis_server import RedisServer, RefusedError
from cachesvc.units import Duration

CHANGES, GROUP, FENCES = "changes", "cachesvc", "fences"
TIMEOUT = Duration.parse("1s")
"""Of one call. Not the data path: a second of patience costs an invalidation less than redoing it."""
REMEMBER_SECONDS = 60.0
REMEMBER_ITEMS = 10_000
"""A bound, should more than a hundred items a second be published: beyond it the oldest are not published again."""


class RedisChanges:
    def __init__(self, url: str, region: str, *, timeout: Duration = TIMEOUT, max_open: int = 1_000_000) -> None:
        """`max_open`: changes that may be open at once; beyond it `append` is refused and nothing is lost silently."""
        self._server = RedisServer(url, f"changes of {region}", timeout)
        self._source = f"/cachesvc/{region}"
        self._max_open = max_open
        self._append = self._server.script("append")
        self._bury = self._server.script("bury")
        self._complete_to = self._server.script("complete_to")

    def __repr__(self) -> str:
        return f"<RedisChanges {self._source}>"

    async def start(self) -> None:
        """Connects when first used."""

    async def stop(self) -> None:
        await self._server.stop()

    async def append(self, change: Change, *, held_until_us: int = 0) -> str:
        event = encode(change, id_=uuid.uuid4().hex, source=self._source, held_until_us=held_until_us)
        item_id = await self._append([event, self._max_open])
        if item_id is None:
            raise TierUnavailableError(self._server.where, f"{self._max_open} changes are open: the consumers do not keep up")
        return str(item_id.decode())

    async def take(self, consumer: str, *, count: int, wait_seconds: float) -> Sequence[OpenChange]:
        try:
            return await self._take(consumer, count, wait_seconds)
        except RefusedError as error:
            if not error.why.startswith("NOGROUP"):
                raise
        await self._make_group()
        return await self._take(consumer, count, wait_seconds)

    async def _take(self, consumer: str, count: int, wait_seconds: float) -> list[OpenChange]:
        block = round(wait_seconds * 1000) or None  # 0 would be for ever
        reading = self._server.redis.xreadgroup(GROUP, consumer, {CHANGES: ">"}, count=count, block=block)
        streams: Any = await self._server.guarded(reading, wait_seconds=wait_seconds)
        return [_open(item) for batch in (streams or {}).values() for items in batch for item in items]

    async def _make_group(self) -> None:
        """From the beginning: changes that came before the group are its to do."""
        try:
            await self._server.guarded(self._server.redis.xgroup_create(CHANGES, GROUP, id="0", mkstream=True))
        except RefusedError as error:
            if not error.why.startswith("BUSYGROUP"):  # another consumer was first
                raise

    async def reclaim(self, consumer: str, *, idle_seconds: float, count: int) -> Sequence[OpenChange]:
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
            found += [_open(item) for item in answer[1]]
            cursor = answer[0].decode()
            if cursor == "0-0":
                break
        return found

    async def acknowledge(self, ids: Sequence[str]) -> None:
        if not ids:
            return
        pipe = self._server.redis.pipeline(transaction=True)
        pipe.xack(CHANGES, GROUP, *ids)
        pipe.xdel(CHANGES, *ids)  # also takes it out of what the group is still to be given
        await self._server.guarded(pipe.execute())

    async def bury(self, change: OpenChange) -> None:
        await self._bury([change.id, change.reason])

    async def complete_to(self) -> int:
        return int(await self._complete_to([]))


class RedisFenceStream:
    """`max_batch`: items of one read."""

    def __init__(
        self,
        url: str,
        region: str,
        *,
        skew: Duration,
        retention: Duration,
        timeout: Duration = TIMEOUT,
        max_batch: int = 256,
    ) -> None:
        self.region = region
        self._server = RedisServer(url, f"fences of {region}", timeout)
        self._publish, self._read, self._open = (self._server.script(name) for name in ("publish", "read", "open"))
        self._skew_us = int(skew)
        self._retention_ms = retention // 1000
        self._max_batch = max_batch
        self._epoch = b""
        self._position = b""
        self._delivered = False
        """The item at the position has been delivered; false only after `open` and a gap."""
        self._published_epoch = b""
        self._published: deque[tuple[float, list[bytes]]] = deque(maxlen=REMEMBER_ITEMS)

    def __repr__(self) -> str:
        return f"<RedisFenceStream {self.region} at {self._position.decode() or 'no position'}>"

    async def start(self) -> None:
        """Connects when first used."""

    async def stop(self) -> None:
        await self._server.stop()

    async def publish(self, fences: Sequence[Fence], *, done: Sequence[str] = ()) -> None:
        items = fence_items.encode(fences)
        if not (items or done):
            return
        epoch = await self._append(items, done)
        await self._repeat_after(epoch)
        now = asyncio.get_running_loop().time()
        self._published.extend((now, item) for item in items)

    async def heartbeat(self, complete_to: int) -> None:
        await self._repeat_after(await self._append([fence_items.heartbeat(complete_to)]))

    async def _append(self, items: Sequence[list[bytes]], done: Sequence[str] = ()) -> bytes:
        flat = [argument for item in items for argument in (len(item), *item)]
        epoch: bytes = await self._publish([_candidate(), self._retention_ms, len(items), *flat, *done])
        return epoch

    async def _repeat_after(self, epoch: bytes) -> None:
        """Twice is harmless (fences merge by their newest); not at all would leave what the lost tail carried to chance."""
        known, oldest = self._published_epoch, asyncio.get_running_loop().time() - REMEMBER_SECONDS
        while self._published and self._published[0][0] < oldest:
            self._published.popleft()
        if known and known != epoch and self._published:
            epoch = await self._append([item for _, item in self._published])
        self._published_epoch = epoch

    async def open(self) -> FenceStart:
        await self._take_position()
        ms = int(self._position.partition(b"-")[0])
        return FenceStart(floor=ms * 1000 + 999 + 3 * self._skew_us)

    async def read(self, *, wait_seconds: float) -> FenceBatch:
        """Cancelled, it has either moved the position and answered, or done nothing."""
        if not self._position:
            return await self._gap()
        if self._delivered and wait_seconds:
            await self._wait(wait_seconds)
        epoch, items = await self._read([self._position, self._max_batch + self._delivered])
        if epoch != self._epoch or not items or items[0][0] != self._position:
            return await self._gap()
        return self._deliver(items[self._delivered :])

    async def _wait(self, seconds: float) -> None:
        block = max(round(seconds * 1000), 1)  # 0 would be for ever
        waiting: Any = self._server.redis.xread({FENCES: self._position}, count=1, block=block)
        await self._server.guarded(waiting, wait_seconds=seconds)

    async def _gap(self) -> FenceBatch:
        await self._take_position()
        return FenceBatch((), None, gap=True)

    async def _take_position(self) -> None:
        self._epoch, self._position = await self._open([_candidate(), self._retention_ms])
        self._delivered = False

    def _deliver(self, items: Sequence[Any]) -> FenceBatch:
        decoded = [fence_items.decode(_mapping(fields)) for _, fields in items]
        if items:
            self._position, self._delivered = items[-1][0], True
        fences = [fence for item in decoded if item is not None for fence in item.fences]
        heartbeats = [item.complete_to for item in decoded if item is not None and item.complete_to is not None]
        return FenceBatch(fences, heartbeats[-1] if heartbeats else None, gap=None in decoded)


def _open(item: Any) -> OpenChange:
    item_id, fields = item
    return decode(item_id.decode(), fields.get(b"event"))


def _candidate() -> str:
    return secrets.token_hex(8)


def _mapping(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
