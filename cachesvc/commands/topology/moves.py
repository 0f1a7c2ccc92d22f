"""The partitions and keys that another topology moves.

Shares of memcached keys are exact: the arcs of both rings are compared. Shares of partitions are
those of names that are tried, as rendezvous hashing has no arcs.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

from cachesvc.config.topology import MemcachedServer, Region, Topology
from cachesvc.model.entry import Key
from cachesvc.tiers.l2.ring import Ring
from cachesvc.tiers.l3.placement import Placement

TRIED = 20_000
"""Names of partitions that are tried. A share is off by about 0.4 percentage points."""
_CIRCLE = 1 << 64


class Move(Struct, frozen=True):
    """A share of the keys or partitions that go from one server to another one."""

    where: str
    """The region whose memcached servers these are; empty for cells."""
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


def moves_of_keys(before: Topology, after: Topology) -> Iterator[Move]:
    """Yields the shares of keys that change their memcached server, region by region."""
    for name in both(before.regions, after.regions):
        was, now = _ring(before.regions[name]), _ring(after.regions[name])
        if was is None or now is None or was.weights == now.weights:
            continue
        found: Counter[tuple[str, str]] = Counter()
        points = sorted({0, *was.points, *now.points, _CIRCLE})
        for start, end in pairwise(points):
            # A key belongs to the first point at or after its digest: `end` for all of the arc.
            owners = (was.server(end), now.server(end))
            if owners[0] != owners[1]:
                found[owners] += end - start
        yield from (Move(name, *owners, size / _CIRCLE) for owners, size in found.most_common())


def moves_of_given(before: Topology, after: Topology, keys: Iterable[Key]) -> Iterator[KeyMove]:
    """Yields the servers that these keys change, in every region and every cell."""
    was, now = Placement(before), Placement(after)
    rings = [
        (name, was_ring, now_ring)
        for name in both(before.regions, after.regions)
        if (was_ring := _ring(before.regions[name])) and (now_ring := _ring(after.regions[name]))
    ]
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


def _ring(region: Region) -> Ring | None:
    return Ring(_weights(region.pool)) if region.pool else None


def _weights(pool: Mapping[str, MemcachedServer]) -> dict[str, float]:
    return {name: server.weight for name, server in pool.items()}
