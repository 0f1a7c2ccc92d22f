"""An instance that is stopped by SIGTERM and started again has its L1 again."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from loadtests.fleet import Fleet
from loadtests.fleet_topology import one_region
from tests.integration.test_serve import call


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with TemporaryDirectory(prefix="csvc-", dir="/tmp") as folder:
        source = Path(folder, "document.yaml")
        source.write_text(yaml.safe_dump(one_region(["a"], ttl="10m", jitter=0)))
        settings = {"CACHESVC_L1_SNAPSHOT_DIRECTORY": f"{folder}/snapshots"}
        with Fleet(source, Path(folder, "run"), environ=settings) as running:
            yield running


def restart(fleet: Fleet) -> str:
    """Restarts the instance; returns what it says of its snapshot."""
    fleet.instances["a"].stop()
    fleet.instances["a"].start()
    return str(json.loads(call(f"{fleet.url('a')}/readyz?verbose")[1])["snapshot"])


def test_l1_is_warm_after_a_restart_and_fences_hold(fleet: Fleet) -> None:
    url = fleet.url("a")
    for number in range(20):
        assert call(f"{url}/v1/pages/k{number}", "PUT", b"v")[0] == 204
        assert call(f"{url}/v1/pages/k{number}") == (200, b"v")
    assert call(f"{url}/v1/pages/k0", "DELETE")[0] == 200
    said = restart(fleet)
    assert said.startswith("took 19 of 19 copies"), said
    for server in fleet.memcached.values():
        server.stop()
    for server in fleet.cells.values():
        server.stop()
    assert [call(f"{url}/v1/pages/k{number}")[1] for number in range(1, 20)] == [b"v"] * 19, (
        "L1 alone is left"
    )
    assert call(f"{url}/v1/pages/k0")[0] != 200
    metrics = call(f"{url}/metrics")[1]
    assert b'cachesvc_l1_snapshot_copies_total{outcome="taken"} 19.0\n' in metrics


def test_after_a_restart_of_the_queue_a_start_is_cold(fleet: Fleet) -> None:
    url = fleet.url("a")
    assert call(f"{url}/v1/pages/k", "PUT", b"v")[0] == 204
    assert call(f"{url}/v1/pages/k") == (200, b"v")
    fleet.instances["a"].stop()
    for queue in fleet.queues.values():
        queue.restart()
    fleet.instances["a"].start()
    said = json.loads(call(f"{url}/readyz?verbose")[1])["snapshot"]
    assert said.startswith("not used: it is of the queues eu@"), said
