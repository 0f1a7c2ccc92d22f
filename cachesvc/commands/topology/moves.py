"""The partitions and keys that another topology moves.

Shares of memcached keys are exact: the arcs of both rings are compared. Shares of partitions are
those of names that are tried, as rendezvous hashing has no arcs.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

from cachesvc.config.topology import MemcachedServer, Topology
from cachesvc.model.entry import Key
from cachesvc.tiers.l2.ring import Ring
from cachesvc.tiers.l3.placement import Placement

TRIED = 20_000
"""Names of partitions that are tried. A share is off by about 0.4 percentage points."""
_CIRCLE = 1 << 64


class Move(Struct, frozen=True):
    """A share of the keys or partitions that go from one server to another one."""

    where: str
    """The region (and zone) whose memcached servers these are; empty for cells."""
    before: str
    after: str
    share: float
    """The part of all keys, or of all partitions, 0 to 1."""


class KeyMove(Struct, frozen=True):
    """A given key, and the servers that it moves between."""

    key: str
    where: str
    """As for `Move`."""
    before: str
    after: str


def moves_of_partitions(before: Topology, after: Topology) -> Sequence[Move]:
    """Returns the shares of partitions that change their home cell, the largest first."""
    was, now = Placement(before), Placement(after)
    found = Counter(
        (was.home(name), now.home(name))
        for number in range(TRIED)
        if was.home(name := f"{{tried-{number}}}") != now.home(name)
    )
    return [Move("", *cells, count / TRIED) for cells, count in found.most_common()]


def shares_of_partitions(topology: Topology) -> Mapping[str, float]:
    """Returns the share of the partitions that each cell is the home of."""
    placement = Placement(topology)
    found = Counter(placement.home(f"{{tried-{number}}}") for number in range(TRIED))
    return {cell: count / TRIED for cell, count in found.items()}


def moves_of_keys(before: Topology, after: Topology) -> Iterator[Move]:
    """Yields the shares of keys that change their memcached server, ring by ring."""
    for name, was, now in _rings(before, after):
        if was.weights == now.weights:
            continue
        found: Counter[tuple[str, str]] = Counter()
        points = sorted({0, *was.points, *now.points, _CIRCLE})
        for start, end in pairwise(points):
            # A key belongs to the first point at or after its digest: `end` for all of the arc.
            owners = (was.server(end), now.server(end))
            if owners[0] != owners[1]:
                found[owners] += end - start
        yield from (Move(name, *owners, size / _CIRCLE) for owners, size in found.most_common())


def shares_of_keys(before: Topology, after: Topology) -> Mapping[str, Mapping[str, float]]:
    """Returns the share of the keys that each server has now, ring by ring."""
    found: dict[str, Counter[str]] = {}
    for name, was, _ in _rings(before, after):
        sizes = found[name] = Counter()
        for start, end in pairwise(sorted({0, *was.points, _CIRCLE})):
            sizes[was.server(end)] += end - start
    return {name: {server: size / _CIRCLE for server, size in sizes.items()} for name, sizes in found.items()}


def moves_of_given(before: Topology, after: Topology, keys: Iterable[Key]) -> Iterator[KeyMove]:
    """Yields the servers that these keys change, in every region and every cell."""
    was, now = Placement(before), Placement(after)
    rings = list(_rings(before, after))
    for key in keys:
        shown = f"{key.namespace}/{key.text}"
        if (cell := was.home(key.text)) != now.home(key.text):
            yield KeyMove(shown, "", cell, now.home(key.text))
        for name, was_ring, now_ring in rings:
            server = was_ring.server(key.digest)
            if server != now_ring.server(key.digest):
                yield KeyMove(shown, name, server, now_ring.server(key.digest))


def both(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Returns the names that both have, in the order of the first."""
    return [name for name in before if name in after]


def _rings(before: Topology, after: Topology) -> Iterator[tuple[str, Ring, Ring]]:
    """Yields each ring of memcached servers with its name, as it was and as it is to be."""
    for name in both(before.regions, after.regions):
        was, now = before.regions[name], after.regions[name]
        if not was.pool or not now.pool:
            continue
        servers = (*was.pool.values(), *now.pool.values())
        for zone in sorted({one.zone for one in servers}) if "zone" in (was.rings, now.rings) else [""]:
            yield f"{name} zone {zone}" if zone else name, _ring(was.ring_of(zone)), _ring(now.ring_of(zone))


def _ring(servers: Mapping[str, MemcachedServer]) -> Ring:
    return Ring({name: server.weight for name, server in servers.items()})
