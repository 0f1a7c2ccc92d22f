"""The two-region set-up on free ports with real servers: all of it starts, can be broken, and is gone afterwards."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from cachesvc.app.embedded.server_process import ServerStartError
from cachesvc.config.service import load_topology
from loadtests.fleet import Fleet
from loadtests.fleet_servers import SERVICE
from loadtests.fleet_topology import on_free_ports, port_of, ports_of

TWO_REGIONS = Path("config/two-regions.yaml")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(TWO_REGIONS, tmp_path_factory.mktemp("fleet"), with_instances=False) as started:
        yield started


def client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url)


def test_two_memcached_a_region_a_redis_a_cell_and_one_a_queue(fleet: Fleet) -> None:
    assert sorted(fleet.memcached) == ["eu-m1", "eu-m2", "us-m1", "us-m2"]
    assert sorted(fleet.cells) == ["eu-1", "eu-2", "us-1", "us-2"]
    assert sorted(fleet.queues) == ["eu", "us"]
    assert all(server.is_running for server in fleet.servers())
    assert len(fleet.table().splitlines()) == 10


def test_the_document_that_is_run_names_the_ports_in_use(fleet: Fleet) -> None:
    written = load_topology(fleet.topology_path)
    assert written == fleet.topology
    assert not {port for _, port in ports_of(written)} & {
        port for _, port in ports_of(load_topology(TWO_REGIONS))
    }
    for server in written.regions["eu"].pool.values():
        socket.create_connection(("127.0.0.1", port_of(server.address)), timeout=5).close()


def test_a_killed_cell_comes_back_empty_at_its_port(fleet: Fleet) -> None:
    url = fleet.topology.cells["eu-1"].url
    client(url).set("k", "v")
    fleet.cells["eu-1"].kill(signal.SIGKILL)
    with pytest.raises(redis.ConnectionError):
        client(url).get("k")
    fleet.cells["eu-1"].start()
    assert client(url).get("k") is None


def test_a_queue_keeps_its_streams_over_a_restart(fleet: Fleet) -> None:
    url = fleet.topology.regions["us"].queue
    item = client(url).xadd("kept", {"a": "b"})
    fleet.queues["us"].restart()
    assert client(url).xrange("kept") == [(item, {b"a": b"b"})]


def test_a_run_directory_of_somebody_else_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ServerStartError, match="holds something else"):
        Fleet(TWO_REGIONS, tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    document = tmp_path / "topology.yaml"
    document.write_text(on_free_ports(TWO_REGIONS.read_text()))
    port = port_of(load_topology(document).cells["us-2"].url)
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(ServerStartError, match=rf"port {port} \(cell us-2\) is in use"),
    ):
        Fleet(document, tmp_path / "run", ports="fixed")


def test_namespaces_can_be_added_to_the_document(tmp_path: Path) -> None:
    fleet = Fleet(TWO_REGIONS, tmp_path / "run", namespaces={"traces": {"owner": "drill", "ttl": "3s"}})
    assert fleet.topology.namespaces["traces"].ttl == 3_000_000
    assert len(fleet.instances) == 4


def test_an_instance_can_be_sent_to_a_server_through_another_port(tmp_path: Path) -> None:
    fleet = Fleet(
        TWO_REGIONS, tmp_path / "run", detours={"us-a": {"cell-eu-1": 9_999, "memcached-us-m2": 9_998}}
    )
    seen = load_topology(Path(fleet.instances["us-a"].command[-1]))
    assert port_of(seen.cells["eu-1"].url) == 9_999
    assert port_of(seen.regions["us"].pool["us-m2"].address) == 9_998
    assert seen.cells["eu-2"] == fleet.topology.cells["eu-2"]
    assert load_topology(Path(fleet.instances["us-b"].command[-1])) == fleet.topology


def test_an_instance_can_be_launched_by_another_module(tmp_path: Path) -> None:
    fleet = Fleet(TWO_REGIONS, tmp_path / "run")
    plain = fleet.instances["eu-a"].command
    fleet.launch_with("eu-a", ["tests.faults.mutant", "--clock-offset", "40ms"])
    assert fleet.instances["eu-a"].command[2:6] == ["tests.faults.mutant", "--clock-offset", "40ms", "serve"]
    fleet.launch_with("eu-a", SERVICE)
    assert fleet.instances["eu-a"].command == plain


def test_equal_ports_stay_equal_on_free_ones() -> None:
    first, second, third = on_free_ports(
        "a: 127.0.0.1:9100\nb: 127.0.0.1:9100/x\nc: localhost:9101"
    ).splitlines()
    assert port_of(first) == port_of(second) != port_of(third)
