"""One name of a queue leads to two live servers: what a position of one says at the other, which is nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from cachesvc.changes.broadcast.broadcast import Broadcast
from cachesvc.changes.broadcast.events import read_vector
from cachesvc.changes.contract import Done, OtherQueueError, epoch_of, position_of
from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.changes.redis.fences import RedisFenceStream
from cachesvc.model.change import Change
from cachesvc.model.clock import SystemClock
from cachesvc.model.fence import Fence
from tests.contracts.queue_benches import RETENTION, SKEW
from tests.contracts.test_demotion import Address
from tests.doubles.servers import RealServer, redis_server


@pytest.fixture(scope="module")
def first() -> Iterator[RealServer]:
    with redis_server(tcp=True) as running:
        yield running


@pytest.fixture(scope="module")
def second() -> Iterator[RealServer]:
    with redis_server(tcp=True) as running:
        yield running


@pytest.fixture
async def name(first: RealServer, second: RealServer) -> AsyncIterator[Address]:
    """It leads to the first server, and connections stay where they are when it moves."""
    for server in (first, second):
        async with Redis.from_url(server.redis_url) as admin:
            await admin.replicaof("NO", "ONE")
            await admin.flushall()
    async with Address() as address:
        address.leads_to = first
        yield address


class Following:
    """An instance's stream of fences, and what it tells its subscribers."""

    def __init__(self, url: str, instance: str) -> None:
        self.stream = RedisFenceStream(
            url, "here", skew=SKEW, retention=RETENTION, follower=("here", instance), incarnation=instance
        )
        self.broadcast = Broadcast(SystemClock(), int(SKEW), ["here"])
        self.position = ""

    async def __aenter__(self) -> "Following":
        start = await self.stream.open()
        self.broadcast.reset("here", start.position, start.floor, "begun")
        for _ in range(3):  # now each connection is made
            await self.read()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stream.stop()

    async def read(self) -> None:
        batch = await self.stream.read(wait_seconds=0.1)
        self.position = batch.position
        if batch.gap:
            self.broadcast.reset("here", batch.position, 1, "lost")
        self.broadcast.fences("here", batch.position, batch.fences)
        await self.stream.report(batch.position)

    async def fenced(self, digest: int) -> str:
        """Publishes a fence and merges it; its position."""
        await asyncio.sleep(0.002)
        position = await self.stream.publish([Fence(digest, 1)])
        while position_of(self.position) < position_of(position):
            await self.read()
        return position

    async def told(self, after: str) -> list[bytes]:
        """Returns the kinds of the events of a subscription that resumes after this position."""
        subscription = self.broadcast.subscribe(read_vector(f"here={after}"))
        events = self.broadcast.take(subscription).split(b"\n\n")[:-1]
        subscription.close()
        return [event.split(b"\n")[0].removeprefix(b"event: ") for event in events]


async def test_a_subscription_resumes_only_at_the_server_that_its_position_is_of(
    name: Address, second: RealServer
) -> None:
    async with Following(name.url, "i0") as i0:
        name.leads_to = second
        async with Following(name.url, "i1") as i1:
            begun = await i1.fenced(1)
            await i1.fenced(2)
            has = await i0.fenced(3)
            newest = await i1.fenced(4)
            assert position_of(begun) < position_of(has) < position_of(newest), "i1 has passed that place"
            assert epoch_of(begun) == epoch_of(newest) != epoch_of(has)
            assert (await i1.told(has))[0] == b"reset"
            assert (await i1.told(has.partition("@")[0]))[0] == b"reset", "an id of the old form"
            assert (await i1.told(begun))[:2] == [b"fences", b"fences"]


async def test_a_wait_compares_its_fence_with_the_followers_of_its_server_alone(
    name: Address, second: RealServer
) -> None:
    async with Following(name.url, "i0") as i0:
        name.leads_to = second
        async with Following(name.url, "i1") as i1:
            position = await i0.fenced(1)
            await i1.fenced(2)
            with pytest.raises(OtherQueueError):
                await i1.stream.followers(of=position)
            (found,) = await i0.stream.followers(of=position)
            assert (found.instance, found.position) == ("i0", position)
            assert [one.instance for one in await i1.stream.followers()] == ["i1"]


async def test_a_connection_to_another_server_moves_the_position_to_its_epoch_with_a_gap(
    name: Address, second: RealServer
) -> None:
    async with Following(name.url, "i0") as i0:
        before = await i0.fenced(1)
        name.leads_to = second
        await i0.stream.reconnect()
        batch = await i0.stream.read(wait_seconds=0.1)
        assert batch.gap
        assert epoch_of(batch.position) != epoch_of(before)
        assert epoch_of(await i0.fenced(2)) == epoch_of(batch.position)


async def test_a_receipt_that_a_promoted_replica_has_kept_is_compared_with_its_followers(
    name: Address, first: RealServer, second: RealServer
) -> None:
    changes = RedisChanges(name.url, "here")
    id_ = await changes.append(Change("docs", keys=("a",)))
    await changes.stop()
    async with Following(name.url, "i0") as i0:
        position = await i0.stream.publish([Fence(1, 1)], done=[Done(id_)])
        async with Redis.from_url(second.redis_url) as admin:
            await admin.replicaof("127.0.0.1", str(first.port))
            while not await admin.exists("fences"):  # noqa: ASYNC110  no event of ours
                await asyncio.sleep(0.01)
            await admin.replicaof("NO", "ONE")
        name.leads_to = second
        async with Following(name.url, "i1") as i1:
            kept = await i1.stream.receipt(id_)
            assert kept is not None
            assert position_of(kept.position) == position_of(position)
            assert epoch_of(kept.position) != epoch_of(position)
            (found, *_) = [one for one in await i1.stream.followers(of=kept.position) if one.instance == "i1"]
            assert position_of(found.position) >= position_of(kept.position)
