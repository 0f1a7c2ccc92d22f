"""The arithmetic of a comparison: one measurement, pairs of them, and what is said of a row. Pure.

A row compares ours with theirs in pairs that ran right after one another, so that what slows the machine down for a while
slows both. Its ratio is the median of the ratios of the pairs, not the ratio of the medians.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median


class BenchError(Exception):
    """A number that would not be what it claims: a wrong tier, a wrong body, a failed answer, a server that did not start."""


@dataclass(frozen=True)
class Sample:
    """One measurement of one side."""

    figure: float
    """In the row's unit: requests/s, keys/s, seconds, bytes."""
    process_share: float = math.nan
    """CPU time of the measured process over elapsed time."""
    server_busy: float = math.nan
    """Share of time that the measured process's core was busy, with whatever; more than `process_share` if others took of it."""
    load_busy: float = math.nan
    """The same for the core of the load. Near 1 with `server_busy` below it: the load limits, and the figure is a lower bound."""

    @property
    def per_cpu_second(self) -> float:
        return self.figure / self.process_share


@dataclass(frozen=True)
class Goal:
    """What a row must reach."""

    reach: float
    """0: nothing. The row shows, and is not judged."""
    at_most: bool = False
    """The ratio is a cost (latency, memory): smaller is better."""

    def met_by(self, ratio: float) -> bool:
        return ratio <= self.reach if self.at_most else ratio >= self.reach

    def __str__(self) -> str:
        return "–" if self.reach == 0 else f"{'≤' if self.at_most else '≥'} {self.reach:g}"


@dataclass(frozen=True)
class Result:
    """What is printed and written of one row."""

    name: str
    unit: str
    goal: Goal
    pairs: tuple[tuple[Sample, Sample], ...]
    """(ours, theirs), in the order they ran."""
    note: str = ""
    cpu_bound: bool = False
    """Both sides use all of their core if they get it, so that figures per CPU second compare."""

    @property
    def ours(self) -> float:
        return median(ours.figure for ours, _ in self.pairs)

    @property
    def theirs(self) -> float:
        return median(theirs.figure for _, theirs in self.pairs)

    @property
    def ratios(self) -> list[float]:
        return [ours.figure / theirs.figure for ours, theirs in self.pairs]

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def ok(self) -> bool:
        return self.goal.met_by(self.ratio)

    @property
    def ratio_per_cpu(self) -> float:
        """The median ratio of figures per CPU second of the measured processes: what it would be without others on their core."""
        if not self.cpu_bound:
            return math.nan
        return median(ours.per_cpu_second / theirs.per_cpu_second for ours, theirs in self.pairs)

    @property
    def load_bound(self) -> bool:
        """In most pairs of a rate the load's core was full and one side's was not: that side was held back by the load."""
        return not self.goal.at_most and self._mostly(_held_back)

    @property
    def contended(self) -> bool:
        """In most pairs other processes took more than a tenth of the core of one side."""
        return self._mostly(lambda sample: sample.server_busy - sample.process_share > 0.1)

    def _mostly(self, claim: Callable[[Sample], bool]) -> bool:
        return sum(claim(ours) or claim(theirs) for ours, theirs in self.pairs) * 2 > len(self.pairs)

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "ours": self.ours,
            "theirs": self.theirs,
            "ratio": self.ratio,
            "reach": self.goal.reach,
            "ok": self.ok,
            "unit": self.unit,
            "at_most": self.goal.at_most,
            "ratios": self.ratios,
            "ratio_per_cpu": None if math.isnan(self.ratio_per_cpu) else self.ratio_per_cpu,
            "load_bound": self.load_bound,
            "contended": self.contended,
            "note": self.note,
        }


def _held_back(sample: Sample) -> bool:
    return sample.load_busy > 0.97 and sample.server_busy < 0.90


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank: the smallest value that at least `share` (0 to 1) of them do not exceed. `ordered` ascends, not empty."""
    if not ordered:
        raise ValueError("no percentile of nothing")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
