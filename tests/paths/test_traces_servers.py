"""Traces of a cell's name that leads to two servers, both of them alive and masters.

The name moved, a document was edited, a replica was promoted while the old primary lives. Each
instance here has its own connections to a cell (`NamedCell`).
"""

import asyncio
import itertools

import pytest
from msgspec.structs import replace

from cachesvc.model.change import Change, Target
from cachesvc.model.entry import Key
from cachesvc.model.fence import Fence
from cachesvc.model.requests import ReadOptions
from tests.doubles.clocks import LoopClock
from tests.doubles.loaders import loaded
from tests.doubles.named_cell import NamedCell, server
from tests.doubles.tiers import ChaosCell
from tests.paths.truth import TARGETS, Store, hear, invalidate
from tests.paths.world import SKEW_US, TOPOLOGY, FarSide, Instance

pytestmark = pytest.mark.looptime

BOTH = replace(TOPOLOGY, cells={name: replace(cell, active=True) for name, cell in TOPOLOGY.cells.items()})
"""A tag without a partition is applied in both cells."""
MINE = "{mine}a"


def named(far: FarSide, leads_to: ChaosCell) -> NamedCell:
    return NamedCell(leads_to, far.clock, SKEW_US)


async def at(home: NamedCell, far: FarSide, name: str, **how: object) -> Instance:
    """An instance that reaches the cell by this name, and reads the fences of its region."""
    instance = Instance(far, name=name, homes={"c1": home}, **how)  # type: ignore[arg-type]  # a topology
    instance.fences.raise_floor((await instance.stream.open()).floor)
    return instance


async def settled() -> None:
    """Waits until the servers that were met vouch for what is loaded now."""
    await asyncio.sleep(1)


async def test_trace_36_a_fence_that_another_server_of_the_name_applied_must_not_be_taken_to_be_at_home() -> (
    None
):
    for what in TARGETS:
        far = FarSide()
        store = Store(far, ("t",))
        a, b = far.cell, server("c1", far.clock, SKEW_US)
        i0, i1 = await at(named(far, a), far, "i0"), await at(named(far, b), far, "i1")
        await settled()
        assert await i0.value("a") == b"0", "and server a holds it"
        store.commit()
        await invalidate(i1, what)  # at b alone
        await hear(i0)
        assert await i0.value("a") == b"1", what


async def test_the_own_fence_of_an_instance_that_has_met_another_server_meanwhile() -> None:
    """It is applied over a connection to a, and merged when the connections lead to b."""
    far = FarSide()
    store = Store(far)
    a = far.cell
    b = ChaosCell(a.replica(far.clock))
    home = named(far, a)
    i0, i1 = await at(home, far, "i0"), await at(named(far, b), far, "i1")
    await settled()
    assert await i1.value("a") == b"0", "and server b holds it"
    store.commit()
    a.hold["fence_many"] = asyncio.Event()
    invalidating = asyncio.create_task(i0.invalidate("a"))
    await asyncio.sleep(1)
    home.leads_to = b
    home.connect()
    await settled()
    a.hold["fence_many"].set()
    await invalidating
    home.use(b)
    assert await i0.value("a") == b"1"


def empty(far: FarSide) -> ChaosCell:
    return server("c1", far.clock, SKEW_US)


def lagging(far: FarSide) -> ChaosCell:
    """A replica that is promoted as soon as it is made."""
    replica = far.cell.replica(far.clock)
    replica.restart()
    return ChaosCell(replica)


async def test_trace_37_a_server_must_not_vouch_again_for_what_it_held_before_the_name_was_away() -> None:
    for standby, what in itertools.product((empty, lagging), TARGETS):
        far = FarSide()
        store = Store(far, ("t",))
        a, home = far.cell, named(far, far.cell)
        i0 = await at(home, far, "i0")
        await settled()
        assert await i0.value("a") == b"0"
        home.leads_to = b = standby(far)
        home.connect()
        i1 = await at(named(far, b), far, "i1")
        await settled()
        store.commit()
        await invalidate(i1, what)
        await hear(i0)
        home.leads_to = a
        home.connect()
        assert await i0.value("a") == b"1", what
        await settled()
        assert await i0.value("c") == b"1"
        await far.pool.delete_many([Key.of("docs", "c")])
        i0.l1.delete(Key.of("docs", "c"))
        assert (await i0.get("c")).tier == "l3", "it vouches for what is loaded from now on"


async def test_trace_37_a_reply_from_a_server_that_was_left_must_not_be_believed() -> None:
    """A connection to it is open still, and brings an answer."""
    for what in TARGETS:
        far = FarSide()
        store = Store(far, ("t",))
        a, home = far.cell, named(far, far.cell)
        i0 = await at(home, far, "i0")
        await settled()
        home.leads_to = b = empty(far)
        home.connect()
        i1, i2 = await at(named(far, b), far, "i1"), await at(named(far, a), far, "i2")
        await settled()
        assert await i2.value("a") == b"0", "and server a holds it"
        store.commit()
        await invalidate(i1, what)
        await hear(i0)
        home.use(a)
        assert await i0.value("a") == b"1", what


