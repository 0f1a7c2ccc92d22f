"""Changes that others take out of `changes`, or out of its group, on real servers.

What was added, closed and is open must add up: a change that was lost is another epoch, and one
that is still in the stream is applied, whatever the group says of it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from cachesvc.changes.contract import Done, OtherQueueError, Parked, position_of
from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.model.change import Change, Target
from cachesvc.model.errors import TierUnavailableError
from cachesvc.model.fence import Fence
from tests.contracts.queue_benches import RedisBench, redis_bench
from tests.doubles.servers import RealServer, redis_server, valkey_server

CHANGE = Change("docs", keys=("a",))
EVENT: Any = {"event": "x"}


@pytest.fixture(scope="module", params=[redis_server, valkey_server])
def server(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    with request.param() as running:
        yield running


@pytest.fixture
async def bench(server: RealServer) -> AsyncIterator[RedisBench]:
    async with redis_bench(server) as found:
        yield found


async def closed(bench: RedisBench, id_: str, how: str) -> None:
    if how == "acknowledged":
        await bench.changes.acknowledge([id_])
    elif how == "published":
        await bench.stream().publish([Fence(1, 1)], done=[Done(id_)])
    elif how == "parked":
        await bench.stream().publish(
            [Fence(1, 1)], done=[Done(id_, (Parked("c1", 1, 0, Target.key("docs", "a")),))]
        )
    else:
        (taken,) = await bench.changes.take("c", count=1, wait_seconds=0.01)
        await bench.changes.bury(taken)


@pytest.mark.parametrize("how", ["acknowledged", "published", "parked", "buried"])
async def test_changes_that_are_closed_are_not_lost(bench: RedisBench, how: str) -> None:
    epoch = (await bench.changes.completion()).epoch
    for _ in range(3):
        id_ = await bench.changes.append(CHANGE)
        assert (await bench.changes.completion()).epoch == epoch
        await closed(bench, id_, how)
        await bench.changes.acknowledge([id_, id_])
        assert ((await bench.changes.completion()).epoch, (await bench.changes.completion()).lost) == (
            epoch,
            0,
        )


async def ids(admin: "Redis") -> list[bytes]:
    """The changes that are in the stream."""
    items: Any = await admin.xrange("changes")
    return [id_ for id_, _ in items]


async def by_maxlen(bench: RedisBench) -> None:
    await bench.admin.xadd("changes", EVENT, maxlen=2, approximate=False)


async def by_minid(bench: RedisBench) -> None:
    second = (await ids(bench.admin))[1]
    await bench.admin.xadd("changes", EVENT, minid=second, approximate=False)


async def by_trim(bench: RedisBench) -> None:
    await bench.admin.xtrim("changes", maxlen=1, approximate=False)


async def by_deletion(bench: RedisBench) -> None:
    await bench.admin.xdel("changes", (await ids(bench.admin))[0])


async def by_deletion_of_the_newest(bench: RedisBench) -> None:
    await bench.admin.xdel("changes", (await ids(bench.admin))[-1])


async def by_trim_to_nothing(bench: RedisBench) -> None:
    await bench.admin.xtrim("changes", maxlen=0, approximate=False)


async def by_another_stream_of_that_name(bench: RedisBench) -> None:
    await bench.admin.delete("changes")
    await bench.admin.xadd("changes", EVENT)
    await bench.admin.xgroup_create("changes", "cachesvc", "0")


async def by_another_group(bench: RedisBench) -> None:
    """The new group is at the end: for it, nothing is undelivered and nothing pending."""
    await bench.admin.xgroup_destroy("changes", "cachesvc")


LOSSES = [
    by_maxlen,
    by_minid,
    by_trim,
    by_deletion,
    by_deletion_of_the_newest,
    by_trim_to_nothing,
    by_another_stream_of_that_name,
    by_another_group,
]


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
@pytest.mark.parametrize("lose", LOSSES)
async def test_a_loss_is_another_epoch(
    bench: RedisBench, lose: Callable[[RedisBench], Awaitable[None]], taken: bool
) -> None:
    epoch = await bench.announce()
    for _ in range(2):
        await bench.changes.append(CHANGE)
    if taken:
        await bench.changes.take("c", count=10, wait_seconds=0.01)
    await lose(bench)
    completion = await bench.changes.completion()
    assert completion.epoch != epoch
    assert not completion.announced
    with pytest.raises(OtherQueueError):
        await bench.stream().heartbeat(completion.complete_to, epoch)
    assert await bench.announce() == completion.epoch
    await bench.stream().heartbeat(completion.complete_to, completion.epoch)
    assert await bench.changes.reclaim("c", idle_seconds=0, count=10) is not None
    assert (await bench.changes.completion()).epoch == completion.epoch, "a loss is announced once"


async def test_two_losses_are_two_epochs(bench: RedisBench) -> None:
    seen = [(await bench.changes.completion()).epoch]
    for _ in range(2):
        await bench.changes.append(CHANGE)
        await bench.admin.xtrim("changes", maxlen=0, approximate=False)
        seen.append((await bench.changes.completion()).epoch)
    assert len(set(seen)) == 3
    assert (await bench.changes.completion()).lost == 2


async def by_deleted_consumer(admin: "Redis") -> None:
    await admin.xgroup_delconsumer("changes", "cachesvc", "c")


async def by_foreign_acknowledgement(admin: "Redis") -> None:
    for id_ in await ids(admin):
        await admin.xack("changes", "cachesvc", id_)


async def by_group_made_anew(admin: "Redis") -> None:
    await admin.xgroup_destroy("changes", "cachesvc")
    await admin.xgroup_create("changes", "cachesvc", "$")


async def by_group_set_forward(admin: "Redis") -> None:
    await admin.xgroup_delconsumer("changes", "cachesvc", "c")
    await admin.xgroup_setid("changes", "cachesvc", "$")


async def by_reader_without_acknowledgement(admin: "Redis") -> None:
    await admin.xgroup_setid("changes", "cachesvc", "0")
    await admin.xgroup_delconsumer("changes", "cachesvc", "c")
    await admin.xreadgroup("cachesvc", "x", {"changes": ">"}, noack=True)


@pytest.mark.parametrize(
    "orphan",
    [
        by_deleted_consumer,
        by_foreign_acknowledgement,
        by_group_made_anew,
        by_group_set_forward,
        by_reader_without_acknowledgement,
    ],
)
async def test_a_change_that_nobody_is_to_be_given_is_adopted(
    bench: RedisBench, orphan: Callable[["Redis"], Awaitable[None]]
) -> None:
    accepted = [await bench.changes.append(CHANGE) for _ in range(3)]
    await bench.changes.take("c", count=10, wait_seconds=0.01)
    await orphan(bench.admin)
    assert (await bench.changes.completion()).oldest == accepted[0]
    assert (await bench.changes.completion()).complete_to <= position_of(accepted[0])[0] * 1000
    adopted = await bench.changes.reclaim("d", idle_seconds=0, count=10)
    assert [change.id for change in adopted] == accepted
    await bench.changes.acknowledge(accepted)
    assert (await bench.changes.completion()).oldest == ""
    assert await bench.changes.reclaim("d", idle_seconds=0, count=10) == []


async def test_a_change_that_a_consumer_has_is_not_adopted(bench: RedisBench) -> None:
    """Nor one that is young: its consumer has just got it, and works on it."""
    await bench.changes.append(CHANGE)
    await bench.changes.take("c", count=10, wait_seconds=0.01)
    assert await bench.changes.reclaim("d", idle_seconds=60, count=10) == []
    await bench.admin.xgroup_delconsumer("changes", "cachesvc", "c")
    assert await bench.changes.reclaim("d", idle_seconds=60, count=10) == []
    assert len(await bench.changes.reclaim("d", idle_seconds=0, count=10)) == 1


async def test_what_was_taken_and_is_gone_is_not_given_again(bench: RedisBench) -> None:
    """XAUTOCLAIM answers its ids apart, and takes them out of the group's list."""
    await bench.changes.append(CHANGE)
    kept = await bench.changes.append(CHANGE)
    await bench.changes.take("c", count=10, wait_seconds=0.01)
    await by_deletion(bench)
    assert [change.id for change in await bench.changes.reclaim("d", idle_seconds=0, count=10)] == [kept]
    assert (await bench.changes.completion()).lost == 1


