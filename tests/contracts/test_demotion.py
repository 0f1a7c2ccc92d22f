"""A cell's or queue's server is made a replica while another takes over its address.

The connections to the demoted server stay open: it answers, and refuses what it is asked to write.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest
from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError, MasterDownError, ReadOnlyError, RedisError, ResponseError

from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.changes.redis.fences import RedisFenceStream
from cachesvc.model.change import Change, Target
from cachesvc.model.clock import SystemClock
from cachesvc.model.entry import Key
from cachesvc.model.errors import TierError, TierUnavailableError
from cachesvc.model.fence import Fence
from cachesvc.model.units import Duration
from cachesvc.tiers.l3.contract import FenceReply, Read
from cachesvc.tiers.l3.redis_cell import RedisCell
from cachesvc.tiers.redis_connections import is_demotion
from tests.contracts.cell_benches import SETTINGS, SKEW_US
from tests.doubles.servers import RealServer, redis_server

CHANGE = Change("docs", keys=("a",))
SKEW, RETENTION = Duration.parse("100ms"), Duration.parse("1h")


class Address:
    """A TCP address that leads new connections to the server it was given last; old ones stay."""

    def __init__(self) -> None:
        self.leads_to: RealServer | None = None
        self.port = 0
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> "Address":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self.leads_to is not None
        up, down = await asyncio.open_connection("127.0.0.1", self.leads_to.port)
        self.connections += 1
        self._open |= {writer, down}
        with suppress(asyncio.CancelledError):  # the end of the test
            await asyncio.gather(_carry(reader, down), _carry(up, writer))


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
    writer.close()


@pytest.fixture(scope="module")
def first() -> Iterator[RealServer]:
    with redis_server(tcp=True) as running:
        yield running


@pytest.fixture(scope="module")
def second() -> Iterator[RealServer]:
    with redis_server(tcp=True) as running:
        yield running


class Failover:
    """An address, its server, and the server that takes over."""

    def __init__(self, address: Address, old: RealServer, new: RealServer) -> None:
        self.address, self.old, self.new = address, old, new

    async def happens(self) -> None:
        """The old server follows the new one, and the address leads to the new one."""
        self.address.leads_to = self.new
        async with Redis.from_url(self.old.redis_url) as admin:
            await admin.replicaof("127.0.0.1", str(self.new.port))


@pytest.fixture
async def failover(first: RealServer, second: RealServer) -> AsyncIterator[Failover]:
    for server in (first, second):
        async with Redis.from_url(server.redis_url) as admin:
            await admin.replicaof("NO", "ONE")
            await admin.config_set("min-replicas-to-write", 0)
            await admin.flushall()
    async with Address() as address:
        address.leads_to = first
        yield Failover(address, first, second)


async def test_writes_to_a_queue_reach_the_server_that_took_over(failover: Failover) -> None:
    changes = RedisChanges(failover.address.url, "here")
    await asyncio.gather(*(changes.append(CHANGE) for _ in range(8)))
    await failover.happens()
    with pytest.raises(TierUnavailableError):
        await changes.append(CHANGE)
    await asyncio.gather(*(changes.append(CHANGE) for _ in range(8)))
    assert ((await changes.completion()).count).backlog == 8
    await changes.stop()


async def test_a_queue_server_that_was_a_replica_meanwhile_is_another_epoch(
    failover: Failover,
) -> None:
    """Trace 60 with two servers: a → b → a, and b, which lacked a's last items, had no visitor."""
    a, b = failover.old, failover.new
    changes = RedisChanges(a.redis_url, "here")
    stream = RedisFenceStream(a.redis_url, "here", skew=SKEW, retention=RETENTION)
    publisher = RedisFenceStream(a.redis_url, "here", skew=SKEW, retention=RETENTION)
    async with Redis.from_url(a.redis_url) as of_a, Redis.from_url(b.redis_url) as of_b:
        await publisher.publish([Fence(1, 1)])
        await stream.open()
        while (await stream.read(wait_seconds=0)).fences:
            pass
        before = await changes.completion()
        await follows(of_b, a)
        await of_b.replicaof("NO", "ONE")
        await changes.append(CHANGE)
        await publisher.publish([Fence(2, 2)])
        await follows(of_a, b)
        await of_a.replicaof("NO", "ONE")
        assert not await of_a.xrange("changes")
        assert (await stream.read(wait_seconds=0)).gap
        after = await changes.completion()
        assert after.epoch != before.epoch
        assert not after.announced
    for one in (changes, stream, publisher):
        await one.stop()


