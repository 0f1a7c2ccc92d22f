"""`wait`: an invalidation that returns when everybody has merged its fence, or says who has not."""

import asyncio

import pytest

from cachesvc.model.change import Change
from cachesvc.model.errors import RequestError
from cachesvc.model.requests import InvalidateOptions, Reach
from tests.doubles.memory_queue import MemoryFenceStream
from tests.paths.running import Running, never, started, stop
from tests.paths.world import FarSide

pytestmark = pytest.mark.looptime


async def test_it_returns_when_every_instance_has_merged_the_fence() -> None:
    far = FarSide()
    one, two = await started(far, "one", "two")
    before = two.paths.fences.merged
    receipt = await one.paths.invalidate("a", wait=Reach.REGION)
    assert (receipt.reached, receipt.missing) == (True, ())
    assert two.paths.fences.merged == before + 1
    state = await two.paths.receipts.state(receipt.id)
    assert state is not None
    assert (state.state, state.merged, state.missing) == ("done", ("here/one", "here/two"), ())
    await stop(one, two)


async def test_who_has_not_merged_it_by_the_deadline_is_named() -> None:
    far = FarSide()
    one, two = await started(far, "one", "two")
    _deafen(two)
    await asyncio.sleep(1)
    options = InvalidateOptions(Reach.GLOBAL, timeout_seconds=1.0)
    receipt = await one.paths.invalidator.invalidate(Change("docs", keys=("a",)), options)
    assert (receipt.reached, receipt.missing) == (False, ("here/two",))
    assert receipt.applied
    await stop(one, two)


async def test_a_silent_instance_is_waited_for_until_it_can_answer_nothing_that_is_older_than_the_fence() -> (
    None
):
    far = FarSide()
    one, two = await started(far, "one", "two")
    _deafen(two)
    await asyncio.sleep(5)
    started_at = asyncio.get_running_loop().time()
    receipt = await one.paths.invalidate("a", wait=Reach.REGION)
    waited = asyncio.get_running_loop().time() - started_at
    assert receipt.reached
    assert 2.7 <= waited < 3.0, "max_lag + heartbeat + 2 S"
    await stop(one, two)


async def test_an_instance_that_stops_is_not_waited_for() -> None:
    far = FarSide()
    one, two = await started(far, "one", "two")
    await stop(two)
    await two.paths.stream.stop()
    started_at = asyncio.get_running_loop().time()
    assert (await one.paths.invalidate("a", wait=Reach.REGION)).reached
    assert asyncio.get_running_loop().time() - started_at < 0.5
    await stop(one)


async def test_instances_of_other_regions_are_waited_for_only_by_global() -> None:
    far = FarSide()
    (one,) = await started(far, "one")
    abroad = MemoryFenceStream(far.queue, "here", follower=("there", "far-away"))
    await abroad.open()
    options = InvalidateOptions(Reach.REGION, timeout_seconds=1.0)
    assert (await one.paths.invalidator.invalidate(Change("docs", keys=("a",)), options)).reached
    options = InvalidateOptions(Reach.GLOBAL, timeout_seconds=1.0)
    receipt = await one.paths.invalidator.invalidate(Change("docs", keys=("a",)), options)
    assert receipt.missing == ("there/far-away",)
    await stop(one)


async def test_while_the_queue_is_out_of_reach_nobody_knows() -> None:
    far = FarSide()
    (one,) = await started(far, "one")
    receipts, stream = one.paths.receipts, one.paths.stream
    position = (await one.paths.invalidate("a")).position
    stream.down = True
    assert await receipts.wait(position, InvalidateOptions(Reach.REGION, timeout_seconds=0.5)) == ("queue",)
    with pytest.raises(RequestError, match="does not answer") as refused:
        await receipts.state("here:1-0")
    assert refused.value.status == 503
    await stop(one)


async def test_an_id_that_nobody_knows_has_no_receipt() -> None:
    (one,) = await started(FarSide(), "one")
    assert await one.paths.receipts.state("here:1-0") is None
    with pytest.raises(RequestError, match="there is here"):
        await one.paths.receipts.state("hre:1-0")
    await stop(one)


def _deafen(running: Running) -> None:
    """It is cut off from the fences, and goes on serving."""
    running.paths.stream.queue.read = never