async def test_trace_38_a_lease_of_one_clock_must_not_look_younger_than_a_fence_of_the_other() -> None:
    """Server b is ahead by S, and leases behind its own fence lead by another S."""
    far = FarSide()
    store = Store(far)
    a, b = far.cell, server("c1", LoopClock(SKEW_US), SKEW_US)
    i0, i1 = await at(named(far, a), far, "i0"), await at(named(far, b), far, "i1")
    await settled()
    await i1.invalidate("a")
    far.loader.hold()
    far.loader.script("a", loaded(b"0"))
    early = asyncio.create_task(i1.get("a"))
    await far.loader.called()
    store.commit()
    await i0.invalidate("a")
    await hear(i1)
    far.loader.release()
    await early
    assert await i1.value("a") == b"1"


async def test_the_fence_of_a_retry_does_not_stand_for_the_cells_that_were_not_asked_again() -> None:
    far = FarSide()
    store = Store(far, ("t",))
    a, b = far.cell, server("c1", far.clock, SKEW_US)
    i0 = await at(named(far, a), far, "i0", topology=BOTH)
    i1 = await at(named(far, b), far, "i1", topology=BOTH)
    await settled()
    key = next(f"{{p{n}}}" for n in range(99) if i1.paths.homes.of(Key.of("docs", f"{{p{n}}}")).name == "c1")
    assert await i1.value(key) == b"0", "and server b holds it"
    store.commit()
    far.other.down = True
    change = Change("docs", tags=("t",))
    id_ = await i0.changes.append(change)
    applied = await i0.applier.apply([change])
    (parked,) = applied.parked[applied.named[0][0]]
    await i0.stream.publish(applied.fences, done=[applied.done(id_, applied.named[0])])
    await hear(i1)
    far.other.down = False
    await settled()
    await i0.applier.apply([change])  # a later change; its fence is not published yet
    await i0.stream.settle(await i0.applier.retry([parked], ()))
    await hear(i1)
    assert await i1.value(key) == b"1"


async def test_a_fence_that_names_no_server_is_kept_as_unapplied() -> None:
    far = FarSide()
    store = Store(far, ("t",))
    i0 = await at(named(far, far.cell), far, "i0")
    await settled()
    assert await i0.value("a") == b"0"
    store.commit()
    i0.merger.merge([Fence(Target.tag("docs", "t").digest, far.clock.now_us())])
    assert await i0.value("a") == b"1"


async def test_what_was_put_at_one_server_refuses_what_the_other_one_holds() -> None:
    far = FarSide()
    a, b = far.cell, server("c1", far.clock, SKEW_US)
    i0, i1 = await at(named(far, a), far, "i0"), await at(named(far, b), far, "i1")
    await settled()
    await i1.put("a", b"0")
    await hear(i0)
    await far.pool.delete_many([Key.of("aside", "a")])
    i1.l1.delete(Key.of("aside", "a"))
    await i0.put("a", b"1")
    await far.pool.delete_many([Key.of("aside", "a")])
    await hear(i1)
    assert await i1.value("a", "aside") is None


async def test_a_value_loaded_under_a_lease_of_the_old_server_is_not_answered_from_the_new_one() -> None:
    """The replica has the lease, and not the fence that has voided it at the old primary."""
    far = FarSide()
    a, home1 = far.cell, named(far, far.cell)
    i0, i1 = await at(named(far, a), far, "i0"), await at(home1, far, "i1")
    await settled()
    lease = (await i1.get("a", "aside", ReadOptions(lease=True))).lease
    assert lease
    home1.leads_to = b = ChaosCell(a.replica(far.clock))
    b.restart()
    await i0.invalidate("a", ns="aside")
    await hear(i1)
    home1.connect()
    await settled()
    await i1.put("a", b"0", lease=lease)
    assert await i1.value("a", "aside") is None


async def test_unapplied_fences_are_bounded_and_the_oldest_go_to_the_sketch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cachesvc.coherence.fences.MOST_UNAPPLIED", 10)
    far = FarSide()
    store = Store(far)
    i0 = await at(named(far, far.cell), far, "i0")
    await settled()
    assert await i0.value("a") == b"0"
    store.commit()
    now = far.clock.now_us()
    fences = [Fence(digest, now + digest, unapplied=True) for digest in range(1, 100)]
    i0.merger.merge([Fence(Target.key("docs", "a").digest, now, unapplied=True), *fences])
    assert i0.fences.statistics().unapplied == 10
    assert await i0.value("a") == b"1"
