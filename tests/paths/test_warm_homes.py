"""A partition moves from c1 to c2, and reads find its copies at c1 for as long as they live.

The rules are in docs/coherence.md, "A warm home".
"""

import asyncio
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from cachesvc.model.entry import Key
from cachesvc.model.requests import ReadOptions
from tests.doubles.loaders import loaded, unkept
from tests.paths.test_moving import BEFORE, MOVED, SETTLED, TAGS, start, wait_out_the_new_issuers
from tests.paths.truth import TARGETS, Store, hear, invalidate
from tests.paths.world import FarSide, Instance

pytestmark = pytest.mark.looptime


async def moved(far: FarSide, key: str = "a", ns: str = "docs") -> Instance:
    """Returns an instance that has taken the move; c1 alone has a copy of the key."""
    i0 = await start(far, BEFORE, "i0")
    await wait_out_the_new_issuers()
    far.l2.down = True
    if ns == "docs":
        await i0.value(key)
    else:
        await i0.put(key, b"0", ns)
    i0.move(MOVED)
    await wait_out_the_new_issuers()
    i0.l1.clear()
    return i0


async def test_a_miss_at_the_new_home_finds_the_copy_at_the_former_one() -> None:
    far = FarSide()
    i0 = await moved(far)
    answer = await i0.get("a")
    assert (answer.tier, len(far.loader.calls)) == ("l3", 1)
    assert i0.tally.former.hits == 1
    assert (await i0.get("a")).tier == "l1"
    assert far.cell.count("read_many") == 2
    await asyncio.sleep(0.01)
    i0.l1.clear()
    assert (await i0.get("a")).tier == "l3"
    assert i0.tally.leases_granted == 1, "and the lease of the new home is given back each time"
    assert not (await far.other.inspect(Key.of("docs", "a"), ())).lease_held


async def test_after_both_homes_have_waited_as_new_issuers_the_former_one_answers() -> None:
    far = FarSide()
    i0 = await start(far, BEFORE, "i0")
    await wait_out_the_new_issuers()
    far.l2.down = True
    await i0.value("a")
    i0.move(MOVED)
    i0.l1.clear()
    assert (await i0.get("a")).tier == "l3"
    assert len(far.loader.calls) == 1


async def test_while_the_new_home_is_away_the_former_one_answers() -> None:
    far = FarSide()
    i0 = await moved(far)
    far.other.down = True
    assert (await i0.get("a")).tier == "l3"
    assert len(far.loader.calls) == 1


async def test_a_former_home_that_is_away_costs_a_load_and_no_more() -> None:
    far = FarSide()
    i0 = await moved(far)
    far.cell.down = True
    assert (await i0.get("a")).tier == "origin"
    assert i0.tally.former.errors == 1


async def test_a_caller_that_loads_by_itself_gets_the_copy_and_no_lease() -> None:
    far = FarSide()
    i0 = await moved(far, ns="aside")
    answer = await i0.get("a", "aside", ReadOptions(lease=True))
    assert (answer.lease, answer.entry and answer.entry.value) == (None, b"0")


async def test_a_stale_copy_there_is_answered_and_refreshed_at_the_new_home() -> None:
    far = FarSide()
    store = Store(far)
    i0 = await moved(far)
    await asyncio.sleep(310)
    store.commit()
    answer = await i0.get("a")
    assert (answer.outcome.value, answer.entry and answer.entry.value) == ("stale", b"0")
    await asyncio.sleep(0.1)
    i0.l1.clear()
    assert await i0.value("a") == b"1"
    assert i0.tally.l3.hits == 1, "from the new home"


async def test_keys_that_are_asked_for_together_are_asked_for_together_there() -> None:
    far = FarSide()
    i0 = await start(far, BEFORE, "i0")
    await wait_out_the_new_issuers()
    far.l2.down = True
    keys = [Key.of("docs", f"k{number}") for number in range(5)]
    await i0.reader.get_many(keys)
    i0.move(MOVED)
    await wait_out_the_new_issuers()
    i0.l1.clear()
    reads = far.cell.count("read_many")
    answers = await i0.reader.get_many([*keys, Key.of("docs", "new")])
    assert [answer.tier for answer in answers] == ["l3"] * 5 + ["origin"]
    assert far.cell.count("read_many") == reads + 1
    assert (i0.tally.former.hits, i0.tally.former.misses) == (5, 1)


async def test_it_ends_by_itself_when_no_copy_can_be_left() -> None:
    far = FarSide()
    i0 = await moved(far)
    assert MOVED.former is not None
    began = datetime.fromtimestamp(far.clock.now_us() / 1e6 - 3599, UTC)
    i0.move(replace(MOVED, version=3, former=replace(MOVED.former, since=began)))
    await wait_out_the_new_issuers()
    await i0.get("b")
    assert i0.tally.former.misses == 0
    assert i0.paths.homes.has_former, "invalidations go to the former home until a document ends it"


async def test_without_a_move_nobody_asks_elsewhere() -> None:
    far = FarSide()
    i0 = await start(far, SETTLED, "i0")
    await wait_out_the_new_issuers()
    await i0.get("a")
    assert i0.paths.homes.warm_until == 0
    assert far.cell.count("read_many") == 0


async def test_trace_90_no_home_must_vouch_for_what_a_former_one_has() -> None:
    """Another instance's document is settled already: it does not tell the former home of the write."""
    for what in TARGETS:
        far = FarSide()
        store = Store(far, TAGS)
        i0, i2 = await start(far, MOVED, "i0"), await start(far, BEFORE, "i2")
        await wait_out_the_new_issuers()
        far.l2.down = True
        assert await i2.value("a") == b"0", "and the former home has it"
        i1 = await start(far, SETTLED, "i1")
        store.commit()
        await invalidate(i1, what)
        await hear(i0)
        assert await i0.value("a") == b"1", what


async def test_trace_91_a_load_that_may_not_be_kept_must_end_the_copy_of_the_former_home() -> None:
    """As trace 31: the copy there would be answered after the newer value."""
    far = FarSide()
    far.loader.default = lambda _: loaded(b"0")
    i0 = await moved(far)
    i1 = await start(far, MOVED, "i1")
    await wait_out_the_new_issuers()
    await asyncio.sleep(310)  # c1's copy is stale, and may be answered during a refresh
    far.loader.default = lambda _: unkept(b"1")
    assert await i0.value("a") == b"0"
    await asyncio.sleep(0.1)
    assert await i1.value("a") == b"1"


async def test_a_session_that_has_seen_a_newer_value_is_not_answered_the_copy_of_another_clock() -> None:
    far = FarSide()
    store = Store(far)
    i0 = await moved(far)
    entry = (await i0.get("a")).entry
    assert entry is not None
    assert not entry.confirmed
    store.commit()
    i0.l1.clear()
    token = ((Key.of("docs", "a").digest, entry.as_of - 1),)
    assert (await i0.get("a", options=ReadOptions(token=token))).tier == "origin"
