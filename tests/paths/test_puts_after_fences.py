"""Puts that known fences would refuse at first.

Each is stored such that it is read, or its answer says that it is not stored.
"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cachesvc.model.change import Target
from cachesvc.model.entry import Key
from cachesvc.model.errors import RequestError
from cachesvc.model.fence import Fence
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Draft, Outcome, ReadOptions, Written
from tests.doubles.clocks import LoopClock
from tests.doubles.memory_cell import MemoryCell
from tests.doubles.tiers import ChaosCell
from tests.paths.world import SKEW_US, FarSide, Instance

pytestmark = pytest.mark.looptime

K = Key.of("aside", "k")
PURGES: dict[str, Callable[[Instance], Awaitable[object]]] = {
    "namespace": lambda it: it.invalidate(ns="aside", whole=True),
    "tag": lambda it: it.invalidate(ns="aside", tags=["t"]),
    "soft namespace": lambda it: it.invalidate(ns="aside", whole=True, soft=True),
    "soft tag": lambda it: it.invalidate(ns="aside", tags=["t"], soft=True),
    "soft key": lambda it: it.invalidate("k", ns="aside", soft=True),
    "paced namespace": lambda it: it.invalidate(ns="aside", whole=True, over="1s"),
    "key": lambda it: it.invalidate("k", ns="aside"),
}


def elapsed() -> float:
    return asyncio.get_running_loop().time()


async def is_read_by_all(far: FarSide, writer: Instance, written: Written, value: bytes = b"v") -> None:
    """Asserts that the writer and others read the value, fresh, with and without its token."""
    token = ReadOptions(token=written.token)
    readers = [writer, writer, Instance(far), Instance(far)]
    for reader, options in zip(readers, (token, ReadOptions(), token, ReadOptions()), strict=True):
        answer = await reader.get("k", "aside", options)
        assert (answer.outcome, answer.entry and answer.entry.value) == (Outcome.HIT, value)
    far.l2.down = True
    for options in (token, ReadOptions()):
        assert (await Instance(far).get("k", "aside", options)).tier == "l3"
    far.l2.down = False


@pytest.mark.parametrize("skew_us", [-SKEW_US, 0, SKEW_US])
@pytest.mark.parametrize("purge", PURGES.values(), ids=PURGES)
async def test_a_put_just_after_a_purge_is_read(
    purge: Callable[[Instance], Awaitable[object]], skew_us: int
) -> None:
    far = FarSide()
    here = Instance(far, clock=LoopClock(skew_us))
    await here.put("k", b"old", tags=["t"])
    await purge(here)
    began = elapsed()
    written = await here.put("k", b"v", tags=["t"])
    assert written.stored
    assert elapsed() - began <= (2 * SKEW_US + 1000) / 1e6
    await is_read_by_all(far, here, written)


async def test_a_put_in_a_paced_window_does_not_become_stale_in_it() -> None:
    here = Instance()
    await here.invalidate(ns="aside", whole=True, over="1s")
    await here.put("k", b"v")
    await asyncio.sleep(2)
    assert (await here.get("k", "aside")).outcome is Outcome.HIT


@pytest.mark.parametrize("purge", PURGES.values(), ids=PURGES)
async def test_a_put_through_an_instance_that_has_not_merged_the_purge_yet_is_read(
    purge: Callable[[Instance], Awaitable[object]],
) -> None:
    far = FarSide()
    here, there = Instance(far), Instance(far)
    await purge(there)
    written = await here.put("k", b"v", tags=["t"])
    assert written.stored
    answer = await there.get("k", "aside", ReadOptions(token=written.token))
    assert answer.entry is not None
    assert answer.entry.value == b"v"


async def test_a_put_without_a_fence_of_its_own_does_not_wait() -> None:
    here = Instance()
    await here.invalidate(ns="aside", tags=["t"])
    began = elapsed()
    written = await here.put("k", b"v", tags=["u"])
    assert written.stored
    assert elapsed() == began


async def test_items_of_a_batch_do_not_wait_for_the_one_that_does() -> None:
    far = FarSide()
    here, there = Instance(far), Instance(far)
    await here.invalidate(ns="aside", tags=["t"])
    items = [(K, Draft(b"v", tags=("t",))), (Key.of("aside", "other"), Draft(b"w"))]
    writing = asyncio.create_task(here.writer.put_many(items))
    await asyncio.sleep(0.001)
    assert await there.value("other", "aside") == b"w"
    assert not writing.done()
    assert [written.stored for written in await writing] == [True, True]
    assert await there.value("k", "aside") == b"v"


async def test_the_old_value_is_gone_while_a_put_waits() -> None:
    far = FarSide()
    here, there = Instance(far), Instance(far)
    await here.put("k", b"old", tags=["u"])  # no fence on it
    await here.invalidate(ns="aside", tags=["t"])
    writing = asyncio.create_task(here.put("k", b"new", tags=["t"]))
    await asyncio.sleep(0.001)
    assert await here.value("k", "aside") is None
    far.l2.down = True
    assert await there.value("k", "aside") is None
    assert (await writing).stored


async def test_who_asks_for_the_lease_while_a_put_waits_gets_the_value_of_the_put() -> None:
    far = FarSide()
    here, there = Instance(far), Instance(far)
    await here.invalidate(ns="aside", whole=True)
    writing = asyncio.create_task(here.put("k", b"v"))
    await asyncio.sleep(0.001)
    answer = await there.get("k", "aside", ReadOptions(lease=True, wait_seconds=2.0))
    assert (answer.outcome, answer.entry and answer.entry.value) == (Outcome.HIT, b"v")
    assert (await writing).stored


@pytest.mark.parametrize("through", ["the same instance", "another"])
@pytest.mark.parametrize("purge", ["namespace", "tag", "key"])
async def test_an_invalidation_that_comes_while_a_put_waits_refuses_its_value(
    purge: str, through: str
) -> None:
    """The put was there before it, so it counts as stored, and no copy is kept."""
    far = FarSide()
    here, there = Instance(far), Instance(far)
    await here.invalidate(ns="aside", whole=True)
    writing = asyncio.create_task(here.put("k", b"v", tags=["t"]))
    await asyncio.sleep(0.05)
    await PURGES[purge](here if through == "the same instance" else there)
    assert (await writing).stored
    for reader in (here, there, Instance(far)):
        assert await reader.value("k", "aside") is None


async def test_of_two_puts_that_wait_the_later_one_is_kept_and_both_are_told_that_they_were_stored() -> None:
    far = FarSide()
    here, there = Instance(far), Instance(far)
    await here.invalidate(ns="aside", whole=True)
    first = asyncio.create_task(here.put("k", b"1"))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(there.put("k", b"2"))
    assert [written.stored for written in await asyncio.gather(first, second)] == [True, True]
    token = ReadOptions(token=second.result().token)
    for reader in (here, there, Instance(far)):
        answer = await reader.get("k", "aside", token)
        assert answer.entry is not None
        assert answer.entry.value == b"2"


async def test_of_two_conditional_puts_that_wait_one_wins() -> None:
    here = Instance()
    await here.invalidate(ns="aside", whole=True)
    puts = [here.writer.put(K, Draft(value, if_absent=True)) for value in (b"1", b"2")]
    first, second = await asyncio.gather(*puts)
    assert (first.stored, second.stored, second.reason) == (True, False, "precondition")
    assert await here.value("k", "aside") == b"1"


async def test_a_put_that_is_cancelled_while_it_waits_leaves_no_value_and_no_lease() -> None:
    far = FarSide()
    here = Instance(far)
    await here.put("k", b"old", tags=["u"])
    await here.invalidate(ns="aside", tags=["t"])
    writing = asyncio.create_task(here.put("k", b"new", tags=["t"]))
    await asyncio.sleep(0.05)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    answer = await here.get("k", "aside", ReadOptions(lease=True))
    assert (answer.outcome, bool(answer.lease)) == (Outcome.MISS, True)
    assert not far.queue.changes


async def test_a_put_whose_fence_cannot_be_published_is_not_stored_and_says_so() -> None:
    far = FarSide()
    here = Instance(far)
    await here.invalidate(ns="aside", whole=True)
    here.stream.down = True
    with pytest.raises(RequestError) as failed:
        await here.put("k", b"v")
    assert failed.value.kind is ProblemKind.FENCE_NOT_PUBLISHED
    here.stream.down = False
    assert (await here.get("k", "aside", ReadOptions(lease=True))).lease


async def test_a_put_says_so_if_its_home_was_lost_while_it_waited() -> None:
    far = FarSide()
    here = Instance(far)
    await here.invalidate(ns="aside", whole=True)
    writing = asyncio.create_task(here.put("k", b"v"))
    await asyncio.sleep(0.05)
    far.cell.cell.lose()
    with pytest.raises(RequestError) as failed:
        await writing
    assert failed.value.kind is ProblemKind.HOME_UNAVAILABLE


async def test_a_put_says_so_if_its_home_fails_while_it_waited() -> None:
    far = FarSide()
    here = Instance(far)
    await here.invalidate(ns="aside", whole=True)
    writing = asyncio.create_task(here.put("k", b"v"))
    await asyncio.sleep(0.05)
    far.cell.down = True
    with pytest.raises(RequestError) as failed:
        await writing
    assert failed.value.kind is ProblemKind.HOME_UNAVAILABLE


async def test_a_fence_that_a_wrong_clock_left_far_ahead_in_the_home_is_not_waited_for() -> None:
    """The clock of the home was an hour ahead and is set right.

    What is stored could not be read for an hour.
    """
    clock = LoopClock(3_600_000_000)
    far = FarSide()
    far.cell = ChaosCell(MemoryCell("c1", clock=clock, skew_us=SKEW_US))
    here = Instance(far)
    await here.put("k", b"old", tags=["u"])
    await far.cell.fence_many([Target.tag("aside", "t")], soft=False)
    clock.skew_us = 0
    began = elapsed()
    with pytest.raises(RequestError) as failed:
        await here.put("k", b"new", tags=["t"])
    assert (failed.value.kind, elapsed() - began) == (ProblemKind.FENCED_AHEAD, 0)
    assert await here.value("k", "aside") is None  # invalidated


async def test_a_time_far_ahead_that_this_instance_alone_knows_is_not_waited_for() -> None:
    """Its own clock was an hour ahead and is set right.

    Homes and other instances take and answer the value.
    """
    far = FarSide()
    clock = LoopClock(3_600_000_000)
    here = Instance(far, clock=clock)
    home = (("c1", far.cell.issuer),)
    here.merger.merge([Fence(Target.tag("aside", "t").digest, clock.now_us(), issuers=home)])
    clock.skew_us = 0
    began = elapsed()
    assert (await here.put("k", b"v", tags=["t"])).stored
    assert elapsed() == began
    assert (await here.get("k", "aside")).tier == "l3"
    assert await Instance(far).value("k", "aside") == b"v"


async def test_a_put_after_a_gap_is_read() -> None:
    far = FarSide()
    here = Instance(far)
    here.fences.raise_floor(far.clock.now_us() + 2 * SKEW_US + 1000, lost=True)
    written = await here.put("k", b"v")
    assert written.stored
    await is_read_by_all(far, here, written)


async def test_a_fill_under_a_lease_after_a_purge_is_told_that_it_was_not_stored() -> None:
    here = Instance()
    await here.invalidate(ns="aside", whole=True)
    lease = (await here.get("k", "aside", ReadOptions(lease=True))).lease
    written = await here.put("k", b"v", lease=lease)
    assert (written.stored, written.reason) == (False, "fenced")
