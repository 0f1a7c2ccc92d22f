"""C6 and C9: one caller at a time loads a key, and the origin is asked seldom.

Only what a history can prove is a violation. Two loads of a key under leases that overlap and
were both stored prove a broken lease. Two loads at once in a read-through namespace prove
nothing: a fence in between, an expired lease, a cell out of reach or a read that no tier may
answer each allow one more load, and only the service knows which of these it was. There is no
sound bound on loads per write either: for up to 2 × skew after a tag's fence no load may be
stored, so every read loads. Both are reported as figures.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from cachesvc.commands.check.history import Load
from cachesvc.commands.check.judge.fault_free_times import FaultFreeTimes
from cachesvc.commands.check.judge.indexed_history import IndexedHistory
from cachesvc.commands.check.verdicts import MOST_EXAMPLES, Finding, Violation, spoken

_ENOUGH_READS = 100
"""The least number of reads for which a share is judged."""


def one_lease_at_a_time(history: IndexedHistory) -> Finding:
    """C6. Loads of a key that were made under different leases and stored do not overlap."""
    leased = _by_lease(load for load in history.loads if load.lease and load.stored)
    examples: list[Violation] = []
    broken = 0
    longest: dict[str, Load] = {}
    """By key: of the loads so far, the one that ended last. It overlaps the next load if any
    does."""
    for load in leased:
        other = longest.setdefault(load.key, load)
        if load.started < other.ended and other is not load:
            broken += 1
            if len(examples) < MOST_EXAMPLES:
                examples.append(_double(other, load))
        if load.ended > other.ended:
            longest[load.key] = load
    return Finding(
        check="C6",
        rule="stored loads of a key under leases do not overlap",
        of="loads",
        judged=len(leased),
        broken=broken,
        examples=tuple(examples),
        unobserved=""
        if leased
        else "no load under a lease was stored; loads of read-through are among the figures",
    )


def _by_lease(loads: Iterable[Load]) -> list[Load]:
    """One load for each lease, ordered by start.

    A holder that asked the origin twice held the lease all the time in between, so its loads are
    merged into one.
    """
    whole: dict[tuple[str, str], Load] = {}
    for load in loads:
        first = whole.setdefault((load.key, load.lease), load)
        whole[load.key, load.lease] = replace(first, ended=max(first.ended, load.ended))
    return list(whole.values())


def _double(earlier: Load, later: Load) -> Violation:
    overlap = spoken(min(earlier.ended, later.ended) - later.started)
    return Violation(
        says=f"{later.key} was loaded under leases {earlier.lease} and {later.lease} at once"
        f" for {overlap}, and both were stored",
        key=later.key,
        instance=later.instance,
        proof=(earlier, later),
    )


def still_a_cache(history: IndexedHistory, least_share: float) -> Finding:
    """C9. In fault-free time, more than `least_share` of the reads that instances answered
    came from L1 or L2."""
    fault_free = FaultFreeTimes(history.faults, history.bound_us)
    reads = [
        read for read in history.reads if read.tier != "near" and fault_free.hold(read.started, read.ended)
    ]
    rule = f"in fault-free time more than {least_share:.0%} of reads come from L1 and L2"
    if len(reads) < _ENOUGH_READS:
        return Finding(
            check="C9",
            rule=rule,
            unobserved=f"{len(reads)} reads in fault-free time; {_ENOUGH_READS} are the least",
        )
    near = sum(read.tier in ("l1", "l2") for read in reads)
    share = f"{near / len(reads):.1%} of {len(reads):,} reads came from L1 and L2"
    far = 0 if near > least_share * len(reads) else len(reads) - near
    return Finding(check="C9", rule=rule, judged=len(reads), broken=far, note=share)
