"""Purges: soft, paced, and what they would touch."""

import asyncio
import itertools

import pytest

from cachesvc.model.change import Change
from cachesvc.model.entry import Key
from cachesvc.model.requests import Outcome
from tests.doubles.loaders import loaded
from tests.paths.world import FarSide, Instance

pytestmark = pytest.mark.looptime
OVER_SECONDS = 30


async def test_a_paced_purge_makes_keys_stale_one_after_the_other_and_each_is_loaded_once() -> None:
    far = FarSide()
    here = Instance(far)
    keys = [f"k{number}" for number in range(100)]
    for key in keys:
        await here.value(key)
    far.loader.default = loaded(b"1")
    before = len(far.loader.calls)
    await here.invalidate(whole=True, over=f"{OVER_SECONDS}s")
    loads = []
    for _ in range(10):
        await asyncio.sleep(OVER_SECONDS / 10)
        answers = [await here.get(key) for key in keys]
        assert {answer.outcome for answer in answers} <= {Outcome.HIT, Outcome.STALE}, (
            "nobody waits for the origin"
        )
        await asyncio.sleep(0.1)
        loads.append(len(far.loader.calls) - before)
    assert loads[-1] == 100
    assert all(later > earlier for earlier, later in itertools.pairwise(loads)), "spread over the window"
    assert {await here.value(key) for key in keys} == {b"1"}


async def test_a_paced_purge_reaches_copies_in_l3_that_their_home_calls_fresh() -> None:
    far = FarSide()
    here = Instance(far)
    await here.value("a")
    await here.invalidate("a", over=f"{OVER_SECONDS}s")
    await asyncio.sleep(OVER_SECONDS + 1)
    here.l1.clear()
    far.l2.down = True
    far.loader.default = loaded(b"1")
    answer = await here.get("a")
    assert (answer.outcome, answer.tier) == (Outcome.STALE, "l3")
    await asyncio.sleep(1)
    assert await here.value("a") == b"1"


async def test_an_estimate_counts_and_changes_nothing() -> None:
    here = Instance()
    await here.put("a", b"0", tags=["menu"])
    await here.put("b", b"0", tags=["menu", "footer"])
    await here.value("d")
    for _ in range(256):
        here.reader.peek("aside", Key.of("aside", "a"))
    for change, entries, share in (
        (Change("aside", keys=("a", "x")), 1, 1.0),
        (Change("aside", tags=("menu",)), 2, 1.0),
        (Change("aside", tags=("footer",)), 1, 0.0),
        (Change("aside", all=True), 2, 1.0),
        (Change("docs", all=True), 1, 0.0),
    ):
        estimate = await here.invalidator.estimate(change)
        assert (estimate.l1_entries, estimate.recent_reads) == (entries, share)
    assert 2 <= estimate.sampled <= 8, "one hit in 64, in gaps of chance"
    assert estimate.cells == ("c1", "c2")
    assert (await here.invalidator.estimate(Change("aside", keys=("{elsewhere}:a",)))).cells == ("c2",)
    assert (await here.get("a", "aside")).tier == "l1"
