"""The service document: defaults, the environment over the file, and what is refused with path and reason."""

from pathlib import Path
from typing import Literal

import pytest

from cachesvc.config.document import read_struct
from cachesvc.config.environment import NOT_SETTINGS, service_links, settings
from cachesvc.config.service import (
    Queue,
    QueueJournal,
    Server,
    Service,
    check_service,
    check_together,
    load_service,
)
from cachesvc.config.topology import Topology
from cachesvc.model.errors import ConfigError
from cachesvc.model.units import Size


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "service.yaml"
    path.write_text(text)
    return path


def refusal(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_service(written(tmp_path, text), environ or {})
    return str(caught.value)


def test_without_a_file_the_defaults_hold() -> None:
    service = load_service(None, {})
    assert (service.region, service.server.host, service.server.port) == ("local", "127.0.0.1", 8080)
    assert service.instance.endswith("-8080")


def test_an_empty_file_and_an_empty_section_are_the_defaults(tmp_path: Path) -> None:
    assert load_service(written(tmp_path, ""), {}) == load_service(written(tmp_path, "l1:\n"), {})


def test_durations_are_microseconds_and_sizes_bytes(tmp_path: Path) -> None:
    service = load_service(
        written(tmp_path, "l1: {budget: 64MiB}\nl2: {timeout: 1.5s}\nserver: {shutdown_timeout: 0}"), {}
    )
    assert (service.l1.budget, service.l2.timeout, service.server.shutdown_timeout) == (
        64 << 20,
        1_500_000,
        0,
    )


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "region: eu\nserver: {port: 8081, host: 127.0.0.2}\ninstance: a")
    environ = {
        "CACHESVC_SERVER_PORT": "9000",
        "CACHESVC_L1_BUDGET": "512MiB",
        "CACHESVC_INSTANCE": "7",
        "PATH": "/bin",
    }
    service = load_service(path, environ)
    assert (service.region, service.instance, service.server.host, service.server.port) == (
        "eu",
        "7",
        "127.0.0.2",
        9000,
    )
    assert service.l1.budget == 512 << 20


@pytest.mark.parametrize(
    ("journal", "workers", "field"),
    [
        (QueueJournal(path="/j"), 2, "path"),
        (QueueJournal(path="/j"), "auto", "path"),
        (QueueJournal(path="/j", max_bytes=Size(1000)), 1, "max_bytes"),
        (QueueJournal(path="/j", max_changes=0), 1, "max_changes"),
    ],
)
def test_a_journal_is_of_one_instance_and_has_room(
    journal: QueueJournal, workers: int | Literal["auto"], field: str
) -> None:
    with pytest.raises(ConfigError, match=rf"\$\.queue\.journal\.{field}: must"):
        check_service(Service(queue=Queue(journal), server=Server(workers=workers)))
    check_service(Service(queue=Queue(QueueJournal(path="/{instance}")), server=Server(workers=2)))


def test_every_field_has_one_variable() -> None:
    names = [name for name, _ in settings(Service)]
    assert len(names) == len(set(names)) > 20
    assert not set(names) & set(NOT_SETTINGS)


def test_variables_that_are_no_settings_are_let_through() -> None:
    assert load_service(None, dict.fromkeys(NOT_SETTINGS, "x")).region == "local"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"CACHESVC_SERVER_PROT": "1"},
            "CACHESVC_SERVER_PROT: no such setting (did you mean 'CACHESVC_SERVER_PORT'?)",
        ),
        ({"CACHESVC_SERVER_PORT": "http"}, "CACHESVC_SERVER_PORT: Expected `int`, got `str` ('http')"),
        (
            {"CACHESVC_L1_BUDGET": "512"},
            "CACHESVC_L1_BUDGET: '512' is not a size: write a number and one of B, KiB, MiB, GiB",
        ),
    ],
)
def test_a_wrong_variable_is_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_service(None, environ)
    assert str(caught.value).startswith(message)


def links_of(service: str, host: str = "10.0.0.1", port: int = 8080, protocol: str = "tcp") -> dict[str, str]:
    """The variables that Kubernetes makes for a service with one port, called `http`."""
    name = service.upper().replace("-", "_")
    at = f"[{host}]" if ":" in host else host
    link = f"{name}_PORT_{port}_{protocol.upper()}"
    return {
        f"{name}_SERVICE_HOST": host,
        f"{name}_SERVICE_PORT": str(port),
        f"{name}_SERVICE_PORT_HTTP": str(port),
        f"{name}_PORT": f"{protocol}://{at}:{port}",
        link: f"{protocol}://{at}:{port}",
        f"{link}_PROTO": protocol,
        f"{link}_PORT": str(port),
        f"{link}_ADDR": host,
    }


