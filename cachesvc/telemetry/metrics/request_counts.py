"""What the HTTP layer counts, as plain integers on the event loop: an increment is a fraction of a microsecond, where an
instrument call would be five. `metrics.py` reads them when it is scraped.

Namespaces in here are declared ones or empty, never a caller's text: the number of series stays bounded.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable

from cachesvc.telemetry.metrics.histogram import DURATIONS, Histogram


class Counts:
    """Requests by namespace, operation and outcome; keys of batches likewise; latency by operation."""

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.batch_keys: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.latency: defaultdict[str, Histogram] = defaultdict(_no_durations)

    def __repr__(self) -> str:
        return f"<Counts [{sum(self.requests.values())} requests, {sum(self.batch_keys.values())} keys of batches]>"

    def request(self, namespace: str, operation: str, outcome: str, seconds: float) -> None:
        self.requests[namespace, operation, outcome] += 1
        histogram = self.latency[operation]
        histogram.buckets[bisect_left(DURATIONS, seconds)] += 1  # `observe` by hand: this is once per request
        histogram.total += seconds

    def keys(self, namespace: str, operation: str, outcomes: Iterable[str]) -> None:
        for outcome, count in Counter(outcomes).items():
            self.batch_keys[namespace, operation, outcome] += count


def _no_durations() -> Histogram:
    return Histogram.of(DURATIONS)
