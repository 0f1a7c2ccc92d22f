"""A history, sorted and indexed for the checks."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TypeVar

from cachesvc.changes.contract import epoch_of, position_of
from cachesvc.commands.check.history import (
    Announcement,
    Fault,
    Fenced,
    Load,
    Merged,
    Read,
    Record,
    Run,
    Write,
)

RecordT = TypeVar("RecordT", bound=Record)


class NoRunError(Exception):
    """The history has no `Run`: without instances and bounds nothing can be judged."""


class IndexedHistory:
    """The records of one run, by kind, each kind in order of time."""

    def __init__(self, records: Iterable[Record]) -> None:
        filed = list(records)
        run = next(_only(Run, filed), None)
        if run is None:
            raise NoRunError(
                "the history has no `run` record,"
                " which says what instances there were and which bounds they keep"
            )
        self.run = run
        self.bound_us = run.max_lag_us + run.heartbeat_us + run.skew_us
        """The staleness bound in µs: how long an announced write may stay unseen."""
        self.unannounced_us = 2 * run.heartbeat_us
        """How much longer a write may that was accepted while it could not be announced."""
        self.writes = {(write.key, write.w): write for write in _only(Write, filed)}
        self.announcements = list(_only(Announcement, filed))
        self.fences = list(_only(Fenced, filed))
        """The fences of changes. A parked change may have two: one with a fallback `at`, and later
        one with the `at` of its home cell."""
        self.loads = sorted(_only(Load, filed), key=lambda load: load.started)
        self.faults = sorted(_only(Fault, filed), key=lambda fault: fault.ended)
        self.reads = sorted(_only(Read, filed), key=lambda read: read.started)
        """The reads, ordered by their start."""
        self.shown = [(read, version) for read in self.reads if (version := read.version) is not None]
        """The reads that showed a version of their key, with that version."""
        self.changes = {
            announcement.id: announcement for announcement in self.announcements if announcement.id
        }
        """The accepted announcements, by their change's id."""
        self._tellers = _tellers(self.announcements)
        self._fence_of = {fence.id: fence for fence in reversed(self.fences)}
        self._merges = _merges(_only(Merged, filed))

    def trail(self, key: str, w: int, instance: str) -> list[Record]:
        """The known way of a write to `instance`: the write, its announcement, its fence, its
        merge."""
        write = self.writes.get((key, w))
        told = self._tellers.get((key, w))
        fence = self._fence_of.get(told.id) if told else None
        merge = self.merge(instance, fence, told.started) if told and fence else None
        return [record for record in (write, told, fence, merge) if record is not None]

    def merge(self, instance: str, fence: Fenced, since: int) -> Merged | None:
        """The first record, not before `since`, that says that `instance` has merged `fence`.

        `since`: the time at which the change was first sent. A position that had been reached
        before belongs to an earlier stream. Positions of another epoch than the fence's say nothing
        of it: they are of another server, or of an earlier stream.
        """
        merges = self._merges.get((instance, fence.region, epoch_of(fence.position)))
        return merges.first(position_of(fence.position), since) if merges else None


class _Merges:
    """The progress of one instance on one region's stream, in one epoch."""

    def __init__(self, merges: list[Merged]) -> None:
        self._merges = sorted(merges, key=lambda merge: merge.at)
        self._times = [merge.at for merge in self._merges]
        self._furthest = list(accumulate((position_of(merge.position) for merge in self._merges), max))
        """The furthest position up to each merge."""

    def first(self, position: tuple[int, int], since: int) -> Merged | None:
        """The first merge, not before `since`, at or after the position; None if there is none."""
        index = max(bisect_left(self._furthest, position), bisect_left(self._times, since))
        return self._merges[index] if index < len(self._merges) else None


def _tellers(announcements: Iterable[Announcement]) -> dict[tuple[str, int], Announcement]:
    """The first accepted announcement of each write; the first of all if none was accepted."""
    tellers: dict[tuple[str, int], Announcement] = {}
    for announcement in sorted(
        announcements, key=lambda announcement: (not announcement.id, announcement.ended)
    ):
        for each in announcement.writes:
            tellers.setdefault(each, announcement)
    return tellers


def _merges(records: Iterable[Merged]) -> dict[tuple[str, str, str], _Merges]:
    by_feed: defaultdict[tuple[str, str, str], list[Merged]] = defaultdict(list)
    for merge in records:
        by_feed[merge.instance, merge.region, epoch_of(merge.position)].append(merge)
    return {feed: _Merges(merges) for feed, merges in by_feed.items()}


def _only(kind: type[RecordT], records: Iterable[Record]) -> Iterator[RecordT]:
    return (record for record in records if isinstance(record, kind))
