"""Traces of relays: what an instance is told of `fences` by another one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from cachesvc.changes.consume import WAIT_SECONDS
from cachesvc.changes.relay.follower import FIRST_PAUSE_SECONDS
from cachesvc.model.change import Change
from tests.doubles.memory_queue import MemoryFenceStream, MemoryQueue
from tests.doubles.relays import RelayDoor
from tests.paths.living import living
from tests.paths.running import Running, never
from tests.paths.truth import Store
from tests.paths.world import FarSide, Instance

pytestmark = pytest.mark.looptime

MAX_LAG_US = 2_000_000


@asynccontextmanager
async def relayed(far: FarSide) -> AsyncIterator[tuple[Running, RelayDoor, Running]]:
    """A relay, the way to it, and an instance that follows it; both in time."""
    async with living(far, "r") as relay:
        door = RelayDoor(lambda: relay.relay)
        async with living(far, "i1", consuming=False, ways=[door.way]) as i1:
            await asyncio.sleep(3)
            assert i1.follower.is_relayed
            assert i1.bound_us() < 1_000_000
            yield relay, door, i1


async def test_trace_67_a_relay_that_begins_later_must_not_hide_what_was_before() -> None:
    far = FarSide()
    store = Store(far)
    async with relayed(far) as (relay, door, i1):
        assert await i1.paths.value("a") == b"0"
        i1.paths.stream.down = door.is_away = True  # and its connection to r is cut
        relay.relay.end()
        await asyncio.sleep(0.01)
        store.commit()
        await Instance(far).invalidate("a")
        await asyncio.sleep(0.01)
        relay.relay.begin(relay.follower.position)  # r was started again
        await asyncio.sleep(3 * FIRST_PAUSE_SECONDS)
        i1.paths.stream.down = door.is_away = False
        door.way.retry_at = 0.0
        await asyncio.sleep(5)
        assert i1.bound_us() < 1_000_000
        assert await i1.paths.value("a") == b"1"
        assert i1.heard.gaps == 0


async def test_trace_68_a_relay_of_another_server_must_not_vouch() -> None:
    far, other = FarSide(), FarSide()
    far.cell, far.other, far.l2 = other.cell, other.other, other.l2
    store = Store(far)
    await MemoryFenceStream(other.queue, "here", skew_us=0, retention_us=1 << 40).heartbeat(
        far.clock.now_us(), other.queue.epoch_of_changes
    )
    promote(other.queue, far.queue)
    async with living(other, "r") as relay:
        door = RelayDoor(lambda: relay.relay)
        await asyncio.sleep(0.1)
        async with living(far, "i1", consuming=False, ways=[door.way]) as i1:
            await asyncio.sleep(3)
            i1.paths.fences.watermark = 1 << 62
            assert await i1.paths.value("a") == b"0"
            store.commit()
            await Instance(far).invalidate("a")
            await asyncio.sleep(3)
            assert await i1.paths.value("a") == b"1"


def promote(old: MemoryQueue, new: MemoryQueue) -> None:
    """`new` is a replica of `old`, and is promoted."""
    new.fences[:] = old.fences
    new.epoch = old.epoch + 1


async def test_trace_69_a_relay_that_stands_still_must_be_gone_around() -> None:
    far = FarSide()
    async with relayed(far) as (_, door, i1):
        door.stop()
        for _ in range(50):
            await asyncio.sleep(0.2)
            assert i1.bound_us() < MAX_LAG_US
        door.go_on()
        await asyncio.sleep(30)
        assert i1.follower.is_relayed, "it comes back"


async def test_trace_69_relays_that_follow_each_other_must_not_wait_for_each_other() -> None:
    far = FarSide()
    async with living(far, "consumer"):
        running: list[Running] = []
        to_0, to_1 = RelayDoor(lambda: running[0].relay), RelayDoor(lambda: running[1].relay)
        async with (
            living(far, "i0", consuming=False, ways=[to_1.way]) as i0,
            living(far, "i1", consuming=False, ways=[to_0.way]) as i1,
        ):
            running += i0, i1
            await asyncio.sleep(3)
            for _ in range(50):
                await asyncio.sleep(0.2)
                assert max(i0.bound_us(), i1.bound_us()) < MAX_LAG_US


async def test_trace_70_a_relay_must_not_keep_back_what_it_cannot_read() -> None:
    far = FarSide()
    store = Store(far)
    async with relayed(far) as (_, _door, i1):
        assert await i1.paths.value("a") == b"0"
        store.commit()
        await Instance(far).invalidate("a")
        item = far.queue.fences[-1]  # before r has read it
        far.queue.fences[-1] = replace(item, fields={**item.fields, b"p": item.fields[b"p"][:-1]})
        await asyncio.sleep(0.6)  # heartbeats go on
        assert i1.follower.is_relayed
        assert (i1.heard.gaps, i1.heard.unreadable) == (1, 1)
        assert await i1.paths.value("a") == b"1"


async def test_trace_71_what_the_first_worker_leaves_open_must_be_done_by_another() -> None:
    far = FarSide()
    store = Store(far)
    async with living(far, "first") as first:
        door = RelayDoor(lambda: first.relay, "host")
        async with living(far, "i1", ways=[door.way]) as i1:
            await asyncio.sleep(3)
            before = len(i1.paths.changes.calls)
            await asyncio.sleep(5)
            assert i1.paths.changes.calls[before:] == [], "it rests"
            assert (i1.tally.backlog, i1.tally.buried) == (None, None), "and does not know"
            assert await i1.paths.value("a") == b"0"
            setattr(first.paths.changes.queue, "take", never)  # noqa: B010  its heartbeats go on
            setattr(first.paths.changes.queue, "reclaim", never)  # noqa: B010
            await asyncio.sleep(WAIT_SECONDS + 0.5)  # a call that waits already is over
            before = len(i1.paths.changes.calls)
            store.commit()
            await i1.paths.changes.append(Change("docs", keys=("a",)))
            await asyncio.sleep(5)
            assert await i1.paths.value("a") == b"1"
            assert i1.bound_us() < MAX_LAG_US
            del i1.paths.changes.calls[:]
            await asyncio.sleep(5)
            assert i1.paths.changes.calls == [], "and rests again"


async def test_a_worker_works_at_once_when_the_first_one_is_gone() -> None:
    far = FarSide()
    first = Running(far, "first")
    first.start()
    door = RelayDoor(lambda: first.relay, "host")
    async with living(far, "i1", ways=[door.way]) as i1:
        await asyncio.sleep(5)
        await first.stop()
        door.is_away = True
        first.relay.end()
        for _ in range(50):
            await asyncio.sleep(0.2)
            assert i1.bound_us() < MAX_LAG_US
