"""The time between two scrapes of an instance: rates, and quantiles of histograms."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from msgspec import Struct

from cachesvc.commands.top.exposition import Exposition

Buckets = Mapping[float, float]
"""Counts by upper bound, cumulative as in Prometheus: each bucket holds those of the
smaller ones."""


class Interval(Struct, frozen=True):
    """Two scrapes of one instance, and the time between them."""

    before: Exposition
    after: Exposition
    seconds: float

    def rate(self, name: str, **wanted: str) -> float | None:
        """The rate per second of the matching counters; None if there are none."""
        found = self.rates(name, "", **wanted)
        return sum(found.values()) if found else None

    def rates(self, name: str, label: str, **wanted: str) -> dict[str, float]:
        """The rates per second by the values of a label."""
        found: defaultdict[str, float] = defaultdict(float)
        for labels, increase in self._increases(name, wanted):
            found[labels.get(label, "")] += increase / self.seconds
        return dict(found)

    def buckets(self, name: str, **wanted: str) -> Buckets:
        """The values that a histogram counted in the interval, by bucket."""
        found: defaultdict[float, float] = defaultdict(float)
        for labels, increase in self._increases(f"{name}_bucket", wanted):
            found[float(labels["le"])] += increase
        return found

    def _increases(self, name: str, wanted: Mapping[str, str]) -> Iterable[tuple[Mapping[str, str], float]]:
        """Yields labels and increase of each matching counter.

        A counter that is smaller than before started anew with its instance: then its value is
        its increase.
        """
        earlier = {frozenset(labels.items()): value for labels, value in self.before.matching(name, wanted)}
        for labels, value in self.after.matching(name, wanted):
            was = earlier.get(frozenset(labels.items()), 0.0)
            yield labels, value - was if value >= was else value


def together(several: Iterable[Buckets]) -> Buckets:
    """The sum of several histograms."""
    found: defaultdict[float, float] = defaultdict(float)
    for buckets in several:
        for bound, count in buckets.items():
            found[bound] += count
    return found


def quantile(share: float, buckets: Buckets) -> float | None:
    """The quantile of a histogram, or None if it counted nothing.

    As `histogram_quantile` of Prometheus: linear within a bucket, and the largest finite bound
    for a quantile beyond it.
    """
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
    """The share of `part` in both together; None if both are 0 or unknown."""
    whole = (part or 0.0) + (rest or 0.0)
    return (part or 0.0) / whole if whole else None
