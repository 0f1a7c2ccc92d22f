"""C10: what was put is there for the next read at the instance that took it.

A miss is never wrong, so a single one proves nothing: a copy may have been evicted, or another
fence shares its place in the sketch. Many of them prove that puts are not stored.
"""

from bisect import bisect_right
from collections import defaultdict

from cachesvc.commands.check.history import Announcement, Read
from cachesvc.commands.check.judge.fault_free_times import FaultFreeTimes
from cachesvc.commands.check.judge.indexed_history import IndexedHistory
from cachesvc.commands.check.verdicts import MOST_EXAMPLES, Finding, Violation, spoken

WITHIN_US = 1_000_000
"""A read is judged if it starts so soon after the put was answered."""
MOST_MISSING = 0.05
"""The share of reads that may find nothing."""
_MISSES = ("miss", "absent", "loaded")


def kept(history: IndexedHistory) -> Finding:
    """C10. In fault-free time a put's value is there for reads at its instance.

    Judged are the reads that started within a second after the put was answered, and ended before the
    next write of the key. One that had to load has not found it.
    """
    fault_free = FaultFreeTimes(history.faults, history.bound_us)
    reads: defaultdict[tuple[str, str], list[Read]] = defaultdict(list)
    for read in history.reads:
        if read.tier != "near" and read.outcome != "error":
            reads[read.key, read.instance].append(read)
    judged = 0
    missing: list[Violation] = []
    for put in history.announcements:
        if put.how != "put" or not put.id or not fault_free.hold(put.started, put.ended + WITHIN_US):
            continue
        for read in _reads_of(history, put, reads):
            judged += 1
            if read.outcome in _MISSES:
                missing.append(_missed(put, read))
    rule = f"in fault-free time at most {MOST_MISSING:.0%} of reads just after a put miss its value"
    note = f"{len(missing):,} of {judged:,} reads just after a put missed its value"
    broken = len(missing) if len(missing) > MOST_MISSING * judged else 0
    return Finding(
        check="C10",
        rule=rule,
        judged=judged,
        broken=broken,
        examples=tuple(missing[:MOST_EXAMPLES]) if broken else (),
        unobserved="" if judged else "no read came just after a put in fault-free time",
        note=note if judged else "",
    )


def _reads_of(
    history: IndexedHistory, put: Announcement, reads: defaultdict[tuple[str, str], list[Read]]
) -> list[Read]:
    """The reads that must find the value of a put."""
    ((key, w),) = put.writes
    found = reads.get((key, put.instance), [])
    following = history.writes.get((key, w + 1))
    first = bisect_right(found, put.ended, key=lambda read: read.started)
    last = bisect_right(found, put.ended + WITHIN_US, key=lambda read: read.started)
    return [read for read in found[first:last] if following is None or read.ended < following.committed]


def _missed(put: Announcement, read: Read) -> Violation:
    ((key, w),) = put.writes
    return Violation(
        says=f"{read.instance} had no copy of {key} ({read.outcome})"
        f" {spoken(read.started - put.ended)} after it had taken version {w}",
        key=key,
        tier=read.tier,
        instance=read.instance,
        shown=read.version,
        owed=w,
        proof=(put, read),
    )
