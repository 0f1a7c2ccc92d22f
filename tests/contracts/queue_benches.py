"""Queues to run one suite on, each with what the suite must be able to do to it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from cachesvc.changes.contract import Audit, Changes, FenceBatch, FenceStart, FenceStream, OpenChange
from cachesvc.changes.events.cloudevents import decode_item
from cachesvc.changes.redis import server
from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.changes.redis.fences import RedisFenceStream
from cachesvc.changes.relay.follower import RelayedFollower
from cachesvc.changes.relay.relay import Relay
from cachesvc.model.clock import SystemClock
from cachesvc.model.fence import Fence
from cachesvc.model.units import Duration
from tests.doubles.clocks import ManualClock
from tests.doubles.memory_queue import MemoryChanges, MemoryFenceStream, MemoryQueue
from tests.doubles.relays import RelayDoor
from tests.doubles.servers import RealServer

SKEW = Duration.parse("100ms")
RETENTION = Duration.parse("1h")


Fields = Mapping[bytes, bytes]
Decode = Callable[[str, Fields], OpenChange]


class QueueBench:
    changes: Changes

    def stream(
        self, max_batch: int = 100, follower: tuple[str, str] = ("", ""), incarnation: str = ""
    ) -> FenceStream:
        """A follower (and publisher) of its own."""
        raise NotImplementedError

    def reading_by(
        self, decode: Decode = decode_item, consumer: str = ""
    ) -> AbstractAsyncContextManager[Changes]:
        """The queue's changes as another instance uses them, which may know other items."""
        raise NotImplementedError

    async def append_fields(self, fields: Fields) -> str:
        """Appends the fields to `changes`, as any producer can."""
        raise NotImplementedError

    async def append_fence_item(self, name: bytes, value: bytes) -> None:
        """Appends an item of one field to `fences`, as anybody can who reaches the server."""
        raise NotImplementedError

    async def delivered(self, fences: Sequence[Fence]) -> list[Fence]:
        """Publishes the fences and returns those that a reader is given, ordered by time."""
        reader = self.stream()
        await reader.open()
        await self.stream().publish(fences)
        seen: list[Fence] = []
        while len(seen) < len(fences):
            seen += (await reader.read(wait_seconds=0.1)).fences
        return sorted(seen, key=lambda fence: fence.at)

    async def beat(self, complete_to: int, stream: FenceStream | None = None) -> None:
        """Sends a heartbeat, under the epoch that `changes` has."""
        epoch = (await self.changes.completion()).epoch
        await (stream or self.stream()).heartbeat(complete_to, epoch)

    async def announce(self) -> str:
        """Announces the epoch of `changes`, and returns it."""
        epoch = (await self.changes.completion()).epoch
        await self.stream().announce([], epoch)
        return epoch

    async def append_event(self, event: bytes) -> str:
        return await self.append_fields({b"event": event})

    async def dead(self) -> list[tuple[str, str, Fields]]:
        """Returns the id, the reason and the former fields of every buried change."""
        raise NotImplementedError

    async def audit(self) -> list[tuple[str, Audit]]:
        """Oldest first, each with its receipt's id."""
        raise NotImplementedError

    async def pass_time(self, seconds: float) -> None:
        """For followers, receipts, paced fences and parked changes."""
        raise NotImplementedError

    def bounded(
        self, most: int = 1000, most_bytes: int = 1 << 20, *, paced: int = 1000
    ) -> AbstractAsyncContextManager["QueueBench"]:
        """The same queue with other bounds.

        It parks so many targets and bytes of names for each cell, and keeps so many paced fences.
        """
        raise NotImplementedError

    async def trim_fences(self, keep: int) -> None:
        raise NotImplementedError

    async def trim_changes(self, keep: int) -> None:
        raise NotImplementedError

    async def delete_consumer(self, name: str) -> None:
        raise NotImplementedError

    async def lose_all(self) -> None:
        raise NotImplementedError

    async def now_us(self) -> int:
        """The queue's own clock."""
        raise NotImplementedError


