"""What the paths count for the report: who answered, why copies were refused, and the followed keys."""

import asyncio

import pytest

from cachesvc.model.entry import Key
from cachesvc.model.requests import ReadOptions
from cachesvc.telemetry.ghosts import MASK
from tests.paths.world import FarSide, Instance

pytestmark = pytest.mark.looptime


def followed(namespace: str) -> Key:
    keys = (Key.of(namespace, f"k{nth}") for nth in range(1000))
    return next(key for key in keys if not key.digest & MASK)


async def test_answers_beyond_l1_are_counted_by_who_gave_them() -> None:
    far = FarSide()
    here, there = Instance(far, name="i0"), Instance(far, name="i1")
    await here.get("a")
    await here.get("a")
    await there.get("a")
    await far.l2.tier.delete_many([Key.of("docs", "a")])
    await Instance(far, name="i2").reader.get_many([Key.of("docs", "a")])
    await here.get("gone", "aside")
    assert here.tally.beyond == {("docs", "origin"): 1, ("aside", "miss"): 1}
    assert there.tally.beyond == {("docs", "l2"): 1}


async def test_a_failure_and_a_stale_answer_are_told_apart() -> None:
    here = Instance()
    here.far.loader.hold()
    (late,) = await here.reader.get_many([Key.of("docs", "a")], ReadOptions(timeout_seconds=0.1))
    assert late.error is not None
    assert here.tally.beyond == {("docs", "error"): 1}
    here.far.loader.release()
    await here.get("b")
    await here.invalidate("b", soft=True)
    await here.get("b")
    assert here.tally.beyond["docs", "l1"] == 1


async def test_refused_copies_are_counted_by_the_fence_or_token_that_refuses_them() -> None:
    far = FarSide()
    i0, i1 = Instance(far, name="i0"), Instance(far, name="i1")
    await i0.get("a")
    await i1.get("a")
    receipt = await i0.invalidate("a")
    assert not i0.tally.refusals, "it has dropped its copy"
    await i1.reader.get_many([Key.of("docs", "a")], ReadOptions(token=receipt.token))
    assert i1.tally.refusals == {("docs", "token"): 1}


async def test_a_purge_refuses_by_namespace() -> None:
    far = FarSide()
    i0, i1 = Instance(far, name="i0"), Instance(far, name="i1")
    await i0.get("a")
    await i1.get("a")
    await asyncio.sleep(1)
    await i1.invalidate(whole=True)
    await i1.get("a")
    assert i1.tally.refusals["docs", "namespace"] >= 1


async def test_a_followed_key_is_replayed_by_its_reads_and_writes() -> None:
    here = Instance()
    read, written = followed("docs"), followed("aside")
    for _ in range(3):
        await here.reader.get(read)
    await here.put(written.text, b"value")
    await here.reader.get_many([written])
    reuse = {name: one for (name,), one in here.paths.ghosts.statistics().items()}
    assert (reuse["docs"].misses_same, reuse["docs"].fills) == (MASK + 1, MASK + 1)
    assert (reuse["aside"].misses_same, reuse["aside"].fills) == (0, MASK + 1)
    assert here.paths.ghosts.followed == 2
    await asyncio.sleep(200)  # the TTL is five minutes
    assert here.reader.peek("docs", read) is not None
    assert [reuse["docs"].misses_half, reuse["docs"].misses_same] == [2 * (MASK + 1), MASK + 1]
    await here.invalidate(read.text)
    await here.reader.get(read)
    assert reuse["docs"].misses_twice == 2 * (MASK + 1), "a fence ends all three"
