"""The counters of the HTTP layer.

They are plain integers on the event loop: an increment costs a fraction of a microsecond, where
an instrument call would cost five. `metrics.py` reads them when it is scraped.

Namespaces in here are declared ones or empty, never a caller's text, so the number of series
stays bounded.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable

from cachesvc.telemetry.metrics.histogram import DURATIONS, Histogram


class Counts:
    """The counters: by (namespace, operation, outcome), by operation, and by kind of problem."""

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.batch_keys: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.refusals: defaultdict[str, int] = defaultdict(int)
        """Requests that were refused, or failed, as a whole, by the kind of problem."""
        self.latency: defaultdict[str, Histogram] = defaultdict(_no_durations)

    def __repr__(self) -> str:
        requests, keys = sum(self.requests.values()), sum(self.batch_keys.values())
        return f"<Counts [{requests} requests, {keys} keys of batches]>"

    def request(self, namespace: str, operation: str, outcome: str, seconds: float) -> None:
        """Counts one answered request, which took `seconds` from the parsed request to its reply.

        The time in which its body came is not among them.
        """
        self.requests[namespace, operation, outcome] += 1
        histogram = self.latency[operation]
        histogram.buckets[bisect_left(DURATIONS, seconds)] += 1  # `observe` by hand: this is once per request
        histogram.total += seconds

    def keys(self, namespace: str, operation: str, outcomes: Iterable[str]) -> None:
        """Counts the keys of one batch by their outcomes."""
        for outcome, count in Counter(outcomes).items():
            self.batch_keys[namespace, operation, outcome] += count


def _no_durations() -> Histogram:
    return Histogram.of(DURATIONS)
