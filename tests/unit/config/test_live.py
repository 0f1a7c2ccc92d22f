"""The parts of the topology document that take effect live, and those that wait."""

import pytest
from msgspec.structs import replace

from cachesvc.config.limits import OriginBudget
from cachesvc.config.live import (
    LIVE_FIELDS,
    LIVE_FIELDS_OF_ORIGINS,
    LIVE_FIELDS_OF_REGIONS,
    changed,
    is_live,
    taken,
    waiting,
)
from cachesvc.config.topology import (
    Cell,
    Former,
    L1Room,
    MemcachedServer,
    Namespace,
    Origin,
    Region,
    Source,
    Topology,
)
from cachesvc.model.units import Duration, Part

PAGES = Namespace("web", origin=Origin("http://origin/{key}"), origin_budget=OriginBudget(concurrency=5))
ROWS = (Source("public.pages", key="{id}"),)
TOPOLOGY = Topology(
    version=1,
    regions={"eu": Region("redis://q:1/0")},
    cells={"c1": Cell("eu", "redis://c:1/0")},
    namespaces={"pages": PAGES},
)


def with_region(**fields: object) -> Topology:
    return replace(TOPOLOGY, regions={"eu": replace(TOPOLOGY.regions["eu"], **fields)})


def with_pages(**fields: object) -> Topology:
    return replace(TOPOLOGY, namespaces={"pages": replace(PAGES, **fields)})


@pytest.mark.parametrize(
    ("found", "path"),
    [
        (with_pages(ttl=Duration.parse("1m")), ("namespaces", "pages", "ttl")),
        (
            with_pages(origin=Origin("http://other/{key}")),
            ("namespaces", "pages", "origin", "url"),
        ),
        (
            with_pages(origin_budget=OriginBudget(concurrency=6)),
            ("namespaces", "pages", "origin_budget", "concurrency"),
        ),
        (with_pages(sources=ROWS), ("namespaces", "pages", "sources")),
        (with_pages(origin=None), ("namespaces", "pages", "origin")),
        (replace(TOPOLOGY, namespaces={"pages": PAGES, "new": PAGES}), ("namespaces", "new")),
        (replace(TOPOLOGY, namespaces={}), ("namespaces", "pages")),
        (with_region(pool={"m1": MemcachedServer("m1:1", zone="a")}), ("regions", "eu", "pool", "m1")),
        (with_region(gutter={"g1": MemcachedServer("g1:1")}), ("regions", "eu", "gutter", "g1")),
        (with_region(rings="zone"), ("regions", "eu", "rings")),
        (with_region(zones={"a": "z"}), ("regions", "eu", "zones", "a")),
        (replace(TOPOLOGY, cells={"c1": Cell("eu", "redis://d:1/0")}), ("cells", "c1", "url")),
        (replace(TOPOLOGY, cells={**TOPOLOGY.cells, "c2": Cell("eu", "redis://d:1/0")}), ("cells", "c2")),
        (replace(TOPOLOGY, pins={"ws-7": "c1"}), ("pins", "ws-7")),
        (replace(TOPOLOGY, former=Former({"c1": 2.0})), ("former",)),
        (replace(TOPOLOGY, version=2), ("version",)),
        (
            replace(TOPOLOGY, regions={"eu": Region("redis://q:1/0", partitions=("eu.",))}),
            ("regions", "eu", "partitions"),
        ),
    ],
)
def test_a_change_that_is_live_is_taken_whole(found: Topology, path: tuple[str, ...]) -> None:
    assert list(changed(TOPOLOGY, found)) == [path]
    assert is_live(path)
    assert taken(TOPOLOGY, found) == found
    assert waiting(taken(TOPOLOGY, found), found) == []


@pytest.mark.parametrize(
    ("found", "path"),
    [
        (with_pages(l1=L1Room(at_most=Part.parse("5%"))), ("namespaces", "pages", "l1", "at_most")),
        (with_region(queue="redis://r:1/0"), ("regions", "eu", "queue")),
        (with_pages(origin_budget=None), ("namespaces", "pages", "origin_budget")),
        (
            with_pages(origin=Origin("http://origin/{key}", concurrency=9)),
            ("namespaces", "pages", "origin", "concurrency"),
        ),
        (replace(TOPOLOGY, regions={"eu": Region("redis://r:1/0")}), ("regions", "eu", "queue")),
    ],
)
def test_a_change_that_is_not_live_changes_nothing_and_is_named(
    found: Topology, path: tuple[str, ...]
) -> None:
    assert taken(TOPOLOGY, found) == TOPOLOGY
    assert waiting(taken(TOPOLOGY, found), found) == [path]


def test_a_namespace_that_comes_has_no_room_of_its_own_before_a_restart() -> None:
    roomy = replace(PAGES, l1=L1Room(at_most=Part.parse("5%")))
    found = replace(TOPOLOGY, namespaces={"pages": PAGES, "new": roomy})
    assert taken(TOPOLOGY, found).namespaces["new"] == PAGES
    assert waiting(TOPOLOGY, found) == [("namespaces", "new", "l1", "at_most")]
    assert waiting(taken(TOPOLOGY, found), found) == [("namespaces", "new", "l1", "at_most")]


def test_homes_wait_for_a_region_that_is_taken_at_the_next_start() -> None:
    regions = {**TOPOLOGY.regions, "us": Region("redis://us:1/0")}
    cells = {**TOPOLOGY.cells, "c2": Cell("us", "redis://d:1/0")}
    found = replace(TOPOLOGY, version=2, regions=regions, cells=cells)
    assert taken(TOPOLOGY, found) == TOPOLOGY
    assert waiting(TOPOLOGY, found) == [("regions", "us"), ("cells", "c2")]


def test_the_lists_name_fields_that_exist() -> None:
    assert set(LIVE_FIELDS) <= set(Namespace.__struct_fields__)
    assert set(LIVE_FIELDS_OF_ORIGINS) <= set(Origin.__struct_fields__)
    assert set(LIVE_FIELDS_OF_REGIONS) <= set(Region.__struct_fields__)


def test_the_version_in_force_never_goes_back() -> None:
    assert taken(replace(TOPOLOGY, version=3), replace(TOPOLOGY, version=2)).version == 3
