"""Distributions as plain integers.

An observation increments one bucket; telemetry reads the buckets when it is scraped.
"""

from bisect import bisect_left
from collections.abc import Sequence

from msgspec import Struct

_FAST = (0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024)
DURATIONS = (*_FAST, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds in seconds. They start at 100 µs; nearly every L1 hit stays below that."""
LAGS = (*DURATIONS, 30.0, 60.0, 300.0, 900.0)
"""Bounds in seconds, up to 15 minutes.

A change may wait that long until a queue or a cell comes back.
"""
AGES = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0)
"""Bounds in seconds, up to a day: the ages that stale copies reach."""
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
"""Bounds for the number of items in a batch."""


class Histogram(Struct):
    """One distribution: counts per bucket, and the sum of all observed values."""

    bounds: tuple[float, ...]
    """The upper bounds of the buckets, inclusive; one more bucket lies beyond the last bound."""
    buckets: list[int]
    """Observations per bucket, not cumulative."""
    total: float = 0.0
    """The sum of the observed values."""

    @classmethod
    def of(cls, bounds: tuple[float, ...]) -> "Histogram":
        """An empty histogram with these bounds."""
        return cls(bounds, [0] * (len(bounds) + 1))

    def observe(self, value: float) -> None:
        """Counts `value` in its bucket."""
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> Sequence[int]:
        """Observations at or below each bound, and last the number of all observations."""
        running, found = 0, []
        for count in self.buckets:
            running += count
            found.append(running)
        return found
