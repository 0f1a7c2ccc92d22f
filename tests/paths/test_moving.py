"""A partition moves from c1 to c2 and back, and instances disagree about its home.

The rules are in docs/coherence.md, "Moving a partition". No instance hears of a fence before
`hear`: then the instance merges what the region's stream has.
"""

import asyncio

import pytest
from msgspec.structs import replace

from cachesvc.config.topology import Former, Topology
from cachesvc.model.change import Target
from cachesvc.model.entry import Key
from cachesvc.tiers.l3.homes import Homes
from cachesvc.tiers.l3.placement import Placement
from tests.doubles.clocks import LoopClock
from tests.doubles.loaders import loaded
from tests.doubles.memory_cell import MemoryCell
from tests.doubles.tiers import ChaosCell
from tests.paths.truth import TARGETS, Store, hear, invalidate
from tests.paths.world import SKEW_US, TOPOLOGY, FarSide, Instance

pytestmark = pytest.mark.looptime

TAGS = ("t",)


def version(number: int, *, home: str, former: str = "") -> Topology:
    """A document under which everything is at home in one cell."""
    cells = {name: replace(cell, active=name == home) for name, cell in TOPOLOGY.cells.items()}
    return replace(
        TOPOLOGY, version=number, cells=cells, pins={}, former=Former({former: 1.0}) if former else None
    )


BEFORE = version(1, home="c1")
MOVED = version(2, home="c2", former="c1")
SETTLED = version(3, home="c2")
BACK = version(4, home="c1", former="c2")


async def start(far: FarSide, topology: Topology, name: str) -> Instance:
    """A process starts with this document: it attaches to every cell that it can reach, and opens the region's stream."""
    instance = Instance(far, topology=topology, name=name)
    instance.attach()
    instance.fences.raise_floor((await instance.stream.open()).floor)
    return instance


async def start_late(far: FarSide, topology: Topology, name: str) -> Instance:
    """As `start`, when every fence so far has been trimmed: it knows none of them, and has a floor instead."""
    instance = await start(far, topology, name)
    while (await instance.stream.read(wait_seconds=0)).fences:
        pass
    instance.fences.raise_floor(far.clock.now_us() + 2 * SKEW_US + 1000)
    return instance


async def wait_out_the_new_issuers() -> None:
    """S for leases and fences, 2 S + 1 ms until what is filled is exact, 3 S for the floor of a stream that has just begun."""
    await asyncio.sleep(1)


async def test_trace_26_a_fence_applied_in_the_homes_of_another_topology_must_not_be_taken_to_be_in_ours() -> (
    None
):
    for what in TARGETS:
        far = FarSide()
        store = Store(far, TAGS)
        i0, i1 = await start(far, BEFORE, "i0"), await start(far, MOVED, "i1")
        await wait_out_the_new_issuers()
        assert await i1.value("a") == b"0", "and the new home has it"
        store.commit()
        await invalidate(i0, what)
        await hear(i1)
        assert await i1.value("a") == b"1", what


async def test_trace_26_an_instance_that_starts_after_the_fence_must_not_take_it_so_either() -> None:
    for what in TARGETS:
        far = FarSide()
        store = Store(far, TAGS)
        i0, i1 = await start(far, BEFORE, "i0"), await start(far, MOVED, "i1")
        await wait_out_the_new_issuers()
        assert await i1.value("a") == b"0"
        store.commit()
        await invalidate(i0, what)
        i2 = await start(far, MOVED, "i2")
        await hear(i2)
        assert await i2.value("a") == b"1", what


async def test_an_invalidation_in_the_new_home_ends_what_was_kept_of_another_placements_fence() -> None:
    """Exact fences are few: they must not pile up, and L3 vouches again."""
    far = FarSide()
    Store(far)
    i0, i1 = await start(far, BEFORE, "i0"), await start(far, MOVED, "i1")
    await wait_out_the_new_issuers()
    await i0.invalidate("a")
    await hear(i1)
    assert i1.fences.statistics().unapplied == 1
    await asyncio.sleep(2 * SKEW_US / 1e6)  # a fence of the other placement counts S + 1 ms later
    await i1.invalidate("a")
    assert i1.fences.statistics().unapplied == 0


