"""Traces of changes that a home cell has missed: what their retries may and may not refuse."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from cachesvc.config.topology import Topology
from cachesvc.model.entry import Key
from cachesvc.model.requests import Outcome
from cachesvc.tiers.l3.placement import Placement
from tests.doubles.loaders import loaded
from tests.paths.living import living
from tests.paths.running import Running
from tests.paths.truth import Store
from tests.paths.world import TOPOLOGY, FarSide

pytestmark = pytest.mark.looptime

BOTH = replace(
    TOPOLOGY,
    version=2,
    cells={name: replace(cell, active=True) for name, cell in TOPOLOGY.cells.items()},
    pins={"mine": "c1", "elsewhere": "c2"},
)
"""Both cells are active: a tag without a partition is applied in both."""
ALONE = replace(BOTH, version=3, pins={"mine": "c1", "elsewhere": "c1"})
"""The partition `elsewhere` has moved to c1."""
MINE, ELSEWHERE = "{mine}a", "{elsewhere}b"


@asynccontextmanager
async def instance(far: FarSide, topology: Topology, name: str = "i0") -> AsyncIterator[Running]:
    for cell in (far.cell, far.other):
        if not cell.down:
            cell.activate(Placement(topology).id, topology.version)
    async with living(far, name, topology=topology) as one:
        await asyncio.sleep(3)
        yield one


async def loads_without_near_copies(one: Running, key: str) -> bool:
    """True if a read of the key, which L1 and L2 do not hold, is a load."""
    one.paths.l1.delete(Key.of("docs", key))
    await one.paths.far.pool.delete_many([Key.of("docs", key)])
    return (await one.paths.get(key)).outcome is Outcome.LOADED


async def test_trace_29_a_cell_that_is_away_must_not_take_l3_from_the_cells_that_are_not() -> None:
    far = FarSide()
    store = Store(far)
    async with instance(far, BOTH) as i0:
        far.other.down = True
        store.commit()
        receipt = await i0.paths.invalidate(tags=["t"])
        assert not receipt.applied
        await asyncio.sleep(1)
        far.loader.default = loaded(b"1", tags=("t",))
        assert await i0.paths.value(MINE) == b"1"
        await asyncio.sleep(5)  # the change is tried again five times
        assert not await loads_without_near_copies(i0, MINE), "c1 holds a copy from after the change"
        before = await far.cell.inspect(Key.of("docs", MINE), ["t"])
        far.other.down = False
        await asyncio.sleep(3)
        assert i0.tally.waiting == 0
        after = await far.other.inspect(Key.of("docs", ELSEWHERE), ["t"])
        assert after.tag_fences == before.tag_fences, "the first `at`, in every cell"
        assert not await loads_without_near_copies(i0, MINE)


async def test_trace_30_a_parked_change_must_reach_a_home_that_was_never_asked() -> None:
    """The partition moves to another cell while the change is parked."""
    far = FarSide()
    store = Store(far)
    async with instance(far, BOTH) as i0:
        far.other.down = True
        store.commit()
        receipt = await i0.paths.invalidate(ELSEWHERE, MINE)
        assert not receipt.applied
        asked_before = far.cell.count("fence_many")
    async with instance(far, ALONE, "i1") as i1:
        await asyncio.sleep(3)
        state = await i1.paths.receipts.state(receipt.id)
        assert state is not None
        assert far.cell.count("fence_many") > asked_before
        at = (await far.cell.inspect(Key.of("docs", ELSEWHERE), [])).fence_at
        assert at > 0, "the new home knows the fence"


async def test_trace_47_a_cell_that_is_back_must_not_be_trusted_before_it_has_the_fence() -> None:
    """Both homes of the tag were away, and the other one is back first."""
    far = FarSide()
    store = Store(far, tags=("t",))
    async with instance(far, BOTH) as i0, instance(far, BOTH, "i1") as i1:
        assert await i0.paths.value(ELSEWHERE) == b"0"
        i1.paths.l1.clear()
        far.cell.down = far.other.down = True
        store.commit()
        receipt = await i0.paths.invalidate(tags=["t"])
        ((tag, at),) = receipt.token
        await asyncio.sleep(2)
        far.cell.down = False
        await asyncio.sleep(3.3)  # between two tries
        far.other.down = False
        assert await loads_without_near_copies(i1, ELSEWHERE), "c2 still holds 0, and does not know better"
        await asyncio.sleep(3)
        assert i1.paths.fences.exact_fence_on(tag, (), "docs") < at, "now it is"


async def test_a_cell_for_which_too_much_was_parked_is_fenced_before_it_is_trusted() -> None:
    far = FarSide()
    far.queue.parking.most = 3
    store = Store(far)
    async with instance(far, BOTH) as i0:
        assert await i0.paths.value(ELSEWHERE) == await i0.paths.value(MINE) == b"0"
        fenced = i0.paths.fences.fence_on(0, (), "docs")
        far.other.down = True
        store.commit()
        receipts = [await i0.paths.invalidate(f"{{elsewhere}}{number}") for number in range(4)]
        receipts.append(await i0.paths.invalidate(ELSEWHERE))
        await asyncio.sleep(2)
        assert (i0.tally.waiting, i0.tally.overflowed) == (1, 1)
        assert (await i0.paths.invalidate(MINE)).applied, "no other cell is touched"
        far.other.down = False
        await asyncio.sleep(2)
        assert (i0.tally.waiting, i0.tally.overflowed) == (0, 0)
        state = await far.other.inspect(Key.of("docs", ELSEWHERE), [])
        newest = max(at for receipt in receipts for _, at in receipt.token)
        assert state.namespace_fence == newest, "and not a later time, at which it was back"
        assert i0.paths.fences.fence_on(0, (), "docs") == fenced, "no other tier is fenced for it"
        states = [await i0.paths.receipts.state(receipt.id) for receipt in receipts]
        assert {state.state for state in states if state} == {"done"}
        assert await i0.paths.value(ELSEWHERE) == b"1"


async def test_a_cell_that_is_back_gets_more_than_one_step_at_once() -> None:
    far = FarSide()
    async with instance(far, BOTH) as i0:
        far.other.down = True
        for start in range(0, 1200, 100):
            await i0.paths.invalidate(*(f"{{elsewhere}}{number}" for number in range(start, start + 100)))
        await asyncio.sleep(5)
        assert i0.tally.waiting == 1200
        tries = far.other.count("fence_many")
        await asyncio.sleep(5)
        assert far.other.count("fence_many") - tries <= 6 * 12, "one try of one step per second"
        far.other.down = False
        await asyncio.sleep(1.5)
        assert i0.tally.waiting == 0


async def test_what_is_parked_for_a_cell_that_no_topology_names_is_forgotten() -> None:
    far = FarSide()
    gone = replace(TOPOLOGY, version=4, cells={"c1": replace(TOPOLOGY.cells["c1"], active=True)}, pins={})
    async with instance(far, BOTH) as i0:
        far.other.down = True
        await i0.paths.invalidate(ELSEWHERE)
    async with instance(far, gone, "i1") as i1:
        await asyncio.sleep(3)
        assert i1.tally.waiting == 0
