"""The ring that an instance in a zone has, and the zones that somebody should look at."""

from typing import Any

import pytest

from cachesvc.config.mistakes import Mistakes
from cachesvc.config.service import Service
from cachesvc.config.topology import Cell, MemcachedServer, Namespace, Region, Topology
from cachesvc.config.zones import doubts_of, note_other_zone, zone_of, zone_parts


def server(zone: str = "", weight: float = 1.0) -> MemcachedServer:
    return MemcachedServer("stand-in", weight, zone)


POOL = {"a1": server("a"), "a2": server("a"), "b1": server("b"), "b2": server("b")}


def region(rings: str = "zone", **more: object) -> Region:
    named: Any = {"instances": {"eu-a": "http://a", "eu-b": "http://b"}, "zones": {"eu-a": "a", "eu-b": "b"}}
    return Region("redis://q", **{"pool": POOL, "rings": rings, **named, **more})


def topology(here: Region) -> Topology:
    return Topology(1, {"eu": here}, {"c1": Cell("eu", "redis://c")}, {"docs": Namespace("tests")})


def test_an_instance_has_the_ring_of_its_zone_or_that_of_all() -> None:
    assert set(region().ring_of("a")) == {"a1", "a2"}
    assert set(region().ring_of("")) == set(region().ring_of("c")) == set(POOL)
    assert set(region("region").ring_of("a")) == set(POOL)


def test_the_gutter_is_that_of_the_zone_or_all_of_it() -> None:
    here = region(gutter={"g1": server("a"), "g2": server()})
    assert set(here.gutter_of("a")) == {"g1"}
    assert set(here.gutter_of("b")) == {"g1", "g2"}
    assert region().gutter_of("a") == {}


def test_the_own_document_says_the_zone_else_the_topology() -> None:
    shared = topology(region())
    assert zone_of(Service("eu", "eu-b"), shared) == "b"
    assert zone_of(Service("eu", "eu-b", zone="a"), shared) == "a"
    assert zone_of(Service("eu", "eu-x"), shared) == ""
    found = Mistakes()
    note_other_zone(Service("eu", "eu-b", zone="b"), shared, found)
    note_other_zone(Service("eu", "eu-x", zone="a"), shared, found)
    assert not found.noted()
    note_other_zone(Service("eu", "eu-b", zone="a"), shared, found)
    (said,) = found.noted()
    assert str(said) == (
        "$.zone: is 'a', but clients take eu-b for one of zone 'b': give regions.eu.zones.eu-b of the"
        " topology the same one"
    )


@pytest.mark.parametrize(
    ("here", "said"),
    [
        (region(), []),
        (region("region", pool={"a1": server("a"), "b1": server()}), []),
        (
            region(pool=POOL | {"a3": server("a", 3.0)}),
            [
                "zone b is lopsided: its ring has the weight 2, that of zone a has 5, and each of them keeps"
                " copies of all keys"
            ],
        ),
        (
            region(pool={"a1": server("a", 2.0), "b1": server("b"), "b2": server("b")}),
            ["zone a has one memcached server: without it, all keys of the zone go to L3"],
        ),
        (
            region(zones={"eu-a": "a", "eu-b": "c"}, pool={"a1": server("a"), "a2": server("a")}),
            [
                "zone c has instances and no memcached server: they keep their copies on the servers of all"
                " zones"
            ],
        ),
    ],
)
def test_zones_that_may_be_too_small_are_named(here: Region, said: list[str]) -> None:
    assert list(doubts_of(topology(here))) == [f"$.regions.eu: {one}" for one in said]


def test_the_parts_of_zones_are_those_of_their_instances() -> None:
    assert zone_parts(region()) == {"a": 0.5, "b": 0.5}
    assert zone_parts(region(zones={"eu-a": "a"})) == {"a": 0.5, "": 0.5}
    assert zone_parts(region(instances={}, zones={})) == {"a": 0.5, "b": 0.5}
