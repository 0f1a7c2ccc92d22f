"""The parts of the topology document that take effect live, and those that wait."""

import pytest
from msgspec.structs import replace

from cachesvc.config.limits import OriginBudget
from cachesvc.config.live import LIVE_FIELDS, LIVE_FIELDS_OF_ORIGINS, changed, is_live, taken, waiting
from cachesvc.config.topology import Cell, Former, Namespace, Origin, Region, Topology
from cachesvc.model.units import Duration

PAGES = Namespace("web", origin=Origin("http://origin/{key}"), origin_budget=OriginBudget(concurrency=5))
TOPOLOGY = Topology(
    version=1,
    regions={"eu": Region("redis://q:1/0")},
    cells={"c1": Cell("eu", "redis://c:1/0")},
    namespaces={"pages": PAGES},
)


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
        (replace(TOPOLOGY, namespaces={"pages": PAGES, "new": PAGES}), ("namespaces", "new")),
        (replace(TOPOLOGY, namespaces={}), ("namespaces", "pages")),
        (with_pages(origin=None), ("namespaces", "pages", "origin")),
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


def test_homes_wait_for_a_region_that_is_taken_at_the_next_start() -> None:
    regions = {**TOPOLOGY.regions, "us": Region("redis://us:1/0")}
    cells = {**TOPOLOGY.cells, "c2": Cell("us", "redis://d:1/0")}
    found = replace(TOPOLOGY, version=2, regions=regions, cells=cells)
    assert taken(TOPOLOGY, found) == TOPOLOGY
    assert waiting(TOPOLOGY, found) == [("regions", "us"), ("cells", "c2")]


def test_the_lists_name_fields_that_exist() -> None:
    assert set(LIVE_FIELDS) <= set(Namespace.__struct_fields__)
    assert set(LIVE_FIELDS_OF_ORIGINS) <= set(Origin.__struct_fields__)


def test_the_version_in_force_never_goes_back() -> None:
    assert taken(replace(TOPOLOGY, version=3), replace(TOPOLOGY, version=2)).version == 3
