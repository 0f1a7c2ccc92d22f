"""Scales and ticks: from values to places in a picture. No I/O."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

STEPS = (1, 2, 5, 10)


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] to [start, end] in pixels; values outside are placed at the edge."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """The place of a value in pixels."""
        inside = min(max(value, self.low), self.high)
        if self.is_log:
            share = math.log(inside / self.low) / math.log(self.high / self.low)
        else:
            share = (inside - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, wanted: int) -> list[float]:
        """Round values: powers of ten on a log scale, else about `wanted` of them."""
        return list(_decades(self.low, self.high) if self.is_log else _evenly(self.low, self.high, wanted))


def reaching(highest: float, start: float, end: float) -> Scale:
    """A scale from 0 to a round value at or above `highest`."""
    step = round_step(max(highest, 1.0), 4)
    return Scale(0.0, math.ceil(max(highest, 1.0) / step) * step, start, end)


def log_reaching(lowest: float, highest: float, start: float, end: float) -> Scale:
    """A log scale of whole decades around both values, at least two decades."""
    low = 10.0 ** math.floor(math.log10(max(lowest, 0.01)))
    high = 10.0 ** math.ceil(math.log10(max(highest, low * 100)))
    return Scale(low, high, start, end, is_log=True)


def round_step(span: float, wanted: int) -> float:
    """1, 2 or 5 times a power of ten, so that about `wanted` steps fill the span."""
    rough = span / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in STEPS if step * power >= rough * 0.999)


def _evenly(low: float, high: float, wanted: int) -> Iterator[float]:
    step = round_step(high - low, wanted)
    first = math.ceil(low / step)
    yield from (number * step for number in range(first, math.floor(high / step + 1e-9) + 1))


def _decades(low: float, high: float) -> Iterator[float]:
    yield from (10.0**power for power in range(round(math.log10(low)), round(math.log10(high)) + 1))