async def test_a_late_fill_under_the_former_homes_lease_does_not_survive_a_move_to_a_slower_clock() -> None:
    """The former home leases 1 µs after its own last fence, which led by S: more than the new home's clock and lead may reach."""
    far = FarSide()
    far.cell = ChaosCell(MemoryCell("c1", clock=LoopClock(SKEW_US), skew_us=SKEW_US))
    store = Store(far)
    i1 = await start(far, BEFORE, "i1")
    await wait_out_the_new_issuers()
    i0 = await start(far, MOVED, "i0")
    await asyncio.sleep(SKEW_US / 1e6)  # both cells' waits are over, the slower one's just now
    await i1.invalidate("a")
    far.loader.hold()
    far.loader.script("a", loaded(b"0"))
    early = asyncio.create_task(i1.get("a"))
    await far.loader.called()
    store.commit()
    await asyncio.sleep(SKEW_US / 1e6)
    await i0.invalidate("a")
    await hear(i1)
    far.loader.release()
    await early
    assert await i1.value("a") == b"1"


async def test_trace_13_a_home_must_not_vouch_for_what_it_held_before_its_partition_was_away() -> None:
    for what in TARGETS:
        far = FarSide()
        store = Store(far, TAGS)
        i0 = await start(far, BEFORE, "i0")
        await wait_out_the_new_issuers()
        assert await i0.value("a") == b"0"
        store.commit()
        i1 = await start(
            far, SETTLED, "i1"
        )  # its document says nothing of the former home: that does not hear of the write
        await wait_out_the_new_issuers()
        await invalidate(i1, what)
        i2 = await start_late(far, BACK, "i2")
        await wait_out_the_new_issuers()
        assert await i2.value("a") == b"1", what


async def test_trace_13_a_home_must_not_vouch_either_if_it_was_out_of_reach_and_its_placement_looks_unchanged() -> (
    None
):
    far = FarSide()
    store = Store(far)
    i0 = await start(far, BEFORE, "i0")
    await wait_out_the_new_issuers()
    assert await i0.value("a") == b"0"
    store.commit()
    far.cell.down = True
    i1 = await start(far, MOVED, "i1")
    await wait_out_the_new_issuers()
    assert not (await i1.invalidate("a")).applied, "the former home has not heard of it: the change is parked"
    far.cell.down = False
    i2 = await start_late(far, BACK, "i2")
    await wait_out_the_new_issuers()
    assert await i2.value("a") == b"1"


async def test_trace_13_an_instance_on_the_former_topology_must_not_find_what_the_new_home_was_told_to_drop() -> (
    None
):
    """To the former home nothing has moved: it vouches for its copies, and only being told of the write keeps it honest."""
    for what in TARGETS:
        far = FarSide()
        store = Store(far, TAGS)
        i0, i1 = await start(far, BEFORE, "i0"), await start(far, MOVED, "i1")
        await wait_out_the_new_issuers()
        assert await i0.value("a") == b"0"
        store.commit()
        await invalidate(i1, what)
        i2 = await start_late(far, BEFORE, "i2")
        await wait_out_the_new_issuers()
        assert await i2.value("a") == b"1", what


async def test_the_later_of_both_homes_times_is_published() -> None:
    far = FarSide()
    far.cell = ChaosCell(MemoryCell("c1", clock=LoopClock(SKEW_US), skew_us=SKEW_US))
    i0 = await start(far, MOVED, "i0")
    await wait_out_the_new_issuers()
    receipt = await i0.invalidate("a")
    key = Key.of("docs", "a")
    at = {cell.name: (await cell.inspect(key, ())).fence_at for cell in (far.cell, far.other)}
    assert receipt.token == ((key.digest, at["c1"]),)
    assert at["c1"] == at["c2"] + SKEW_US


async def test_a_target_that_stays_where_it_was_goes_to_no_former_home() -> None:
    far = FarSide()
    pinned = replace(MOVED, former=Former({"c1": 1.0}, {"stays": "c2"}))
    homes = Homes(Placement(pinned), {"c1": far.cell, "c2": far.other})
    assert homes.former_of_target(Target.key("docs", "{stays}:a")) == []
    i0 = await start(far, pinned, "i0")
    await wait_out_the_new_issuers()
    await i0.invalidate("{stays}:a")
    assert far.cell.count("fence_many") == 0


