"""The workers of a host: their names, their parts of its memory, and what is refused."""

import argparse
from pathlib import Path
from textwrap import dedent

import pytest

from cachesvc.commands.documents import read_documents
from cachesvc.config.service import Operations, Server, Service
from cachesvc.config.topology import Topology
from cachesvc.config.workers import count_of, embedded_ports, names_of, part_of, workers_of

TOPOLOGY = """
    version: 1
    regions:
      eu:
        queue: redis://127.0.0.1:6379/0
        instances: {{{instances}}}
        operations: {{{operations}}}
    cells: {{c1: {{region: eu, url: redis://127.0.0.1:6380/0}}}}
    namespaces: {{pages: {{owner: web}}}}
"""
BOTH = "eu-a-0: http://10.0.0.1:8090, eu-a-1: http://10.0.0.1:8091, eu-b: http://10.0.0.2:8080"


def mistakes(tmp_path: Path, instances: str, operations: str = "", **settings: str) -> list[str]:
    document = tmp_path / "topology.yaml"
    document.write_text(dedent(TOPOLOGY).format(instances=instances, operations=operations))
    environ = {
        "CACHESVC_REGION": "eu",
        "CACHESVC_INSTANCE": "eu-a",
        "CACHESVC_SERVER_WORKERS": "2",
        **{f"CACHESVC_{name}": value for name, value in settings.items()},
    }
    options = argparse.Namespace(config=None, topology=document, namespaces=None)
    return [f"{one.path} {one.why}" for one in read_documents(options, environ).mistakes]


def test_workers_are_instances_with_names_and_ports_from_the_topology(tmp_path: Path) -> None:
    document = tmp_path / "topology.yaml"
    document.write_text(dedent(TOPOLOGY).format(instances=BOTH, operations="eu-a-0: http://10.0.0.1:9090"))
    options = argparse.Namespace(config=None, topology=document, namespaces=None)
    environ = {"CACHESVC_REGION": "eu", "CACHESVC_INSTANCE": "eu-a", "CACHESVC_SERVER_WORKERS": "2"}
    documents = read_documents(options, {**environ, "CACHESVC_SERVER_OPERATIONS_PORT": "8081"})
    assert not documents.mistakes
    assert isinstance(documents.topology, Topology)
    (first, one), (second, two) = workers_of(documents.service, documents.topology)
    assert (first.instance, second.instance) == ("eu-a-0", "eu-a-1")
    assert (one.host, one.number, one.count, one.port, one.operations_port) == ("eu-a", 0, 2, 8090, 9090)
    assert (two.number, two.port, two.operations_port) == (1, 8091, None)


def test_memory_of_the_host_is_divided_and_one_process_is_as_it_was() -> None:
    service = Service(instance="a")
    assert part_of(service) is service
    assert names_of(service) == ["a"]
    part = part_of(Service(instance="a", server=Server(workers=4)))
    assert part.l1.budget == service.l1.budget // 4
    assert part.l1.max_entries == service.l1.max_entries // 4
    assert part.server.max_bytes_in_flight == service.server.max_bytes_in_flight // 4
    many = part_of(Service(instance="a", server=Server(workers=128)))
    assert many.server.max_bytes_in_flight == service.server.max_answer


def test_auto_is_a_worker_for_each_usable_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3, 7})
    assert count_of(Server(workers="auto")) == 3


def test_embedded_workers_have_the_ports_after_those_of_the_host() -> None:
    data, operations = embedded_ports(
        Service(instance="a", server=Server(workers=2, port=8080, operations=Operations(port=8081)))
    )
    assert data == {"a-0": "http://127.0.0.1:8082", "a-1": "http://127.0.0.1:8083"}
    assert operations == {"a-0": "http://127.0.0.1:8084", "a-1": "http://127.0.0.1:8085"}
    assert embedded_ports(Service(instance="a", server=Server(port=8080))) == (
        {"a": "http://127.0.0.1:8080"},
        {},
    )
    assert embedded_ports(Service(instance="a", server=Server(port=0))) == ({}, {})


def test_what_clients_could_not_find_is_refused(tmp_path: Path) -> None:
    assert mistakes(tmp_path, BOTH) == []
    assert mistakes(tmp_path, "") == []
    (host, missing) = mistakes(tmp_path, "eu-a: http://10.0.0.1:8090, eu-a-0: http://10.0.0.1:8091")
    assert "$.regions.eu.instances.eu-a runs 2 workers" in host
    assert "$.regions.eu.instances.eu-a-1 is missing" in missing
    (shared,) = mistakes(tmp_path, BOTH.replace("8091", "8080"))
    assert "has the port 8080 that all workers of the host share" in shared
    (operating,) = mistakes(tmp_path, BOTH, "eu-a-1: http://10.0.0.1:9090", SERVER_OPERATIONS_PORT="9090")
    assert "has the port 9090" in operating


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"SERVER_WORKERS": "0"}, "must be 1 to 128, or auto"),
        ({"SERVER_WORKERS": "two"}, "two"),
        ({"SERVER_PORT": "0"}, "must not be 0 with several server.workers"),
        ({"SERVER_OPERATIONS_PORT": "0"}, "must not be 0 with several server.workers"),
        ({"L1_BUDGET": "1MiB"}, "leaves each of 2 workers less than 1MiB"),
    ],
)
def test_a_setting_that_workers_cannot_have_is_named(
    tmp_path: Path, settings: dict[str, str], expected: str
) -> None:
    (found,) = mistakes(tmp_path, BOTH, **settings)
    assert expected in found
