"""Traces of documents that change while instances run."""

import asyncio
import json

import pytest
from msgspec.structs import replace

from cachesvc.changes.events.event_parser import EventParser
from cachesvc.config.topology import Source, Topology
from cachesvc.model.entry import Key
from cachesvc.model.units import Duration
from cachesvc.tiers.l2.contract import Pool
from cachesvc.tiers.l2.in_process import MemoryTier
from cachesvc.tiers.l2.ring import Ring
from cachesvc.tiers.l2.sharded import Sharded
from cachesvc.tiers.l2.warm_up import Warmed, WarmUp, WarmUpTally
from tests.doubles.tiers import ChaosTier
from tests.paths.living import living
from tests.paths.running import Running
from tests.paths.truth import Store
from tests.paths.world import TOPOLOGY, FarSide, Instance

pytestmark = pytest.mark.looptime

WITH_ROWS = replace(
    TOPOLOGY,
    namespaces={
        **TOPOLOGY.namespaces,
        "docs": replace(TOPOLOGY.namespaces["docs"], sources=(Source("public.docs", key="{id}"),)),
    },
)
"""The topology, with a table whose rows are `docs`."""
ROW = {
    "op": "u",
    "after": {"id": "a"},
    "before": {"id": "a"},
    "source": {"schema": "public", "table": "docs"},
}
KEY = Key.of("docs", "a")


async def test_trace_84_a_row_must_not_be_lost_to_a_consumer_that_does_not_know_its_source_yet() -> None:
    far = FarSide()
    store = Store(far)
    async with living(far, "i0", consuming=False) as i0, living(far, "i1") as i1:
        parsers = {name: _parser(one) for name, one in (("i0", i0), ("i1", i1))}
        await asyncio.sleep(2)
        _take(i0, parsers["i0"], WITH_ROWS)
        await asyncio.sleep(2)
        assert await i0.paths.value("a") == b"0"
        store.commit()
        far.queue.append_event(json.dumps(ROW).encode())
        await asyncio.sleep(2)
        assert (i1.tally.skipped, i1.tally.changes) == (1, 0), "it was closed as one that concerns nobody"
        _take(i1, parsers["i1"], WITH_ROWS)
        await asyncio.sleep(2)
        assert await i0.paths.value("a") == b"1"


async def test_trace_84_an_announcement_that_the_queue_does_not_take_must_not_be_forgotten() -> None:
    far = FarSide()
    store = Store(far)
    async with living(far, "i0", consuming=False) as i0, living(far, "i1", consuming=False) as i1:
        await asyncio.sleep(2)
        assert await i0.paths.value("a") == b"0"
        store.commit()
        i1.paths.changes.down = True
        _take(i1, _parser(i1), WITH_ROWS)
        await asyncio.sleep(2)
        assert len(i1.paths.paths.new_sources) == 1
        i1.paths.changes.down = False
        await asyncio.sleep(2)
        assert await i0.paths.value("a") == b"1"


async def test_trace_85_a_memcached_server_that_left_and_comes_back_must_not_be_believed() -> None:
    far = FarSide()
    store, servers = Store(far), _servers(far)
    far.l2.tier = ring = Sharded(Ring({"m1": 1, "m2": 1}), servers)
    i0 = Instance(far)
    assert await i0.value("a") == b"0"
    owner, other = _owner_and_other(servers)
    ring.change(Ring({other: 1}), {other: servers[other]})
    store.commit()
    await i0.invalidate("a")  # the delete reaches the other server only
    assert await i0.value("a") == b"1"
    ring.change(Ring({"m1": 1, "m2": 1}), servers)
    held = (await servers[owner].get_many([KEY]))[0]
    assert getattr(held, "value", None) == b"0", "the old copy is really there"
    i0.l1.clear()
    assert await i0.value("a") == b"1"


async def test_trace_85_the_copy_of_a_former_server_must_not_be_believed() -> None:
    far = FarSide()
    store, servers = Store(far), _servers(far)
    both = Ring({"m1": 1, "m2": 1})
    far.l2.tier = Sharded(both, servers)
    i1 = Instance(far, name="i1")
    far.l2 = ChaosTier(own := Sharded(both, servers))
    i0 = Instance(far)
    assert await i1.value("a") == b"0"
    _, other = _owner_and_other(servers)
    store.commit()
    tally = WarmUpTally()
    warm_up = WarmUp(both, servers, tally, lambda *_: True, i0.tasks.spawn)
    own.change(Ring({other: 1}), {other: Warmed(servers[other], warm_up)})
    await i0.invalidate("a")  # the delete reaches the new server; the other instance has the old ring
    assert await i0.value("a") == b"1"
    assert tally.hits == 1, "the former server was asked, and has the old copy"
    await asyncio.sleep(0.01)
    i0.l1.clear()
    assert await i0.value("a") == b"1", "also where that copy was copied over"


def _parser(instance: Running) -> EventParser:
    """The parser of an instance's consumer, which knows no sources yet."""
    parser = EventParser(TOPOLOGY.namespaces, 1000, Duration.parse("1h"))
    instance.paths.changes.queue._decode = parser
    return parser


def _take(instance: Running, parser: EventParser, topology: Topology) -> None:
    parser.take(topology.namespaces)
    instance.paths.paths.take(topology)


def _servers(far: FarSide) -> dict[str, Pool]:
    return {name: MemoryTier(far.clock, 1 << 20) for name in ("m1", "m2")}


def _owner_and_other(servers: dict[str, Pool]) -> tuple[str, str]:
    owner = Ring(dict.fromkeys(servers, 1)).server(KEY.digest)
    return owner, next(name for name in servers if name != owner)
