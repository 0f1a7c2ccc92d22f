"""Traces of names that mean two things: a queue, a deployment, an instance."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from cachesvc_client.near.feed import NearFeed
from cachesvc_client.near.near import NOTHING, Near
from cachesvc_client.near.settings import NearSettings
from cachesvc_client.protocol.wire import Got
from cachesvc_client.values.codecs import BYTES, Schema

from cachesvc.app.tasks import Tasks
from cachesvc.changes.broadcast.events import read_vector
from cachesvc.changes.consume import WAIT_SECONDS
from cachesvc.changes.contract import position_of
from cachesvc.model.change import Change
from cachesvc.model.errors import TierTimeoutError
from cachesvc.model.requests import InvalidateOptions, Reach
from cachesvc.tiers.l3.contract import Claimed
from tests.doubles.memory_queue import MemoryChanges, MemoryFenceStream, MemoryQueue
from tests.paths.living import hang, living
from tests.paths.running import Running
from tests.paths.truth import Store
from tests.paths.world import FarSide

pytestmark = pytest.mark.looptime


def connected_to(one: Running, queue: MemoryQueue) -> None:
    """Leads the instance's streams to another server, as its queue's name does from now on."""
    one.paths.changes.queue = MemoryChanges(queue)
    one.paths.stream.queue = MemoryFenceStream(queue, "here", follower=("here", "other"))


@asynccontextmanager
async def of_two_queues(far: FarSide) -> AsyncIterator[tuple[Running, Running]]:
    """Two instances of one region whose queue's name leads each to a server of its own."""
    async with living(far, "i0") as i0:
        i1 = Running(far, "i1")
        connected_to(i1, MemoryQueue(far.clock))
        i1.start()
        try:
            yield i0, i1
        finally:
            await i1.stop()


async def test_trace_41_a_heartbeat_must_not_vouch_for_the_changes_of_another_server() -> None:
    """The connections for `changes` lead to the old server, the others to the new one."""
    far = FarSide()
    store = Store(far)
    async with living(far, "i1") as i1:
        await asyncio.sleep(2)
        assert await i1.paths.value("a") == b"0"
        i1.paths.changes.queue = MemoryChanges(MemoryQueue(far.clock))
        far.cell.down = far.other.down = True  # nobody can tell of two queues
        await asyncio.sleep(1)
        store.commit()
        await MemoryChanges(far.queue).append(Change("docs", keys=("a",)))
        await asyncio.sleep(5)
        assert await i1.paths.value("a") == b"1"
        assert i1.loops.consumer.beating.trouble or i1.bound_us() > 3_000_000


async def test_trace_42_instances_of_two_queues_of_one_name_must_not_believe_their_own_alone() -> None:
    """A change reaches i0's queue. i1 has heartbeats of its own, and never hears of it."""
    far = FarSide()
    store = Store(far)
    async with of_two_queues(far) as (i0, i1):
        await asyncio.sleep(2)
        assert await i1.paths.value("a") == b"0"
        store.commit()
        await i0.paths.changes.append(Change("docs", keys=("a",)))
        await asyncio.sleep(5)
        assert await i1.paths.value("a") == b"1"
        assert "queue" in i0.loops.rivals.said
        assert "queue" in i1.loops.rivals.said


async def test_trace_42_a_wait_must_not_end_while_instances_follow_another_queue() -> None:
    far = FarSide()
    store = Store(far)
    async with of_two_queues(far) as (i0, i1):
        await asyncio.sleep(2)
        assert await i1.paths.value("a") == b"0"
        store.commit()
        receipt = await i0.paths.invalidate("a", wait=Reach.REGION)
        assert not receipt.reached
        assert "another queue of here" in receipt.missing


