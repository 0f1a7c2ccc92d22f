"""Latencies as an HDR histogram keeps them: microseconds at three significant digits, and how many there were of each.

Sums of two are exact, so that percentiles of a run, of a route, or of several workers are those of all their requests, and
not means of percentiles. A kept value is never smaller than what was measured, and at most 1 % larger.
"""

from collections.abc import Mapping, MutableMapping
from typing import TypeAlias

Latencies: TypeAlias = dict[int, int]
"""Microseconds, and how many requests took them."""


def keep(latencies: MutableMapping[int, int], seconds: float) -> None:
    micros = _rounded_up(max(0, round(seconds * 1e6)))
    latencies[micros] = latencies.get(micros, 0) + 1


def add(latencies: MutableMapping[int, int], more: Mapping[int, int]) -> None:
    for micros, count in more.items():
        latencies[micros] = latencies.get(micros, 0) + count


def percentiles_ms(latencies: Mapping[int, int], shares: tuple[float, ...]) -> list[float | None]:
    """For each share (0 to 1, ascending) the smallest latency that at least so many did not exceed; None if there is none."""
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
