"""Home cells to run one suite on, each with what the suite must be able to do to it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NoConnectionError
from redis.exceptions import OutOfMemoryError

from cachesvc.config.service import L3
from cachesvc.model.change import Target
from cachesvc.model.clock import SystemClock
from cachesvc.model.entry import Entry, Key, tag_digests_of
from cachesvc.model.errors import TierError
from cachesvc.model.units import Duration
from cachesvc.tiers.l3 import script
from cachesvc.tiers.l3.contract import Cell, CellKeyState, FenceReply, Fill, Put, PutReply, Read, Reply
from cachesvc.tiers.l3.redis_cell import RedisCell
from tests.doubles.clocks import ManualClock
from tests.doubles.memory_cell import PUT_MAY_TAKE_US, MemoryCell
from tests.doubles.servers import RealServer

SKEW_US = 20_000
SETTINGS = L3(connect_timeout=Duration.parse("2s"), timeout=Duration.parse("2s"))
"""Generous: what is tested with it must not depend on how busy the machine is."""
SHORT = L3(connect_timeout=Duration.parse("2s"), timeout=Duration.parse("50ms"))
"""For an exchange that is to fail."""

NS = "docs"
KEY = Key.of(NS, "a")

T = TypeVar("T")


class CellBench:
    """A cell under test, and short words for what tests do with it."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    async def pass_time(self, seconds: float) -> None:
        raise NotImplementedError

    async def restart_with_data(self) -> None:
        """The server comes back under another run id with all it held: a promoted replica, or a restart from disk."""
        raise NotImplementedError

    async def lose_all(self) -> None:
        raise NotImplementedError

    async def lose_fences(self) -> None:
        """The stored fences are deleted, and nothing else."""
        raise NotImplementedError

    async def activate(self, placement: int, version: int) -> None:
        """An instance with this placement and version of the topology attaches, beside the one that the test asks through."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Get a new issuer's wait over with: S for leases and fences, 2 S + 1 ms until what is filled is exact."""
        await self.cell.read_many([Read(KEY)])
        await self.pass_time((2 * SKEW_US + 2000) / 1e6)

    async def state(self, key: Key = KEY, tags: Sequence[str] = ()) -> CellKeyState:
        return await self.cell.inspect(key, tags)

    async def read(self, key: Key = KEY, **how: Any) -> Reply:
        (reply,) = await self.cell.read_many([Read(key, **{"lease": True, **how})])
        return good(reply)

    async def entry(
        self, value: bytes = b"v", *, fresh_for: float = 60, as_of: int | None = None, **fields: Any
    ) -> Entry:
        now = (await self.state()).now_us
        fields["tag_digests"] = tag_digests_of(NS, fields.get("tags", ()))
        return Entry(value, now if as_of is None else as_of, now + round(fresh_for * 1e6), **fields)

    async def fill(
        self, value: bytes = b"v", *, key: Key = KEY, lease: str | None = None, **fields: Any
    ) -> tuple[Entry, str]:
        """Fill under a lease (granted for this unless given); it must be stored."""
        token = lease or (await self.read(key, refresh=True)).lease
        assert token is not None, "no lease to fill with"
        entry = await self.entry(value, as_of=as_of_of(token), **fields)
        assert await self.try_fill(token, entry, key=key), "fenced"
        return entry, token

    async def try_fill(self, lease: str, entry: Entry, *, key: Key = KEY) -> bool:
        (reply,) = await self.cell.fill_many([Fill(key, entry, lease)])
        return good(reply).stored

    async def put(self, entry: Entry, *, key: Key = KEY, **how: Any) -> PutReply:
        (reply,) = await self.cell.put_many([Put(key, entry, **how)])
        return good(reply)

    async def put_late(self, entry: Entry) -> Callable[[], Awaitable[None]]:
        """Another instance sends a put, and gives it up; the result lets the put arrive."""
        raise NotImplementedError

    async def fence(self, *targets: Target, soft: bool = False, least: int = 0) -> int:
        replies = await self.cell.fence_many(targets or [Target.key(NS, KEY.text)], soft=soft, least=least)
        return good(replies[0]).at


def good(answer: T | TierError) -> T:
    if isinstance(answer, TierError):
        raise answer
    return answer


def ats_of(replies: Iterable[FenceReply | TierError]) -> list[int]:
    return [good(reply).at for reply in replies]


def as_of_of(token: str) -> int:
    return int(token.partition(":")[2])


class MemoryBench(CellBench):
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.memory = MemoryCell("c1", self.clock, SKEW_US)
        super().__init__(self.memory)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds=seconds)

    async def restart_with_data(self) -> None:
        self.memory.restart()

    async def lose_all(self) -> None:
        self.memory.lose()

    async def lose_fences(self) -> None:
        self.memory.lose_fences()

    async def activate(self, placement: int, version: int) -> None:
        self.memory.activate(placement, version)

    async def put_late(self, entry: Entry) -> Callable[[], Awaitable[None]]:
        arrive = self.memory.put_on_its_way(Put(KEY, entry))
        await self.pass_time(PUT_MAY_TAKE_US / 1e6)

        async def arrived() -> None:
            arrive()

        return arrived


