"""The zones of a region: failure domains between which bytes cost money and time.

regions.eu.pool.m1.zone     the zone of a memcached server
regions.eu.zones.eu-a       the zone of an instance, for clients that prefer their own
zone (CACHESVC_ZONE)        the zone of this instance, in its own document
regions.eu.rings            one ring of keys for the region, or one for each zone
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import TypeAlias

from cachesvc.config.mistakes import Mistakes
from cachesvc.config.service import Service
from cachesvc.config.topology import Region, Topology

LOPSIDED = 0.5
"""A zone is lopsided if its servers have less than this part of another zone's weight."""

Weights: TypeAlias = dict[str, float]
"""The weight of all servers of a pool in a zone, by zone."""


def zone_of(service: Service, topology: Topology) -> str:
    """Returns the zone of the instance; empty if neither document says it."""
    return service.zone or topology.regions[service.region].zones.get(service.instance, "")


def zone_parts(region: Region) -> dict[str, float]:
    """Returns the part of the region's instances in each zone; empty stands for no zone.

    If nobody says where instances are, each zone with servers has as many as another.
    """
    zones = [region.zones.get(name, "") for name in region.instances]
    if not any(zones):
        zones = sorted({server.zone for server in region.pool.values()})
    return {zone: zones.count(zone) / len(zones) for zone in zones}


def doubts_of(topology: Topology) -> Iterator[str]:
    """Yields a sentence for each zone whose ring may be too small for its load."""
    for name, region in topology.regions.items():
        if region.rings == "zone":
            yield from (f"$.regions.{name}: {why}" for why in _doubts_of_region(region))


def _doubts_of_region(region: Region) -> Iterator[str]:
    weights, servers = _weights_of(region), defaultdict[str, int](int)
    for one in region.pool.values():
        servers[one.zone] += 1
    largest = max(weights, key=weights.__getitem__)
    for zone in sorted({*weights, *region.zones.values()}):
        if zone not in weights:
            yield (
                f"zone {zone} has instances and no memcached server: they keep their copies on the servers of"
                " all zones"
            )
        elif weights[zone] < LOPSIDED * weights[largest]:
            yield (
                f"zone {zone} is lopsided: its ring has the weight {weights[zone]:g}, that of zone"
                f" {largest} has {weights[largest]:g}, and each of them keeps copies of all keys"
            )
        elif servers[zone] == 1:
            yield (
                f"zone {zone} has one memcached server: without it, all keys of the zone go to"
                f" {'the gutter' if region.gutter else 'L3'}"
            )


def _weights_of(region: Region) -> Weights:
    weights = defaultdict[str, float](float)
    for server in region.pool.values():
        weights[server.zone] += server.weight
    return weights


def note_other_zone(service: Service, topology: Topology, found: Mistakes) -> None:
    """Notes a zone of the instance that is another than the one that clients are told."""
    here = topology.regions.get(service.region)
    told = here.zones.get(service.instance, "") if here is not None else ""
    found.require(
        not (service.zone and told) or service.zone == told,
        "$.zone",
        f"is {service.zone!r}, but clients take {service.instance} for one of zone {told!r}: give"
        f" regions.{service.region}.zones.{service.instance} of the topology the same one",
    )
