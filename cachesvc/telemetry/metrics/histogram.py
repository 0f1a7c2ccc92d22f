"""Distributions as plain integers: one bucket is incremented per observation, and telemetry reads them at scrape time."""

from bisect import bisect_left
from collections.abc import Sequence

from msgspec import Struct

_FAST = (0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024)
DURATIONS = (*_FAST, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds. From 100 µs, below which nearly every L1 hit stays."""
LAGS = (*DURATIONS, 30.0, 60.0, 300.0, 900.0)
"""Seconds. A change may wait for a queue or a cell to come back."""
AGES = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0)
"""Seconds, up to a day: how old copies become."""
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
"""Items of a batch."""


class Histogram(Struct):
    bounds: tuple[float, ...]
    """The upper bounds of the buckets; beyond the last is one more."""
    buckets: list[int]
    """Observations per bucket, not cumulative."""
    total: float = 0.0
    """Of what was observed."""

    @classmethod
    def of(cls, bounds: tuple[float, ...]) -> "Histogram":
        return cls(bounds, [0] * (len(bounds) + 1))

    def observe(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> Sequence[int]:
        running, found = 0, []
        for count in self.buckets:
            running += count
            found.append(running)
        return found
