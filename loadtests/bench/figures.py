"""The arithmetic of a comparison: one measurement, pairs of them, and a row's verdict.

No I/O.

A row compares our side with the other side in pairs that ran right after one another, so that a
slow phase of the machine slows both. The row's ratio is the median of the ratios of the pairs,
not the ratio of the medians.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median


class BenchError(Exception):
    """A number would not be what it claims to be.

    Examples: the wrong tier, a wrong body, a failed answer, a server that did not start.
    """


@dataclass(frozen=True)
class Sample:
    """One measurement of one side."""

    figure: float
    """The figure in the row's unit: requests/s, keys/s, seconds, bytes."""
    process_share: float = math.nan
    """CPU time of the measured process over elapsed time."""
    server_busy: float = math.nan
    """Share of time that the core of the measured process was busy with any process.

    It is more than `process_share` if other processes used that core, too.
    """
    load_busy: float = math.nan
    """The same for the core of the load.

    Near 1 with `server_busy` below it: the load is the limit, and the figure is a lower bound.
    """

    @property
    def per_cpu_second(self) -> float:
        """The figure for one second of the measured process's CPU time."""
        return self.figure / self.process_share


@dataclass(frozen=True)
class Goal:
    """The goal of a row."""

    reach: float
    """The ratio to reach. 0: the row is shown and not judged."""
    at_most: bool = False
    """True if the ratio is a cost (latency, memory), so that smaller is better."""

    def met_by(self, ratio: float) -> bool:
        """True if the ratio reaches the goal."""
        return ratio <= self.reach if self.at_most else ratio >= self.reach

    def __str__(self) -> str:
        return "–" if self.reach == 0 else f"{'≤' if self.at_most else '≥'} {self.reach:g}"


@dataclass(frozen=True)
class Result:
    """The result of one row, for the table and the JSON file."""

    name: str
    unit: str
    goal: Goal
    pairs: tuple[tuple[Sample, Sample], ...]
    """(ours, theirs), in the order in which they ran."""
    note: str = ""
    cpu_bound: bool = False
    """True if both sides use all of their core when they get it.

    Only then are figures per CPU second comparable.
    """

    @property
    def ours(self) -> float:
        """The median of our figures."""
        return median(ours.figure for ours, _ in self.pairs)

    @property
    def theirs(self) -> float:
        """The median of their figures."""
        return median(theirs.figure for _, theirs in self.pairs)

    @property
    def ratios(self) -> list[float]:
        """Ours divided by theirs, for each pair."""
        return [ours.figure / theirs.figure for ours, theirs in self.pairs]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return median(self.ratios)

    @property
    def ok(self) -> bool:
        """True if the row reaches its goal."""
        return self.goal.met_by(self.ratio)

    @property
    def ratio_per_cpu(self) -> float:
        """The median ratio of figures per CPU second of the measured processes.

        It is the ratio that would be seen without other processes on their core.
        """
        if not self.cpu_bound:
            return math.nan
        return median(ours.per_cpu_second / theirs.per_cpu_second for ours, theirs in self.pairs)

    @property
    def load_bound(self) -> bool:
        """True if one side was held back by the load in most pairs.

        A side is held back if the load's core was full and its own core was not. Only rates can be.
        """
        return not self.goal.at_most and self._mostly(_held_back)

    @property
    def contended(self) -> bool:
        """In most pairs other processes took more than a tenth of the core of one side."""
        return self._mostly(lambda sample: sample.server_busy - sample.process_share > 0.1)

    def _mostly(self, claim: Callable[[Sample], bool]) -> bool:
        return sum(claim(ours) or claim(theirs) for ours, theirs in self.pairs) * 2 > len(self.pairs)

    def as_json(self) -> dict[str, object]:
        """The row as it stands in the JSON file."""
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
    """The nearest-rank percentile: the least value that `share` of the values do not exceed.

    `share` is 0 to 1; `ordered` must be ascending. Raises `ValueError` if it is empty.
    """
    if not ordered:
        raise ValueError("no percentile of nothing")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
