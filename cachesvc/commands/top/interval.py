"""What happened between two scrapes of an instance: rates, and quantiles of what histograms counted meanwhile."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from msgspec import Struct

from cachesvc.commands.top.exposition import Exposition

Buckets = Mapping[float, float]
"""Upper bound → how many were at most that, as Prometheus counts: each bucket holds those below it."""


class Interval(Struct, frozen=True):
    before: Exposition
    after: Exposition
    seconds: float

    def rate(self, name: str, **wanted: str) -> float | None:
        """A second, of the counters that match; None if there is no such counter."""
        found = self.rates(name, "", **wanted)
        return sum(found.values()) if found else None

    def rates(self, name: str, label: str, **wanted: str) -> dict[str, float]:
        """By the values of a label."""
        found: defaultdict[str, float] = defaultdict(float)
        for labels, increase in self._increases(name, wanted):
            found[labels.get(label, "")] += increase / self.seconds
        return dict(found)

    def buckets(self, name: str, **wanted: str) -> Buckets:
        """Of a histogram, what came in the interval."""
        found: defaultdict[float, float] = defaultdict(float)
        for labels, increase in self._increases(f"{name}_bucket", wanted):
            found[float(labels["le"])] += increase
        return found

    def _increases(self, name: str, wanted: Mapping[str, str]) -> Iterable[tuple[Mapping[str, str], float]]:
        """A counter that is less than before was begun anew by a restart: all it has came since."""
        earlier = {frozenset(labels.items()): value for labels, value in self.before.matching(name, wanted)}
        for labels, value in self.after.matching(name, wanted):
            was = earlier.get(frozenset(labels.items()), 0.0)
            yield labels, value - was if value >= was else value


def together(several: Iterable[Buckets]) -> Buckets:
    found: defaultdict[float, float] = defaultdict(float)
    for buckets in several:
        for bound, count in buckets.items():
            found[bound] += count
    return found


def quantile(share: float, buckets: Buckets) -> float | None:
    """As Prometheus's `histogram_quantile`: linear within a bucket, the last finite bound for what is beyond it. None if nothing
    was counted."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if not total:
        return None
    rank = share * total
    lower, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank and buckets[bound] > below:
            return (
                lower
                if math.isinf(bound)
                else lower + (bound - lower) * (rank - below) / (buckets[bound] - below)
            )
        lower, below = bound, buckets[bound]
    return lower


def share_of(part: float | None, rest: float | None) -> float | None:
    """What part the first is of both; None where nothing happened."""
    whole = (part or 0.0) + (rest or 0.0)
    return (part or 0.0) / whole if whole else None