async def test_trace_64_a_cell_that_hangs_must_not_let_the_notes_in_other_cells_end() -> None:
    """A note counts for less than the far cell's limit: one of the two believes its own queue."""
    far = FarSide()
    store = Store(far)

    async def hanging(*_: object) -> Claimed:
        await asyncio.sleep(4)
        raise TierTimeoutError("c2", "no answer")

    async with of_two_queues(far) as (i0, i1):
        await asyncio.sleep(2)
        far.other.claim = hanging  # type: ignore[method-assign]  # for this trace
        for change in range(1, 7):
            await i1.paths.value("a")
            await i0.paths.value("b")
            store.value = b"%d" % change
            await i0.paths.changes.append(Change("docs", keys=("a",)))
            await i1.paths.changes.append(Change("docs", keys=("b",)))
            await asyncio.sleep(4)
            assert await i1.paths.value("a") == await i0.paths.value("b") == store.value


async def test_trace_42_is_over_once_all_use_the_same_queue() -> None:
    far = FarSide()
    async with living(far, "i0") as i0, living(far, "i1") as i1:
        await asyncio.sleep(2)
        there = MemoryQueue(far.clock)
        connected_to(i1, there)
        await asyncio.sleep(4)
        assert i0.bound_us() > 2_000_000
        connected_to(i0, there)
        await asyncio.sleep(2)
        assert not i0.loops.rivals.said
        assert not i1.loops.rivals.said
        assert max(i0.bound_us(), i1.bound_us()) < 1_000_000


async def test_trace_43_a_second_deployment_must_not_take_the_changes_of_the_first() -> None:
    """It would apply them in its own cells, and the first one's L3 would answer 0."""
    far, copied = FarSide(), FarSide()
    copied.queue = far.queue
    store = Store(far)
    async with living(far, "i1") as i1:
        await asyncio.sleep(2)
        assert await i1.paths.value("a") == b"0"
        async with living(copied, "j1") as j1:
            await asyncio.sleep(2)
            i1.paths.changes.queue.take = hang
            await asyncio.sleep(WAIT_SECONDS + 0.5)  # a call that waits already is over
            store.commit()
            await i1.paths.changes.append(Change("docs", keys=("a",)))
            await asyncio.sleep(5)
            assert j1.tally.changes == 0
            assert not j1.consumer.has_tried
            assert "deployment" in i1.loops.rivals.said
            assert await i1.paths.value("a") == b"1"


async def test_trace_44_a_wait_must_not_end_while_a_second_instance_of_a_name_answers_0() -> None:
    far = FarSide()
    store = Store(far)
    async with living(far, "i0") as one, living(far, "i0") as two:
        await asyncio.sleep(2)
        assert await two.paths.value("a") == b"0"
        two.paths.stream.queue.read = hang
        await asyncio.sleep(0.6)
        store.commit()
        receipt = await one.paths.invalidate("a", wait=Reach.REGION)
        assert not receipt.reached or await two.paths.value("a") == b"1"
        assert "instance" in one.loops.rivals.said
        assert "instance" in two.loops.rivals.said


class NearCache:
    """The SDK's near cache of `docs` in a process, and its subscription to one instance after another."""

    def __init__(self) -> None:
        self._now = asyncio.get_running_loop().time
        near = Near(self._now, lambda digest, at: None)
        self.shelf = near.shelf("docs", NearSettings(), Schema(BYTES))
        self.feed = NearFeed(near, lambda: ["http://instance"], random.Random(1))

    def follow(self, one: Running) -> None:
        """Subscribes where it was, and reads all that there is by now."""
        after = read_vector(self.feed.last_id) if self.feed.last_id else None
        subscription = one.broadcast.subscribe(after)
        self.feed.opened(200)
        while events := one.broadcast.take(subscription):
            self.feed.received(events)
        subscription.close()

    async def load(self, one: Running) -> bool:
        """Reads `a` at the instance; true if the value is kept."""
        entry = (await one.paths.get("a")).entry
        assert entry is not None
        return self.shelf.keep("a", Got("hit", entry.value, ttl=60, as_of=entry.as_of), self._now())

    @property
    def value(self) -> bytes | None:
        found = self.shelf.value("a")
        return None if found is NOTHING else found


