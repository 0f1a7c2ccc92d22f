"""The times without faults: outside every fault and the recovery time that follows it."""

from bisect import bisect_right
from collections.abc import Iterable

from cachesvc.commands.check.history import Fault


class FaultFreeTimes:
    """The times that no fault reaches, with `recovery_us` after the end of each fault
    excluded."""

    def __init__(self, faults: Iterable[Fault], recovery_us: int) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []
        """The begins and ends of the faulty times, which neither overlap nor touch."""
        for fault in sorted(faults, key=lambda fault: fault.started):
            self._trouble(fault.started, fault.ended + recovery_us)

    def _trouble(self, begins: int, ends: int) -> None:
        if self._ends and begins <= self._ends[-1]:
            self._ends[-1] = max(ends, self._ends[-1])
        else:
            self._begins.append(begins)
            self._ends.append(ends)

    def hold(self, begins: int, ends: int) -> bool:
        """True if no fault reaches into the time from `begins` to `ends`."""
        last = bisect_right(self._begins, ends) - 1
        return last < 0 or self._ends[last] < begins
