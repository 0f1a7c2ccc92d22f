"""Figures of a run: staleness, latency, load on the origin, recovery. None is a violation."""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import ceil

from cachesvc.commands.check.history import Fault, Load, Read, Write, region_of
from cachesvc.commands.check.judge.indexed_history import IndexedHistory
from cachesvc.commands.check.judge.owed_versions import Debt, Debts
from cachesvc.commands.check.verdicts import Crowd, Figures, Lag, Recovery

_MOST_CROWDS = 5


def figures(history: IndexedHistory) -> Figures:
    """Computes all figures of one run."""
    committed = _commits(history.writes.values())
    lags = _lags(history)
    crowds = _crowds(history)
    took = sorted(read.ended - read.started for read in history.reads)
    return Figures(
        reads=len(history.reads),
        writes=len(history.writes),
        announcements=len(history.announcements),
        errors=sum(read.outcome == "error" for read in history.reads),
        stale_reads=sum(_misses(committed, read, read.started) for read in history.reads),
        longest_stale=max((lag.longest for lag in lags), default=0),
        read_p50=quantile(took, 0.5),
        read_p99=quantile(took, 0.99),
        loads=len(history.loads),
        overlapping_loads=sum(crowd.overlapping for crowd in crowds),
        lags=lags,
        crowds=tuple(sorted(crowds, key=lambda crowd: crowd.loads, reverse=True)[:_MOST_CROWDS]),
        recoveries=tuple(_recoveries(history, committed)),
    )


def quantile(ordered: Sequence[int], share: float) -> int:
    """The least value that `share` of the values do not exceed; 0 if there are none."""
    return ordered[max(ceil(share * len(ordered)), 1) - 1] if ordered else 0


def _commits(writes: Iterable[Write]) -> Debts[str]:
    """The commits as debts that are due at once: shows what a read missed, not what it owed."""
    commits: Debts[str] = Debts()
    for write in writes:
        commits.add(write.key, Debt(since=write.committed, w=write.w))
    return commits


def _misses(committed: Debts[str], read: Read, moment: int) -> bool:
    """True if the read shows an older version than the newest committed before `moment`."""
    newest = committed.owed(read.key, moment)
    version = read.version
    return newest is not None and version is not None and version < newest.w


def _lags(history: IndexedHistory) -> tuple[Lag, ...]:
    writes: defaultdict[str, list[Write]] = defaultdict(list)
    for write in sorted(history.writes.values(), key=lambda write: write.w):
        writes[write.key].append(write)
    seen: defaultdict[tuple[str, str, str], list[tuple[int, int]]] = defaultdict(list)
    for read, version in history.shown:
        seen[read.tier, region_of(read.instance), read.key].append((version, read.started))
    lags: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for (tier, region, key), reads in seen.items():
        lags[tier, region].extend(_last_misses(writes[key], sorted(reads)))
    return tuple(_lag(*where, sorted(these)) for where, these in sorted(lags.items()) if these)


def _last_misses(writes: Iterable[Write], reads: Sequence[tuple[int, int]]) -> Iterator[int]:
    """Yields, for each write that a later read missed, the µs from its commit to the last such
    read.

    `writes` are ordered by `w`, `reads` (pairs of version and start) by version.
    """
    last, passed = 0, 0
    for write in writes:
        while passed < len(reads) and reads[passed][0] < write.w:
            last = max(last, reads[passed][1])
            passed += 1
        if last > write.committed:
            yield last - write.committed


def _lag(tier: str, region: str, lags: Sequence[int]) -> Lag:
    return Lag(
        tier=tier,
        region=region,
        writes=len(lags),
        p50=quantile(lags, 0.5),
        p99=quantile(lags, 0.99),
        p9999=quantile(lags, 0.9999),
        longest=lags[-1],
    )


def _crowds(history: IndexedHistory) -> list[Crowd]:
    told = Counter(
        key for announcement in history.announcements for key in {key for key, _ in announcement.writes}
    )
    loads: defaultdict[str, list[Load]] = defaultdict(list)
    for load in history.loads:
        loads[load.key].append(load)
    return [_crowd(key, told[key], these) for key, these in loads.items()]


def _crowd(key: str, announcements: int, loads: Sequence[Load]) -> Crowd:
    """How many loads of a key ran at once. `loads` are ordered by their start.

    A load that ends in the same µs in which another starts does not count as running with it.
    """
    ends = sorted(load.ended for load in loads)
    together = [max(1, begun + 1 - bisect_right(ends, load.started)) for begun, load in enumerate(loads)]
    most = max(together)
    return Crowd(
        key=key,
        loads=len(loads),
        announcements=announcements,
        overlapping=sum(count > 1 for count in together),
        most_at_once=most,
        at=loads[together.index(most)].started,
    )


def _recoveries(history: IndexedHistory, committed: Debts[str]) -> Iterator[Recovery]:
    begins = sorted(fault.started for fault in history.faults)
    starts = [read.started for read in history.reads]
    for fault in history.faults:
        following = bisect_right(begins, fault.ended)
        until = begins[following] if following < len(begins) else None
        after = history.reads[
            bisect_right(starts, fault.ended) : None if until is None else bisect_left(starts, until)
        ]
        suffered = [
            read for read in after if read.outcome == "error" or _misses(committed, read, fault.ended)
        ]
        yield _recovery(fault, suffered)


def _recovery(fault: Fault, suffered: Sequence[Read]) -> Recovery:
    last = max((read.ended for read in suffered), default=fault.ended)
    return Recovery(what=fault.what, ended=fault.ended, took=last - fault.ended, suffered=len(suffered))
