"""The allocations of servers, and mistakes in a load document."""

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from cachesvc.cli import main
from cachesvc.commands.size.allocation import allocated, memcached_item, redis_keys, redis_members
from cachesvc.commands.size.load import EXAMPLE, Load, NamespaceLoad
from cachesvc.commands.size.needs import Need, needs_of
from cachesvc.config.service import Service
from cachesvc.config.topology import Cell, MemcachedServer, Namespace, Region, Topology
from cachesvc.model.units import Size

TOPOLOGY = "config/two-regions.yaml"


@pytest.mark.parametrize(
    ("size", "holds"), [(1, 16), (16, 16), (17, 32), (128, 128), (129, 160), (604, 640), (10_006, 10_240)]
)
def test_size_classes_are_those_of_jemalloc(size: int, holds: int) -> None:
    assert allocated(size) == holds


@pytest.mark.parametrize(
    ("keys", "name", "value", "measured"),
    [
        (65_000, 30, 100, 240.7),
        (65_000, 30, 600, 768.1),
        (65_000, 60, 600, 800.1),
        (65_000, 120, 2000, 2272.1),
    ],
)
def test_a_key_of_redis_takes_what_was_measured(keys: int, name: int, value: int, measured: float) -> None:
    """Measured by `used_memory` of Redis 7.0.15 (Debian) for keys with an expiry."""
    assert redis_keys(keys, name, value) / keys == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize(("length", "measured"), [(30, 127.8), (60, 159.8), (100, 207.8)])
def test_a_member_of_a_sorted_set_takes_what_was_measured(length: int, measured: float) -> None:
    assert redis_members(100_000, length) / 100_000 == pytest.approx(measured, rel=0.02)


def test_an_item_of_memcached_takes_its_chunk() -> None:
    assert memcached_item(10, 10) == 96
    assert memcached_item(46, 1_120) == 1_480
    assert memcached_item(46, 700_000) == 2 * (512 << 10)


def test_the_example_is_a_load_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["size", "--example"], {}) == 0
    assert capsys.readouterr().out == EXAMPLE
    document = tmp_path / "load.yaml"
    document.write_text(EXAMPLE)
    assert main(["size", str(document), "--topology", TOPOLOGY, "--json"], {}) == 0
    needs = msgspec.json.decode(capsys.readouterr().out)
    assert [need["kind"] for need in needs] == ["cell"] * 4 + ["queue", "memcached", "memcached"] * 2 + [
        "instance"
    ]
    cell = needs[0]
    assert cell["memory"]["copies"] > 500_000 * 1_200
    assert main(["size", str(document), "--topology", TOPOLOGY], {}) == 0
    assert "cell eu-1" in capsys.readouterr().out


def test_each_zone_with_a_ring_of_its_own_keeps_all_keys_and_has_its_part_of_the_calls() -> None:
    one, other = (
        MemcachedServer("127.0.0.1:1", zone="a"),
        MemcachedServer("127.0.0.1:2", zone="b"),
    )
    whole = Region("redis://q", {"m1": one, "m2": other}, instances={"i1": "http://a", "i2": "http://b"})
    zoned = replace(whole, rings="zone", zones={"i1": "a", "i2": "b"})
    found = [memcached_of(region) for region in (whole, zoned)]
    assert [need.bytes for need in found[1]] == [2 * need.bytes for need in found[0]]
    assert [need.connections for need in found[1]] == [1, 1]
    for before, after in zip(*found, strict=True):
        assert after.network.received == pytest.approx(before.network.received, abs=5)


def memcached_of(region: Region) -> list[Need]:
    topology = Topology(1, {"eu": region}, {"c1": Cell("eu", "redis://c")}, {"pages": Namespace("tests")})
    load = Load({"pages": NamespaceLoad(1000, Size(1000), reads=100.0)})
    return [need for need in needs_of(topology, Service(), load) if need.kind == "memcached"]


def test_mistakes_are_told_all_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "load.yaml"
    document.write_text(
        "instances: -1\n"
        "namespaces:\n"
        "  page: {keys: 0, value: 1KiB}\n"
        "  docs: {keys: 1, value: 1KiB, l1_hits: 0.9, l2_hits: 0.9, reads: -1}\n"
    )
    assert main(["size", str(document), "--topology", TOPOLOGY], {}) == 2
    said = capsys.readouterr().err
    for part in (
        "$.instances: must not be below 0",
        "$.namespaces.page: the topology has no such namespace",
        "pages",
        "$.namespaces.page.keys: must be at least 1",
        "$.namespaces.docs.reads: must not be below 0",
        "$.namespaces.docs.l3_hits: the shares of hits are 1.83 together",
    ):
        assert part in said


def test_both_documents_must_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["size", "--topology", TOPOLOGY], {}) == 2
    assert "cachesvc size --example" in capsys.readouterr().err
    assert main(["size", str(tmp_path / "load.yaml")], {}) == 2
    assert "--topology" in capsys.readouterr().err
