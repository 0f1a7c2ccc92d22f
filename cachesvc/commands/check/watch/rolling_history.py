"""The history of a watch without end: only as much as the judge needs for the last round's
reads."""

from collections import deque
from collections.abc import Callable

from cachesvc.commands.check.history import Merged, Read, Record, Run

MERGES_SECONDS = 30.0
"""How long merges are kept, which are many. A fence that was merged earlier still obliges
reads by the staleness bound."""


class RollingHistory:
    """The records of the last round's reads, the recent merges, and the recent writes and
    announcements.

    `keep_seconds`: how long writes and announcements are kept. It must be longer than any read
    can lag behind, lawfully or not.
    """

    def __init__(self, run: Run, keep_seconds: float, now: Callable[[], int]) -> None:
        self._run = run
        self._keep_us = round(keep_seconds * 1e6)
        self._now = now
        self._told: deque[tuple[int, Record]] = deque()
        """Writes, announcements, fences and loads, each with the time at which it was added."""
        self._merges: deque[Merged] = deque()
        self._reads: list[Record] = []

    def __repr__(self) -> str:
        return (
            f"<RollingHistory [{len(self._told)} told, {len(self._merges)} merges, {len(self._reads)} reads]>"
        )

    def __len__(self) -> int:
        return len(self._told) + len(self._merges) + len(self._reads)

    def add(self, record: Record) -> None:
        """Adds a record, and forgets those that are too old."""
        if isinstance(record, Merged):
            self._merges.append(record)
        elif isinstance(record, Read):
            self._reads.append(record)
        else:
            self._told.append((self._now(), record))
        self._forget()

    def take(self) -> list[Record]:
        """Returns all records. Reads are returned once; everything else stays until it is too old."""
        reads, self._reads = self._reads, []
        return [self._run, *(record for _, record in self._told), *self._merges, *reads]

    def _forget(self) -> None:
        now = self._now()
        while self._told and self._told[0][0] < now - self._keep_us:
            self._told.popleft()
        while self._merges and self._merges[0].at < now - MERGES_SECONDS * 1e6:
            self._merges.popleft()