async def test_a_stream_that_was_there_before_its_group(bench: RedisBench) -> None:
    """Producers may come first; what they trimmed then was never promised to be kept."""
    await bench.admin.xadd("changes", EVENT)
    await bench.admin.xadd("changes", EVENT, maxlen=1, approximate=False)
    first = await bench.announce()
    assert (await bench.changes.completion()).epoch == first


async def consumers(admin: "Redis") -> list[bytes]:
    found: Any = await admin.xinfo_consumers("changes", "cachesvc")
    return sorted(one["name"] for one in found)


async def test_the_group_keeps_the_mark_of_its_epoch_when_consumers_are_forgotten(bench: RedisBench) -> None:
    """Without the mark the group would be a new one, and every namespace would be fenced."""
    epoch = await bench.announce()
    for name in ("a", "b"):
        id_ = await bench.changes.append(CHANGE)
        await bench.changes.take(name, count=1, wait_seconds=0.01)
        await bench.changes.acknowledge([id_])
    (mark,) = [name for name in await consumers(bench.admin) if name.startswith(b"epoch ")]
    assert await consumers(bench.admin) == [b"a", b"b", mark]
    assert await bench.changes.forget_consumers(idle_seconds=0) == 2
    assert await consumers(bench.admin) == [mark]
    completion = await bench.changes.completion()
    assert (completion.epoch, completion.announced) == (epoch, True)


async def test_a_replica_says_nothing(bench: RedisBench) -> None:
    """Its clients stay connected, and reads work there, of what its master had."""
    stream = bench.stream()
    await stream.open()
    await bench.announce()
    await bench.admin.replicaof("127.0.0.1", "1")
    changes = RedisChanges(bench.server.redis_url, "here")
    try:
        with pytest.raises(TierUnavailableError, match=r"replica|MASTERDOWN"):
            await stream.read(wait_seconds=0.01)
        with pytest.raises(TierUnavailableError, match=r"replica|MASTERDOWN"):
            await stream.followers()
        with pytest.raises(TierUnavailableError, match=r"replica|MASTERDOWN"):
            await stream.receipt("1-1")
        with pytest.raises(TierUnavailableError, match=r"replica|MASTERDOWN"):
            await changes.completion()
    finally:
        await bench.admin.replicaof("NO", "ONE")
        await changes.stop()
