"""`cachesvc size` is held to real servers: two regions, some thousand calls, 15 per cent."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from cachesvc.commands.size.load import Load, NamespaceLoad
from cachesvc.commands.size.needs import AUDIT_ITEMS, HEARTBEAT_ITEM, Need, needs_of
from cachesvc.config.service import L3, Coherence, Service
from cachesvc.config.topology import Topology
from cachesvc.model.units import Duration, Size
from cachesvc.tiers.l2.memcached_client import PipelinedClient
from loadtests.fleet import Fleet

KEYS, VALUE_BYTES, KEY_BYTES = 600, 2_000, 40
GONE = 200
"""Keys that are invalidated."""
WINDOW_SECONDS = 900
"""The time for which queue and cells keep what this run writes: the receipts' own."""
SERVICE = Service(
    l3=L3(retention=Duration.parse("14m")), coherence=Coherence(fence_retention=Duration.parse("15m"))
)


class Measured:
    """The counters of all servers at one time."""

    def __init__(self, fleet: Fleet) -> None:
        topology = fleet.topology
        self.at = time.monotonic()
        self.cells = [redis.Redis.from_url(cell.url).info() for cell in topology.cells.values()]
        self.queue = redis.Redis.from_url(topology.regions["eu"].queue).info()
        self.pools = {
            name: [stats_of(server.address) for server in region.pool.values()]
            for name, region in topology.regions.items()
        }

    def of_cells(self, what: str) -> int:
        return sum(cell[what] for cell in self.cells)

    def of_pool(self, region: str, what: str) -> int:
        return sum(stats[what] for stats in self.pools[region])


def stats_of(address: str) -> dict[str, int]:
    """The counters of a memcached, and `chunks`, the bytes of those that hold items."""
    client = PipelinedClient(address)
    try:
        said = {**client.stats(), **client.stats(b"slabs")}
    finally:
        client.close()
    found = {name.decode(): value for name, value in said.items() if isinstance(value, int)}
    slabs = [name.partition(":")[0] for name in found if name.endswith(":chunk_size")]
    chunks = sum(found[f"{slab}:chunk_size"] * found[f"{slab}:used_chunks"] for slab in slabs)
    return found | {"chunks": chunks}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(Path("config/two-regions.yaml"), tmp_path_factory.mktemp("fleet") / "run") as running:
        yield running


def test_needs_are_those_of_a_measured_run(fleet: Fleet) -> None:
    topology = fleet.topology
    at = {name: url for region in topology.regions.values() for name, url in region.instances.items()}
    keys = [f"{number}".ljust(KEY_BYTES, "k") for number in range(KEYS)]
    with requests.Session() as http:
        start = Measured(fleet)
        for key in keys:
            url = f"{at['eu-a']}/v1/bench/{key}"
            http.put(url, b"v" * VALUE_BYTES, timeout=30).raise_for_status()
        put = Measured(fleet)
        for instance in ("eu-b", "us-a"):
            for key in keys:
                answer = http.get(f"{at[instance]}/v1/bench/{key}", timeout=30)
                assert len(answer.content) == VALUE_BYTES
        read = Measured(fleet)
        for key in keys[:GONE]:
            http.delete(f"{at['eu-a']}/v1/bench/{key}", timeout=30).raise_for_status()
        gone = Measured(fleet)

    # Memory. Callers of eu alone wrote: for the cells, each region did half of it.
    kept = needs(topology, puts=KEYS / WINDOW_SECONDS / 2)
    cells = [kept[name] for name in topology.cells]
    is_near(put.of_cells("used_memory"), sum(need.bytes for need in cells))
    kept = needs(topology, puts=KEYS / WINDOW_SECONDS, invalidations=GONE / WINDOW_SECONDS)
    queue = dict(kept["eu"].memory)
    queue["audit"] *= GONE / AUDIT_ITEMS
    heartbeats = HEARTBEAT_ITEM * WINDOW_SECONDS / SERVICE.coherence.heartbeat.seconds
    is_near(gone.queue["used_memory"], sum(queue.values()) - heartbeats)
    is_near(put.of_pool("eu", "chunks"), sum(kept[server].bytes for server in topology.regions["eu"].pool))

    # Network, of each phase.
    seconds = put.at - start.at
    ran = needs(topology, puts=KEYS / seconds / 2)
    moved = put.of_cells("total_net_input_bytes") - start.of_cells("total_net_input_bytes")
    is_near(moved, seconds * sum(ran[name].network.received for name in topology.cells))
    ran = needs(topology, puts=KEYS / seconds)
    moved = put.queue["total_net_output_bytes"] - start.queue["total_net_output_bytes"]
    is_near(moved, seconds * ran["eu"].network.sent)

    seconds = read.at - put.at
    ran = needs(topology, reads=KEYS / seconds, l2_hits=1.0)
    moved = read.of_pool("eu", "bytes_written") - put.of_pool("eu", "bytes_written")
    is_near(moved, seconds * sum(ran[server].network.sent for server in topology.regions["eu"].pool))
    ran = needs(topology, reads=KEYS / seconds, l3_hits=1.0)
    moved = read.of_pool("us", "bytes_read") - put.of_pool("us", "bytes_read")
    is_near(moved, seconds * sum(ran[server].network.received for server in topology.regions["us"].pool))
    ran = needs(topology, reads=KEYS / seconds / 2, l3_hits=1.0)
    moved = read.of_cells("total_net_output_bytes") - put.of_cells("total_net_output_bytes")
    is_near(moved, seconds * sum(ran[name].network.sent for name in topology.cells))


def test_connections_are_those_of_a_measured_run(fleet: Fleet) -> None:
    """They follow the load: a cell has as many more as batches are on their way at a time."""
    needed, measured = needs(fleet.topology), Measured(fleet)
    for name, cell in zip(fleet.topology.cells, measured.cells, strict=True):
        is_near(cell["connected_clients"] - 1, needed[name].connections, 0.5)
    is_near(measured.queue["connected_clients"] - 1, needed["eu"].connections, 0.5)
    pool = fleet.topology.regions["eu"].pool
    assert measured.of_pool("eu", "curr_connections") - len(pool) == sum(
        needed[name].connections for name in pool
    ), "one of each server is this test's"


def needs(topology: Topology, **load: float) -> dict[str, Need]:
    """Returns the needs by the server's name, with these rates of each region."""
    shape = {"keys": KEYS, "value": Size(VALUE_BYTES), "key_bytes": KEY_BYTES, "l1_hits": 0.0}
    calls: dict[str, Any] = {**shape, "l2_hits": 0.0, "l3_hits": 0.0, **load}
    return {need.name: need for need in needs_of(topology, SERVICE, Load({"bench": NamespaceLoad(**calls)}))}


def is_near(measured: float, computed: float, part: float = 0.15) -> None:
    assert computed * (1 - part) <= measured <= computed * (1 + part), (measured, computed)