class MemoryBench(QueueBench):
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.queue = MemoryQueue(self.clock)
        self.changes = MemoryChanges(self.queue)

    def stream(
        self, max_batch: int = 100, follower: tuple[str, str] = ("", ""), incarnation: str = ""
    ) -> FenceStream:
        return MemoryFenceStream(
            self.queue,
            "here",
            skew_us=SKEW,
            retention_us=RETENTION,
            follower=follower,
            incarnation=incarnation,
            max_batch=max_batch,
        )

    @asynccontextmanager
    async def reading_by(self, decode: Decode = decode_item, consumer: str = "") -> AsyncIterator[Changes]:
        yield MemoryChanges(self.queue, decode=decode, consumer=consumer)

    async def append_fields(self, fields: Fields) -> str:
        ms, number = self.queue.append_change(fields)
        return f"{ms}-{number}"

    async def append_fence_item(self, name: bytes, value: bytes) -> None:
        self.queue.append_item([name, value])

    async def dead(self) -> list[tuple[str, str, Fields]]:
        return self.queue.dead

    async def audit(self) -> list[tuple[str, Audit]]:
        return self.queue.audit

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds=seconds)

    @asynccontextmanager
    async def bounded(
        self, most: int = 1000, most_bytes: int = 1 << 20, *, paced: int = 1000
    ) -> AsyncIterator[QueueBench]:
        self.queue.parking.most, self.queue.parking.most_bytes = most, most_bytes
        self.queue.most_paced = paced
        yield self

    async def trim_fences(self, keep: int) -> None:
        self.queue.trim_fences(keep)

    async def trim_changes(self, keep: int) -> None:
        self.queue.trim_changes(keep)

    async def delete_consumer(self, name: str) -> None:
        self.queue.delete_consumer(name)

    async def lose_all(self) -> None:
        self.queue.lose()

    async def now_us(self) -> int:
        self.clock.advance(seconds=0.002)
        return self.clock.now_us()


