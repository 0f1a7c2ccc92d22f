"""The loads and bytes that a change of homes or servers brings, by a fleet's metrics.

    moved   = the share of the partitions that change their home cell
    L3 hits = reads per second that L3 answers now, of a namespace in a region

    reads that move per second = moved × L3 hits

A new home begins empty. While it is warm, such a read finds its copy in the former home. Where it
is cold (the document has no `former`, or the move began long ago), it is a load, once for each key:
the rate is that of the first moments, and falls as the keys come back. A copy in L1 or L2 is as
good as before, and a changed ring of memcached servers is warmed by the one before it
(`l2.warm_up`).
docs/moving.md says what the figures leave out, and how far off they are.

    bytes that a server takes = the bytes of each server that it takes from × the part that moves
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from cachesvc.commands.top.exposition import Exposition
from cachesvc.commands.topology.moves import Move, shares_of_keys, shares_of_partitions
from cachesvc.config.service import L3
from cachesvc.config.topology import Namespace, Topology


class Measured(Struct, frozen=True):
    """Two looks at the instances of a fleet."""

    seconds: float
    """The time between the looks."""
    first: Mapping[str, Exposition]
    """The instances' metrics by name, at the first look."""
    second: Mapping[str, Exposition]
    silent: Mapping[str, str] = {}
    """The instances that did not answer twice, and why: their reads are missing."""


class Loads(Struct, frozen=True):
    """The origin loads of a namespace in a region, per second."""

    namespace: str
    region: str
    now: float
    extra: float
    """The loads that come on top at first; 0 while new homes are warm."""
    moved: float
    """The reads per second that L3 answers, and whose home changes."""
    budget: float | None
    """The `loads_per_second` of the new document; None if there is no such limit."""

    @property
    def is_over(self) -> bool:
        return self.budget is not None and self.now + self.extra > self.budget


class Bytes(Struct, frozen=True):
    """The bytes that a server has to take."""

    server: str
    """`cell eu-3`, or `memcached m4 of eu`."""
    takes: float
    has: float | None
    """The bytes that it holds now; None if no instance knows the server yet."""
    limit: float | None
    """Its `maxmemory`, or memcached's limit; None if it has none, or nobody knows it."""

    @property
    def is_over(self) -> bool:
        return self.limit is not None and (self.has or 0.0) + self.takes > self.limit


class Forecast(Struct, frozen=True):
    """All that is to be expected: loads at first, and bytes in all."""

    instances: Sequence[str]
    seconds: float
    silent: Mapping[str, str]
    loads: Sequence[Loads]
    bytes: Sequence[Bytes]


def forecast(
    before: Topology, after: Topology, partitions: Sequence[Move], keys: Sequence[Move], measured: Measured
) -> Forecast:
    """Returns what `after` will bring; the moves are those of the difference."""
    regions = {name: region for region, one in before.regions.items() for name in one.instances}
    by_region: defaultdict[str, list[str]] = defaultdict(list)
    for instance in measured.second:
        by_region[regions.get(instance.rpartition("/")[2], "")].append(instance)
    return Forecast(
        sorted(measured.second),
        measured.seconds,
        measured.silent,
        list(_loads(before, after, partitions, measured, by_region)),
        [
            *_bytes("cell {}", partitions, shares_of_partitions(before), _CELL, measured.second.values()),
            *_bytes_of_pools(before, after, keys, measured, by_region),
        ],
    )


def _region_of(ring: str) -> str:
    return ring.partition(" ")[0]


# loads ---------------------------------------------------------------------------------------------


def _loads(
    before: Topology,
    after: Topology,
    partitions: Sequence[Move],
    measured: Measured,
    by_region: Mapping[str, Sequence[str]],
) -> Iterator[Loads]:
    moved, is_warm = sum(move.share for move in partitions), _is_warm(after)
    for namespace in sorted(before.namespaces.keys() & after.namespaces.keys()):
        for region, instances in sorted(by_region.items()):
            rates = [_rates(measured, instance, namespace) for instance in instances]
            if reads := moved * sum(hits for hits, _ in rates):
                now, extra = sum(loads for _, loads in rates), 0.0 if is_warm else reads
                yield Loads(namespace, region, now, extra, reads, _budget(after.namespaces[namespace]))


def _is_warm(after: Topology) -> bool:
    """True if new homes will find copies in the former ones, by the default of `l3.retention`."""
    former = after.former
    if former is None or former.since is None:
        return former is not None
    return former.since.timestamp() + L3().retention.seconds > time.time()


def _rates(measured: Measured, instance: str, namespace: str) -> tuple[float, float]:
    """Returns the reads per second that L3 answered at an instance, and the loads."""
    was, now = (
        one[instance].by("answers_beyond_l1_total", "by", namespace=namespace)
        for one in (measured.first, measured.second)
    )
    grown = {by: max(0.0, count - was.get(by, 0.0)) / measured.seconds for by, count in now.items()}
    # Where callers load, a read that is answered with a miss is what the budget counts.
    return grown.get("l3", 0.0), grown.get("origin", 0.0) + grown.get("miss", 0.0)


def _budget(namespace: Namespace) -> float | None:
    budget = namespace.origin_budget
    return (budget.loads_per_second or None) if budget is not None else None


# bytes ---------------------------------------------------------------------------------------------

_CELL = ("cell", "cell_memory_bytes", "cell_memory_limit_bytes")
_MEMCACHED = ("server", "server_size_bytes", "server_limit_bytes")
"""The label that names the server, and the metrics of its bytes and of its limit."""


def _bytes_of_pools(
    before: Topology,
    after: Topology,
    keys: Sequence[Move],
    measured: Measured,
    by_region: Mapping[str, Sequence[str]],
) -> Iterator[Bytes]:
    shares = shares_of_keys(before, after)
    for ring in dict.fromkeys(move.where for move in keys):
        # Servers of two regions may have one name, and each region's instances tell of its own.
        told = [measured.second[instance] for instance in by_region.get(_region_of(ring), ())]
        moves = [move for move in keys if move.where == ring]
        yield from _bytes(f"memcached {{}} of {ring}", moves, shares[ring], _MEMCACHED, told)


def _bytes(
    shown: str,
    moves: Sequence[Move],
    shares: Mapping[str, float],
    metrics: tuple[str, str, str],
    told: Iterable[Exposition],
) -> Iterator[Bytes]:
    label, size, limit = metrics
    instances = list(told)

    def known(metric: str, server: str) -> float | None:
        """Returns what instances say of the server; each has asked the server itself."""
        found = [one.value(metric, **{label: server}) for one in instances]
        return max((value for value in found if value is not None), default=None)

    takes: defaultdict[str, float] = defaultdict(float)
    for move in moves:
        takes[move.after] += (known(size, move.before) or 0.0) * move.share / shares[move.before]
    for server, amount in takes.items():
        yield Bytes(shown.format(server), amount, known(size, server), known(limit, server) or None)