async def test_trace_49_a_near_cache_must_not_resume_at_another_queue_as_if_it_were_the_same() -> None:
    """The fence is at i1's queue before the position that the near cache has from i0's."""
    far = FarSide()
    store = Store(far)
    async with living(far, "i0") as i0, living(far, "i1") as i1:
        await asyncio.sleep(2)
        near = NearCache()
        near.follow(i0)
        connected_to(i1, MemoryQueue(far.clock))
        await asyncio.sleep(0.8)
        assert await near.load(i0), "later than i1's floor, which heartbeats tell"
        store.commit()
        fence = (await i1.paths.invalidate("a")).position
        await asyncio.sleep(0.01)
        await i0.paths.invalidate("b")
        await asyncio.sleep(0.01)
        near.follow(i0)
        assert near.value == b"0", "i0 cannot know of the write"
        assert position_of(near.feed.last_id.partition("=")[2]) > position_of(fence)
        await i1.paths.invalidate("c")
        await asyncio.sleep(0.01)
        near.follow(i1)
        assert near.value != b"0"


async def test_a_near_cache_resumes_at_another_instance_of_the_same_queue() -> None:
    far = FarSide()
    async with living(far, "i0") as i0, living(far, "i1") as i1:
        await asyncio.sleep(2)
        near = NearCache()
        near.follow(i0)
        await asyncio.sleep(1)
        assert await near.load(i0)
        near.follow(i1)
        assert near.value == b"value of a"
        assert near.feed.resets == 1, "the first subscription's"


async def test_trace_50_a_wait_must_not_end_by_positions_of_another_queue() -> None:
    """The fence is published at one server, and the followers of another one are listed."""
    far = FarSide()
    store = Store(far)
    async with living(far, "i0") as i0, living(far, "i1") as i1:
        await asyncio.sleep(2)
        far.cell.down = far.other.down = True  # nobody can tell of two queues
        there = MemoryQueue(far.clock)
        connected_to(i1, there)
        await asyncio.sleep(1)
        assert await i1.paths.value("a") == b"0"
        store.commit()
        position = (await i0.paths.invalidate("a")).position
        i0.paths.stream.queue = MemoryFenceStream(there, "here")
        await asyncio.sleep(1)
        missing = await i0.paths.receipts.wait(position, InvalidateOptions(Reach.REGION, timeout_seconds=0.5))
        assert missing or await i1.paths.value("a") == b"1"


@asynccontextmanager
async def suspended(far: FarSide, others: Running) -> AsyncIterator[Running]:
    """An instance that stood still for 20 s, while others went on to another queue; in its first second.

    Its loop that looks for rivals has not had its turn yet.
    """
    one = Running(far, "i1")
    one.start()
    await asyncio.sleep(2)
    assert await one.paths.value("a") == b"0"
    await one.tasks.stop()
    connected_to(others, MemoryQueue(far.clock))
    await asyncio.sleep(20)
    one.tasks = Tasks()
    for loop, name in one.loops.loops():
        if name == one.loops.rivals.loop.name:
            loop.close()
        else:
            one.tasks.spawn(loop, name)
    try:
        yield one
    finally:
        await one.stop()


async def test_trace_62_an_instance_that_stood_still_must_not_vouch_for_a_queue_that_was_left() -> None:
    """Its host and the queue's server stood still together, so nothing failed there."""
    far = FarSide()
    store = Store(far)
    async with living(far, "i0") as i0, suspended(far, i0) as i1:
        store.commit()
        await i0.paths.changes.append(Change("docs", keys=("a",)))
        for _ in range(200):
            await asyncio.sleep(0.01)
            if i1.bound_us() < 1_000_000:
                break
        assert await i1.paths.value("a") == b"1"