@pytest.mark.parametrize(
    "links",
    [
        links_of("cachesvc"),
        links_of("cachesvc-l1"),
        links_of("cachesvc-server"),
        links_of("cachesvc-server-port"),
        links_of("cachesvc-service"),
        links_of("cachesvc-env"),
        links_of("cachesvc", host="fd00:10:96::a"),
        links_of("cachesvc-otlp", protocol="udp"),
        links_of("cachesvc-m3ua", protocol="sctp"),
    ],
    ids=lambda links: min(links, key=len),
)
def test_service_links_of_kubernetes_are_passed_over(links: dict[str, str]) -> None:
    assert service_links({**links, "PATH": "/bin"}) == sorted(links)
    service = load_service(None, {**links, "CACHESVC_L1_BUDGET": "64MiB"})
    assert (service.server, service.l1.budget) == (Service().server, 64 << 20)
    alone = [name for name in links if "SERVICE_PORT" not in name or links[name].startswith("tcp")]
    assert [name for name in alone if service_links({name: links[name]}) != [name]] == []


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"CACHESVC_SERVICE_HOST": "127.0.0.1"}, "CACHESVC_SERVICE_HOST"),
        ({"CACHESVC_SERVICE_HOST": "::", "CACHESVC_SERVICE_PORT": "9000"}, "CACHESVC_SERVICE_HOST"),
        ({"CACHESVC_SERVICE_HOST": "localhost"}, "CACHESVC_SERVICE_HOST"),
        ({"CACHESVC_SERVICE_PORT": "9000"}, "CACHESVC_SERVICE_PORT"),
        ({"CACHESVC_PORT": "9000"}, "CACHESVC_PORT"),
        ({"CACHESVC_SERVER_PORT": "http://10.0.0.1:8080"}, "CACHESVC_SERVER_PORT"),
        ({"CACHESVC_SERVER_PORT": "tcp://10.0.0.1"}, "CACHESVC_SERVER_PORT"),
        ({"CACHESVC_SERVER_HOST_PORT": "8080"}, "CACHESVC_SERVER_HOST_PORT"),
        ({**links_of("cachesvc"), "CACHESVC_SERVER_PROT": "1"}, "CACHESVC_SERVER_PROT"),
        ({**links_of("cachesvc"), "CACHESVC_L1_SERVICE_PORT": "1"}, "CACHESVC_L1_SERVICE_PORT"),
    ],
)
def test_what_may_be_a_misspelt_setting_is_no_service_link(environ: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_service(None, environ)
    assert str(caught.value).startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sever: {port: 1}", "$.sever: unknown field (did you mean 'server'?)"),
        ("server: {prot: 1}", "$.server.prot: unknown field (did you mean 'port'?)"),
        ("server: 8080", "$.server: must be a mapping of names to values, not 8080"),
        ("server: {port: '80'}", "$.server.port: Expected `int`, got `str` ('80')"),
        ("server: {port: 70000}", "$.server.port: must be 1 to 65535, or 0 for a free one"),
        ("server: {port: 1, port: 2}", "$.server.port: stands here twice (lines 1 and 1): keep one"),
        ("region: eu\n\nregion: us", "$.region: stands here twice (lines 1 and 3): keep one"),
        ("region: EU west", "$.region: 'EU west' is no name"),
        ("{no: 1}", "$.False: the name False is not text: put it in quotes"),
        ("- a", "$: must be a mapping of names to values, not ['a']"),
        ("l2: {timeout: 100}", "$.l2.timeout: 100 has no unit: write a number and a unit, such as '5m'"),
        ("l2: {timeout: 5 minutes}", "$.l2.timeout: '5 minutes' is not a duration"),
        ("l2: {timeout: 1m}", "$.l2.timeout: must be below server.request_timeout"),
        ("l2: {timeout: 0}", "$.l2.timeout: must be below server.request_timeout"),
        (f"l2: {{timeout: {'9' * 400}d}}", f"$.l2.timeout: '{'9' * 400}d' is more than can be counted"),
        ("l1: {budget: 99999999GiB}", "$.l1.budget: '99999999GiB' is more than can be counted"),
        ("[" * 5000, "/"),
        ("l1: {budget: 4MB}", "$.l1.budget: '4MB' is not a size"),
        ("l1: {budget: 10KiB}", "$.l1.budget: below 1MiB nothing is kept"),
        (
            "coherence: {sketch_slots: 1000000}",
            "$.coherence.sketch_slots: 1000000 is not a power of two from 1024 to 2^30; ",
        ),
        ("coherence: {heartbeat: 2h}", "$.coherence.heartbeat: must be below fence_retention"),
        ("l3: {retention: 2h}", "$.coherence.fence_retention: must not be shorter than l3.retention"),
    ],
)
def test_a_mistake_is_refused_with_path_and_reason(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


def test_what_is_no_yaml_is_refused_with_line_and_column(tmp_path: Path) -> None:
    assert "service.yaml:2:" in refusal(tmp_path, "region: eu\nserver: [")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_service(tmp_path / "nowhere.yaml", {})


def small_topology(**namespace: object) -> Topology:
    document = {
        "version": 1,
        "regions": {"us-west": {"queue": "redis://h/0"}},
        "cells": {"c1": {"region": "us-west", "url": "redis://h/1"}},
        "namespaces": {"pages": {"owner": "web", **namespace}},
    }
    return read_struct(document, Topology)


@pytest.mark.parametrize(
    ("region", "namespace", "message"),
    [
        ("us-wst", {}, "$.region: no region 'us-wst' in the topology (did you mean 'us-west'?)"),
        (
            "us-west",
            {"ttl": "2h"},
            "topology:$.namespaces.pages.ttl: with its stale windows copies are kept 7800s, but",
        ),
        (
            "us-west",
            {"max_lag": "600ms"},
            "topology:$.namespaces.pages.max_lag: must be above coherence.heartbeat",
        ),
    ],
)
def test_the_two_documents_must_fit(region: str, namespace: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_together(Service(region=region), small_topology(**namespace))
    assert str(caught.value).startswith(message)


def test_documents_that_fit_are_accepted() -> None:
    check_together(Service(region="us-west"), small_topology())
