"""Callers that load by themselves refresh early under the lease, one at a time."""

import asyncio
import random

import pytest

from cachesvc.coherence.admission import is_due_early
from cachesvc.model.entry import Entry, Key
from cachesvc.model.requests import Draft, Outcome, ReadOptions
from cachesvc.tiers.l3.contract import Read
from tests.paths.world import FarSide, Instance

pytestmark = pytest.mark.looptime

LEASING = ReadOptions(lease=True)
OVER = ReadOptions(lease=True, no_cache=True)
LOAD_SECONDS = 2.0


async def filled(here: Instance, value: bytes = b"old", lease_options: ReadOptions = LEASING) -> Entry:
    """Loads `a` by a caller, which takes two seconds."""
    answer = await here.get("a", "aside", lease_options)
    assert answer.lease is not None
    await asyncio.sleep(LOAD_SECONDS)
    written = await here.put("a", value, lease=answer.lease)
    assert written.stored
    assert written.entry is not None
    return written.entry


async def test_a_fill_knows_how_long_its_load_took_and_a_put_took_none() -> None:
    here = Instance()
    assert (await filled(here)).load_ms == 2000
    (put,) = await here.writer.put_many([(Key.of("aside", "b"), Draft(b"B"))])
    assert put.entry is not None
    assert put.entry.load_ms == 0


async def test_a_reader_is_told_near_the_expiry_and_more_often_the_nearer() -> None:
    here = Instance()
    entry = await filled(here)
    told = []
    for left in (200.0, 8.0, 2.0, 0.5):
        await asyncio.sleep((entry.fresh_until - here.clock.now_us()) / 1e6 - left)
        told.append(sum(here.reader.is_due_early("aside", entry) for _ in range(2000)))
    assert told[0] == 0
    assert told[0] < told[1] < told[2] < told[3]
    assert here.tally.early_refreshes == sum(told)
    assert 0.5 * 2000 < told[3] < 2000, "as exp(-remaining / load)"


async def test_a_namespace_with_an_origin_refreshes_by_itself_and_asks_no_caller() -> None:
    here = Instance()
    entry = await filled(here)
    assert is_due_early(entry, entry.fresh_until, 1.0, random.Random(1))
    await asyncio.sleep((entry.fresh_until - here.clock.now_us()) / 1e6)
    assert here.reader.is_due_early("aside", entry)
    assert not here.reader.is_due_early("hot", entry)


async def test_the_lease_over_a_fresh_value_goes_to_one_caller_and_readers_keep_the_value() -> None:
    far = FarSide()
    here, there = Instance(far), Instance(far, name="i1")
    await filled(here)
    first, second = await here.get("a", "aside", OVER), await there.get("a", "aside", OVER)
    assert (first.outcome, bool(first.lease)) == (Outcome.MISS, True)
    assert (second.outcome, second.lease) == (Outcome.MISS, None), "at once: it waits for nobody"
    for instance in (here, there):
        assert (await instance.get("a", "aside", LEASING)).outcome is Outcome.HIT
    assert (await here.put("a", b"new", lease=first.lease)).stored
    assert await here.value("a", "aside") == b"new"


async def test_an_invalidation_voids_the_lease_over_a_fresh_value() -> None:
    here = Instance()
    await filled(here)
    held = await here.get("a", "aside", OVER)
    await here.invalidate("a", ns="aside")
    assert not (await here.put("a", b"before the change", lease=held.lease)).stored
    assert await here.value("a", "aside") is None


async def test_a_lease_over_a_fresh_value_that_nobody_takes_goes_back() -> None:
    far = FarSide()
    here = Instance(far)
    await filled(here)
    answer = await here.get("a", "aside", OVER)
    here.reader.give_back(Key.of("aside", "a"), answer)
    await asyncio.sleep(0.1)
    (reply,) = await far.cell.read_many(
        [Read(Key.of("aside", "a"), lease=True, lease_us=1_000_000, refresh=True)]
    )
    assert getattr(reply, "lease", None) is not None


async def test_two_callers_at_one_instance_get_one_lease() -> None:
    here = Instance()
    await filled(here)
    answers = await asyncio.gather(*[here.get("a", "aside", OVER) for _ in range(5)])
    assert sorted(bool(answer.lease) for answer in answers) == [False] * 4 + [True]


async def test_a_home_that_is_away_grants_nothing_and_the_value_stays() -> None:
    far = FarSide()
    here = Instance(far)
    await filled(here)
    far.cell.down = True
    assert (await here.get("a", "aside", OVER)).lease is None
    assert await here.value("a", "aside") == b"old"
