"""What the HTTP layer counts, as plain integers on the event loop: an increment is a fraction of a microsecond, where an
instrument call would be five. `metrics.py` reads them when it is scraped.

Namespaces in here are declared ones or empty, never a caller's text: the number of series stays bounded.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from msgspec import Struct

BOUNDS = (0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency buckets, seconds. From 100 µs, below which nearly every L1 hit stays; the last is infinity."""


class Histogram(Struct):
    buckets: list[int]
    """Observations per bucket, not cumulative; one more than there are bounds."""
    total: float = 0.0
    """Seconds."""

    @classmethod
    def empty(cls) -> "Histogram":
        return cls([0] * (len(BOUNDS) + 1))

    def cumulative(self) -> Sequence[int]:
        running, found = 0, []
        for count in self.buckets:
            running += count
            found.append(running)
        return found


class Counts:
    """Requests by namespace, operation and outcome; keys of batches likewise; latency by operation."""

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.batch_keys: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.latency: defaultdict[str, Histogram] = defaultdict(Histogram.empty)

    def __repr__(self) -> str:
        return f"<Counts [{sum(self.requests.values())} requests, {sum(self.batch_keys.values())} keys of batches]>"

    def request(self, namespace: str, operation: str, outcome: str, seconds: float) -> None:
        self.requests[namespace, operation, outcome] += 1
        histogram = self.latency[operation]
        histogram.buckets[bisect_left(BOUNDS, seconds)] += 1
        histogram.total += seconds

    def keys(self, namespace: str, operation: str, outcomes: Iterable[str]) -> None:
        for outcome, count in Counter(outcomes).items():
            self.batch_keys[namespace, operation, outcome] += count