async def test_what_an_instance_with_the_former_topology_loads_after_a_fence_is_kept_when_leases_reach() -> (
    None
):
    """Its home's clock is S behind the new one's, whose time is the fence's, which counts S + 1 ms later."""
    far = FarSide()
    far.cell = ChaosCell(MemoryCell("c1", clock=LoopClock(-SKEW_US), skew_us=SKEW_US))
    Store(far)
    i0, i1 = await start(far, MOVED, "i0"), await start(far, BEFORE, "i1")
    await wait_out_the_new_issuers()
    await i0.invalidate("a")
    await hear(i1)
    assert await i1.value("a") == b"0"
    assert (await i1.get("a")).tier == "origin"
    await asyncio.sleep(4 * SKEW_US / 1e6)
    assert await i1.value("a") == b"0"
    assert (await i1.get("a")).tier == "l1"


async def test_trace_87_a_fence_of_another_placement_counts_for_the_clock_of_our_home_too() -> None:
    """The former home's clock is S behind; the new home's lease leads by what its own fences reach."""
    far = FarSide()
    far.cell = ChaosCell(MemoryCell("c1", clock=LoopClock(-SKEW_US), skew_us=SKEW_US))
    store = Store(far)
    i0, i1 = await start(far, BEFORE, "i0"), await start(far, MOVED, "i1")
    await wait_out_the_new_issuers()
    await i1.invalidate("a")
    await hear(i0)
    await asyncio.sleep(SKEW_US / 2e6)
    assert await i1.value("a") == b"0", "under a lease that leads its own fence, which leads its clock by S"
    store.commit()
    await i0.invalidate("a")
    await hear(i1)
    assert await i1.value("a") == b"1"


async def test_trace_88_what_was_merged_before_a_move_must_not_be_taken_to_be_in_the_homes_after_it() -> None:
    for what in TARGETS:
        far = FarSide()
        store = Store(far, TAGS)
        i0, i1 = await start(far, BEFORE, "i0"), await start(far, MOVED, "i1")
        await wait_out_the_new_issuers()
        assert await i1.value("a") == b"0", "and the new home has it"
        store.commit()
        await invalidate(i0, what)
        i0.move(MOVED)
        assert await i0.value("a") == b"1", what


async def test_trace_88_nor_what_another_instance_has_published_before() -> None:
    far = FarSide()
    store = Store(far)
    i0, i1 = await start(far, BEFORE, "i0"), await start(far, MOVED, "i1")
    i2 = await start(far, BEFORE, "i2")
    await wait_out_the_new_issuers()
    assert await i1.value("a") == b"0"
    store.commit()
    await i0.invalidate("a")
    await hear(i2)
    i2.move(MOVED)
    assert await i2.value("a") == b"1"


async def test_after_a_move_a_home_vouches_again_for_what_is_younger() -> None:
    far = FarSide()
    Store(far)
    i0 = await start(far, BEFORE, "i0")
    await wait_out_the_new_issuers()
    i0.move(MOVED)
    await wait_out_the_new_issuers()
    await i0.value("a")
    i0.l1.clear()
    far.l2.down = True
    i0.fences.floor = far.clock.now_us()
    assert (await i0.get("a")).tier == "l3"


async def test_trace_89_a_change_that_is_under_way_in_a_move_must_not_be_published_as_of_the_homes_after_it() -> (
    None
):
    far = FarSide()
    store = Store(far)
    i0, i1 = await start(far, BEFORE, "i0"), await start(far, MOVED, "i1")
    await wait_out_the_new_issuers()
    assert await i1.value("a") == b"0", "and the new home has it"
    store.commit()
    far.cell.hold["fence_many"] = asyncio.Event()
    invalidating = asyncio.create_task(i0.invalidate("a"))
    await asyncio.sleep(0.01)
    i0.move(MOVED)
    far.cell.hold["fence_many"].set()
    await invalidating
    await hear(i1)
    assert await i1.value("a") == b"1"


async def test_nor_a_put_that_is_under_way() -> None:
    far = FarSide()
    i0, i1 = await start(far, BEFORE, "i0"), await start(far, MOVED, "i1")
    await wait_out_the_new_issuers()
    await i1.put("a", b"0")
    assert await i1.value("a", "aside") == b"0"
    far.cell.hold["put_many"] = asyncio.Event()
    putting = asyncio.create_task(i0.put("a", b"1"))
    await asyncio.sleep(0.01)
    i0.move(MOVED)
    far.cell.hold["put_many"].set()
    await putting
    await hear(i1)
    assert await i1.value("a", "aside") != b"0"