SLOW = 20
"""The clock of a real server's scripts runs so much slower than the machine's."""
SLOW_TIME = (
    b"""
local function slow_time()
  local time, set = redis.call('TIME'), redis.call('HMGET', 'queues:clock', 'real', 'us')
  local us = time[1] * 1000000 + time[2]
  if set[1] then
    us = math.floor(set[2] + (us - set[1]) / %d)
  end
  return { math.floor(us / 1000000), us %% 1000000 }
end
"""
    % SLOW
)


@contextmanager
def slow_clock() -> Iterator[None]:
    """Within the block, the scripts of cells read a slow clock, which tests set right.

    What a test has to do within S, or a few of them, is then possible on a busy machine too.
    """
    scripts = [one for one in vars(script).values() if isinstance(one, script.Script)]
    before = [(one, one.source, one.sha) for one in scripts]
    for one in scripts:
        source = one.source.replace(b"redis.call('TIME')", b"slow_time()")
        one.source = SLOW_TIME + source.replace(b"call('TIME')", b"slow_time()")
        one.sha = hashlib.sha1(one.source, usedforsecurity=False).hexdigest().encode()
    try:
        yield
    finally:
        for one, source, sha in before:
            one.source, one.sha = source, sha


CLOCK = "queues:clock"
"""The clock's key: a user of a cell may read the keys of this prefix (config/redis-users.acl)."""


class RedisBench(CellBench):
    """A real server. Leases and copies expire by its own time, which is real."""

    def __init__(self, server: RealServer, admin: "Redis") -> None:
        self.server = server
        self.admin = admin
        url, access = server.entrance("cell")
        self.redis = RedisCell("c1", url, SETTINGS, SKEW_US, SystemClock(), access=access)
        super().__init__(self.redis)

    async def begin(self) -> None:
        """Begins with an empty server."""
        await self.admin.flushall()
        await self._set_clock()

    async def _set_clock(self) -> None:
        """Sets the clock of the scripts right: from now on it falls behind again.

        It is never ahead, since copies and leases expire by the machine's time.
        """
        seconds, us = await self.admin.time()
        now_us = int(seconds) * 1_000_000 + int(us)
        setting: Any = self.admin.hset(CLOCK, mapping={"real": now_us, "us": now_us})
        await setting

    async def restart(self) -> None:
        """Starts the server that was killed, empty."""
        await asyncio.to_thread(self.server.restart)
        await self.admin.connection_pool.disconnect()
        await self._set_clock()

    async def pass_time(self, seconds: float) -> None:
        """Sleeps. A server that is full, or has lost its data, has the machine's clock from then on."""
        await asyncio.sleep(seconds)
        try:
            if await self.admin.exists(CLOCK):
                await self._set_clock()
        except OutOfMemoryError:
            await self.admin.delete(CLOCK)
        except NoConnectionError:  # it was restarted
            return

    async def restart_with_data(self) -> None:
        await self.admin.hset("meta", "run_id", "another")

    async def lose_all(self) -> None:
        await self.admin.flushall()
        await self._set_clock()

    async def lose_fences(self) -> None:
        await self.admin.delete("fences")

    async def activate(self, placement: int, version: int) -> None:
        cell = RedisCell(
            "c1", self.server.redis_url, SETTINGS, SKEW_US, SystemClock(), placement=(placement, version)
        )
        try:
            await cell.read_many([Read(KEY)])
        finally:
            await cell.stop()

    async def put_late(self, entry: Entry) -> Callable[[], Awaitable[None]]:
        await self.put(await self.entry(b"another"), key=Key.of(NS, "another"))  # the server knows the script
        cell = RedisCell("c1", self.server.redis_url, SHORT, SKEW_US, SystemClock())
        held: list[bytes] = []

        async def hold(command: bytes, check_health: bool = True) -> None:
            held.append(command)

        try:
            await cell.read_many([Read(KEY)])
            (connection,) = cell._connections._idle
            connection._connection.send_packed_command = hold  # type: ignore[assignment]  # the network
            (reply,) = await cell.put_many([Put(KEY, entry)])
            assert isinstance(reply, TierError)
        finally:
            await cell.stop()
        await self.pass_time(0.3)

        async def arrive() -> None:
            pool = Redis.from_url(self.server.redis_url).connection_pool
            connection = pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py
            await connection.connect()
            await connection.send_packed_command(held)
            await connection.read_response()
            await connection.disconnect()

        return arrive


@asynccontextmanager
async def memory_bench() -> AsyncIterator[CellBench]:
    yield MemoryBench()


@asynccontextmanager
async def redis_bench(server: RealServer) -> AsyncIterator[RedisBench]:
    admin = Redis.from_url(server.redis_url)
    bench = RedisBench(server, admin)
    with slow_clock():
        await bench.begin()
        # Connects; `start` would do so beside it and leave the number of connections to chance.
        await bench.settle()
        try:
            yield bench
        finally:
            await bench.cell.stop()
            await admin.aclose()