class RedisBench(QueueBench):
    def __init__(self, server: RealServer, admin: "Redis") -> None:
        self.server = server
        self.admin = admin
        self._url, self._access = server.entrance("queue")
        self.changes = RedisChanges(self._url, "here", access=self._access)
        self._streams: list[RedisFenceStream] = []

    def stream(
        self, max_batch: int = 100, follower: tuple[str, str] = ("", ""), incarnation: str = ""
    ) -> RedisFenceStream:
        made = RedisFenceStream(
            self._url,
            "here",
            skew=SKEW,
            retention=RETENTION,
            follower=follower,
            incarnation=incarnation,
            max_batch=max_batch,
            access=self._access,
        )
        self._streams.append(made)
        return made

    @asynccontextmanager
    async def reading_by(self, decode: Decode = decode_item, consumer: str = "") -> AsyncIterator[Changes]:
        changes = RedisChanges(self._url, "here", decode=decode, consumer=consumer, access=self._access)
        try:
            yield changes
        finally:
            await changes.stop()

    async def append_fields(self, fields: Fields) -> str:
        item: Any = fields
        item_id: Any = await self.admin.xadd("changes", item)
        return str(item_id.decode())

    async def append_fence_item(self, name: bytes, value: bytes) -> None:
        await self.admin.xadd("fences", {name: value})

    async def dead(self) -> list[tuple[str, str, Fields]]:
        items: Any = await self.admin.xrange("changes:dead")
        return [(fields.pop(b"id").decode(), fields.pop(b"reason").decode(), fields) for _, fields in items]

    async def audit(self) -> list[tuple[str, Audit]]:
        items: Any = await self.admin.xrange("audit")
        texts = [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in items]
        return [(of.pop("receipt"), Audit(**{**of, "soft": of["soft"] == "true"})) for of in texts]

    async def pass_time(self, seconds: float) -> None:
        """The server's clock cannot be set, so what it has written down becomes older."""
        us = round(seconds * 1_000_000)
        readers: Any = await self.admin.hgetall("fences:readers")
        for name, said in readers.items():
            position, at, epoch = said.split()
            await self.admin.hset("fences:readers", name, b"%s %d %s" % (position, int(at) - us, epoch))
        if (beaten := await self.admin.get("fences:beat")) is not None:
            await self.admin.set("fences:beat", int(beaten) - us)
        cells: Any = await self.admin.hgetall("parked:cells")
        for name, said in cells.items():
            tried, rest = said.split(b" ", 1)
            await self.admin.hset("parked:cells", name, b"%d %s" % (int(tried) - us, rest))
            ats: Any = await self.admin.hgetall(b"parked:at:" + name)
            for target, text in ats.items():
                at, placement = text.split()
                await self.admin.hset(b"parked:at:" + name, target, b"%d %s" % (int(at) - us, placement))
        scored: Any = await self.admin.zrange("fences:paced", 0, -1, withscores=True)
        for member, score in scored:
            await self.admin.zadd("fences:paced", {member: score - us})
        async for key in self.admin.scan_iter("receipts:*"):
            await self.admin.pexpire(key, await self.admin.pttl(key) - us // 1000)

    @asynccontextmanager
    async def bounded(
        self, most: int = 1000, most_bytes: int = 1 << 20, *, paced: int = 1000
    ) -> AsyncIterator[QueueBench]:
        with pytest.MonkeyPatch.context() as patch:
            bounds = {
                b"MOST_PARKED_BYTES = 100000, 16777216": b"MOST_PARKED_BYTES = %d, %d" % (most, most_bytes),
                b"MOST_PACED = 100000": b"MOST_PACED = %d" % paced,
            }
            assert all(found in server._LUA["publish"] for found in bounds)
            for name, script in server._LUA.items():
                for found, bound in bounds.items():
                    script = script.replace(found, bound)
                patch.setitem(server._LUA, name, script)
            bench = RedisBench(self.server, self.admin)
            try:
                yield bench
            finally:
                await bench.disconnect()

    async def trim_fences(self, keep: int) -> None:
        await self.admin.xtrim("fences", maxlen=keep, approximate=False)

    async def trim_changes(self, keep: int) -> None:
        await self.admin.xtrim("changes", maxlen=keep, approximate=False)

    async def delete_consumer(self, name: str) -> None:
        await self.admin.xgroup_delconsumer("changes", "cachesvc", name)

    async def lose_all(self) -> None:
        await self.admin.flushall()

    async def now_us(self) -> int:
        seconds, us = await self.admin.time()
        return int(seconds) * 1_000_000 + int(us)

    async def stop(self) -> None:
        await self.disconnect()
        await self.admin.aclose()

    async def disconnect(self) -> None:
        await self.changes.stop()
        for stream in self._streams:
            await stream.stop()


class RelayedStream:
    """A stream of the queue that is read through a relay, which has read all that is there.

    Everything but reading is asked of the stream itself.
    """

    def __init__(self, stream: RedisFenceStream, upstream: RedisFenceStream) -> None:
        self._stream = stream
        self._relay = Relay(stream.region, 1 << 20)
        door = RelayDoor(lambda: self._relay)
        self._way = door.way
        self._upstream = RelayedFollower(
            upstream, (), self._relay, SystemClock(), skew_us=SKEW, heartbeat_seconds=0.5
        )
        self._follower = RelayedFollower(
            stream, [door.way], None, SystemClock(), skew_us=SKEW, heartbeat_seconds=0.5
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def open(self) -> FenceStart:
        await self._upstream.open()
        return await self._follower.open()

    async def read(self, *, wait_seconds: float) -> FenceBatch:
        self._way.breaker.seen()
        while (batch := await self._upstream.read(wait_seconds=0)).items or batch.gap:
            pass
        upstream = asyncio.create_task(self._upstream.read(wait_seconds=wait_seconds))
        try:
            return await self._follower.read(wait_seconds=wait_seconds)
        finally:
            upstream.cancel()
            await asyncio.wait([upstream])

    def forget(self) -> None:
        """The relay has just begun: it has nothing of what was before."""
        self._relay.begin(self._upstream.position)


class RelayedBench(RedisBench):
    """A queue whose streams are read through relays."""

    def __init__(self, server: RealServer, admin: "Redis") -> None:
        super().__init__(server, admin)
        self._relayed: list[RelayedStream] = []

    def stream(
        self, max_batch: int = 100, follower: tuple[str, str] = ("", ""), incarnation: str = ""
    ) -> Any:
        made = super().stream(max_batch, follower, incarnation)
        self._relayed.append(RelayedStream(made, super().stream(max_batch)))
        return self._relayed[-1]

    async def trim_fences(self, keep: int) -> None:
        """Also the relays lose what they have: they would still tell it, and it is no gap."""
        await super().trim_fences(keep)
        for stream in self._relayed:
            stream.forget()


@asynccontextmanager
async def memory_bench() -> AsyncIterator[QueueBench]:
    yield MemoryBench()


@asynccontextmanager
async def redis_bench(server: RealServer, kind: type[RedisBench] = RedisBench) -> AsyncIterator[RedisBench]:
    admin = Redis.from_url(server.redis_url)
    await admin.flushall()
    bench = kind(server, admin)
    try:
        yield bench
    finally:
        await bench.stop()
