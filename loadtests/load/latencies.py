"""Latencies as an HDR histogram keeps them: counts of microseconds with three digits.

Histograms can be added without error, so percentiles of a run, of a route, or of several workers
are percentiles of all their requests, not means of percentiles. A value that is kept is never
smaller than the measured one, and at most 1 % larger.
"""

from collections.abc import Mapping, MutableMapping
from typing import TypeAlias

Latencies: TypeAlias = dict[int, int]
"""The number of requests by their latency in microseconds."""


def keep(latencies: MutableMapping[int, int], seconds: float) -> None:
    """Counts one latency."""
    micros = _rounded_up(max(0, round(seconds * 1e6)))
    latencies[micros] = latencies.get(micros, 0) + 1


def add(latencies: MutableMapping[int, int], more: Mapping[int, int]) -> None:
    """Adds the counts of `more` to `latencies`."""
    for micros, count in more.items():
        latencies[micros] = latencies.get(micros, 0) + count


def percentiles_ms(latencies: Mapping[int, int], shares: tuple[float, ...]) -> list[float | None]:
    """For each share, the least latency in ms that at least this share of requests did not
    exceed.

    `shares` are ascending, 0 to 1. None where no latency is recorded.
    """
    if not latencies:
        return [None] * len(shares)
    total, passed = sum(latencies.values()), 0
    found: list[float | None] = []
    for micros in sorted(latencies):
        passed += latencies[micros]
        while len(found) < len(shares) and passed >= shares[len(found)] * total:
            found.append(micros / 1e3)
    return found


def _rounded_up(micros: int) -> int:
    if micros < 1000:
        return micros
    step = int(10 ** (len(str(micros)) - 3))
    return -(-micros // step) * step
