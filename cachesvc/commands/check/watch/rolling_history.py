"""The history of a watch that runs for ever: as much of it as the judge needs for the reads of the last round, and no more."""

from collections import deque
from collections.abc import Callable

from cachesvc.commands.check.history import Merged, Read, Record, Run

MERGES_SECONDS = 30.0
"""Merges are many. A fence that was merged longer ago obliges its readers by the staleness bound all the same."""


class RollingHistory:
    """`keep_seconds`: of what was written and announced. Longer than any read may lawfully, or unlawfully, lag behind."""

    def __init__(self, run: Run, keep_seconds: float, now: Callable[[], int]) -> None:
        self._run = run
        self._keep_us = round(keep_seconds * 1e6)
        self._now = now
        self._told: deque[tuple[int, Record]] = deque()
        """With when it was noted."""
        self._merges: deque[Merged] = deque()
        self._reads: list[Record] = []

    def __repr__(self) -> str:
        return (
            f"<RollingHistory [{len(self._told)} told, {len(self._merges)} merges, {len(self._reads)} reads]>"
        )

    def __len__(self) -> int:
        return len(self._told) + len(self._merges) + len(self._reads)

    def add(self, record: Record) -> None:
        if isinstance(record, Merged):
            self._merges.append(record)
        elif isinstance(record, Read):
            self._reads.append(record)
        else:
            self._told.append((self._now(), record))
        self._forget()

    def take(self) -> list[Record]:
        """All there is. Its reads are not given again."""
        reads, self._reads = self._reads, []
        return [self._run, *(record for _, record in self._told), *self._merges, *reads]

    def _forget(self) -> None:
        now = self._now()
        while self._told and self._told[0][0] < now - self._keep_us:
            self._told.popleft()
        while self._merges and self._merges[0].at < now - MERGES_SECONDS * 1e6:
            self._merges.popleft()