async def follows(admin: Redis, server: RealServer) -> None:
    """Makes a server a replica of another one, and returns when it has its data."""
    await admin.replicaof("127.0.0.1", str(server.port))
    while (await admin.info("replication"))["master_link_status"] != "up":  # noqa: ASYNC110  no event of ours
        await asyncio.sleep(0.01)


async def until_subscribed(admin: Redis) -> None:
    """Returns when a client of the server waits for what is pushed."""
    while not (await admin.pubsub_channels()):  # noqa: ASYNC110  no event of ours
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("old", ["demoted", "cut off"])
async def test_a_waiting_reader_of_a_queue_finds_the_server_that_took_over(
    failover: Failover, old: str
) -> None:
    """A demotion is met by the look after a wait; a master that was cut off refuses a write."""
    stream = RedisFenceStream(
        failover.address.url, "here", skew=SKEW, retention=RETENTION, follower=("eu", "eu-a")
    )
    await stream.publish([Fence(1, 1)])
    await stream.open()
    while (await stream.read(wait_seconds=0.01)).fences:
        pass
    # Calls of two kinds at once need two connections: one waits below, the other is left idle.
    await asyncio.gather(stream.followers(), stream.receipt("1-0"))
    async with Redis.from_url(failover.old.redis_url) as admin:
        waiting = asyncio.create_task(stream.read(wait_seconds=1 if old == "demoted" else 30))
        await until_subscribed(admin)
        if old == "demoted":
            await failover.happens()
        else:
            failover.address.leads_to = failover.new
            await admin.config_set("min-replicas-to-write", 1)
            with pytest.raises(TierUnavailableError, match="NOREPLICAS"):
                await stream.publish([Fence(2, 2)])
    with pytest.raises(TierUnavailableError):
        await asyncio.wait_for(waiting, 10)
    await stream.publish([Fence(3, 3)])
    seen: list[Fence] = []
    while Fence(3, 3) not in seen:
        seen += (await stream.read(wait_seconds=1)).fences
    await stream.stop()


async def test_every_connection_to_a_cell_leaves_the_demoted_server(failover: Failover) -> None:
    cell = RedisCell("c1", failover.address.url, SETTINGS, SKEW_US, SystemClock())
    target = Target.key("docs", "a")

    async def fence() -> FenceReply | TierError:
        (at,) = await cell.fence_many([target], soft=False)
        return at

    async def fenced() -> None:
        while isinstance(await fence(), TierError):  # noqa: ASYNC110  another process sets no event of ours
            await asyncio.sleep(0.01)

    try:
        await fenced()
        await asyncio.gather(cell.read_many([Read(Key.of("docs", "a"))]), fence())
        assert cell.statistics().idle > 1
        await failover.happens()
        asked = await calls(failover.old)
        assert isinstance(await fence(), TierUnavailableError)
        assert cell.statistics().idle == 0
        await fenced()
        assert not isinstance((await cell.read_many([Read(Key.of("docs", "a"))]))[0], TierError)
        assert await calls(failover.old) == asked + 1
    finally:
        await cell.stop()


async def calls(server: RealServer) -> int:
    """Script calls that the server was asked for."""
    async with Redis.from_url(server.redis_url) as admin:
        stats = await admin.info("commandstats")
    return int(stats["cmdstat_evalsha"]["calls"])


@pytest.mark.parametrize(
    ("reply", "demotion"),
    [
        (ReadOnlyError("You can't write against a read only replica."), True),
        (MasterDownError("Link with MASTER is down and replica-serve-stale-data is set to 'no'."), True),
        (BusyLoadingError("Redis is loading the dataset in memory"), True),
        (ResponseError("NOREPLICAS Not enough good replicas to write."), True),
        (ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"), True),
        (
            ResponseError(
                "Error running script (call to f_0): @user_script:7: -READONLY You can't write against a"
                " read only replica. "
            ),
            True,
        ),
        (ResponseError("MISCONF Redis is configured to save RDB snapshots, but it is currently"), False),
        (ResponseError("OOM command not allowed when used memory > 'maxmemory'."), False),
        (ResponseError("NOGROUP No such key 'changes'"), False),
        (ResponseError("BUSY Redis is busy running a script."), False),
    ],
)
def test_which_replies_tell_of_a_demotion(reply: RedisError, demotion: bool) -> None:
    assert is_demotion(reply) is demotion
