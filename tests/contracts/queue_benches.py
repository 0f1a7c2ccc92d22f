"""Queues to run one suite on, each with what the suite must be able to do to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from cachesvc.clock import ManualClock
from cachesvc.interfaces import Changes, FenceStream
from cachesvc.queues.memory import MemoryChanges, MemoryFenceStream, MemoryQueue
from cachesvc.queues.redis_stream import RedisChanges, RedisFenceStream
from cachesvc.units import Duration
from tests.doubles.servers import RealServer

SKEW = Duration.parse("100ms")
RETENTION = Duration.parse("1h")


class QueueBench:
    changes: Changes

    def stream(self, max_batch: int = 100) -> FenceStream:
        """A reader (and publisher) of its own."""
        raise NotImplementedError

    async def append_event(self, event: bytes) -> str:
        """What any producer can do."""
        raise NotImplementedError

    async def dead(self) -> list[tuple[str, str, bytes]]:
        raise NotImplementedError

    async def trim_fences(self, keep: int) -> None:
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

    def stream(self, max_batch: int = 100) -> FenceStream:
        return MemoryFenceStream(self.queue, "here", skew_us=SKEW, retention_us=RETENTION, max_batch=max_batch)

    async def append_event(self, event: bytes) -> str:
        ms, number = self.queue.append_event(event)
        return f"{ms}-{number}"

    async def dead(self) -> list[tuple[str, str, bytes]]:
        return self.queue.dead

    async def trim_fences(self, keep: int) -> None:
        self.queue.trim_fences(keep)

    async def lose_all(self) -> None:
        self.queue.lose()

    async def now_us(self) -> int:
        self.clock.advance(seconds=0.002)
        return self.clock.now_us()


class RedisBench(QueueBench):
    def __init__(self, server: RealServer, admin: "Redis") -> None:
        self.server = server
        self.admin = admin
        self.changes = RedisChanges(server.redis_url, "here")
        self._streams: list[RedisFenceStream] = []

    def stream(self, max_batch: int = 100) -> RedisFenceStream:
        made = RedisFenceStream(self.server.redis_url, "here", skew=SKEW, retention=RETENTION, max_batch=max_batch)
        self._streams.append(made)
        return made

    async def append_event(self, event: bytes) -> str:
        item_id: Any = await self.admin.xadd("changes", {"event": event})
        return str(item_id.decode())

    async def dead(self) -> list[tuple[str, str, bytes]]:
        items: Any = await self.admin.xrange("changes:dead")
        return [(fields[b"id"].decode(), fields[b"reason"].decode(), fields[b"event"]) for _, fields in items]

    async def trim_fences(self, keep: int) -> None:
        await self.admin.xtrim("fences", maxlen=keep, approximate=False)

    async def lose_all(self) -> None:
        await self.admin.flushall()

    async def now_us(self) -> int:
        seconds, us = await self.admin.time()
        return int(seconds) * 1_000_000 + int(us)

    async def stop(self) -> None:
        await self.changes.stop()
        for stream in self._streams:
            await stream.stop()
        await self.admin.aclose()


@asynccontextmanager
async def memory_bench() -> AsyncIterator[QueueBench]:
    yield MemoryBench()


@asynccontextmanager
async def redis_bench(server: RealServer) -> AsyncIterator[RedisBench]:
    admin = Redis.from_url(server.redis_url)
    await admin.flushall()
    bench = RedisBench(server, admin)
    try:
        yield bench
    finally:
        await bench.stop()
