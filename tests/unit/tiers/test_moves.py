"""The rules for a document that gives partitions other homes."""

import pytest
from msgspec.structs import replace

from cachesvc.config.topology import Cell, Former, Region, Topology
from cachesvc.model.errors import ConfigError
from cachesvc.tiers.l3.moves import check_move

CELLS = {"c1": Cell("eu", "redis://c:1/1"), "c2": Cell("eu", "redis://c:1/2")}
BEFORE = Topology(
    version=5, regions={"eu": Region("redis://q:1/0")}, cells=CELLS, namespaces={}, pins={"ws-7": "c1"}
)
PINNED = replace(BEFORE, version=6, pins={"ws-7": "c2"})
FORMER = Former({"c1": 1.0, "c2": 1.0}, {"ws-7": "c1"})


@pytest.mark.parametrize(
    "after",
    [
        BEFORE,
        replace(BEFORE, version=4),
        replace(BEFORE, version=6),
        replace(PINNED, former=FORMER),
        replace(PINNED, version=7),  # 6 was missed: it had the `former`
        replace(BEFORE, version=7, former=Former({"c1": 1.0, "c2": 1.0}, {"ws-7": "c2"})),
    ],
)
def test_it_may_be_taken(after: Topology) -> None:
    check_move(BEFORE, after)


@pytest.mark.parametrize(
    ("after", "path"),
    [
        (replace(PINNED, version=5, former=FORMER), "$.version"),
        (PINNED, "$.former"),
        (replace(PINNED, former=Former({"c1": 1.0}, {"ws-7": "c1"})), "$.former"),
    ],
)
def test_it_must_not_be_taken(after: Topology, path: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_move(BEFORE, after)
    assert str(refused.value).startswith(path)
