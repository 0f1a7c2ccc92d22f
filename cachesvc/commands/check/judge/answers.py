"""C0 and C7: the checks of every single answer, whatever was written before."""

from cachesvc.commands.check.history import Read
from cachesvc.commands.check.judge.indexed_history import IndexedHistory
from cachesvc.commands.check.verdicts import MOST_EXAMPLES, Finding, Violation, spoken


def of_real_writes(history: IndexedHistory) -> Finding:
    """C0. The value read is whole, belongs to this key, and was written before the read ended."""
    judged, broken = 0, 0
    examples: list[Violation] = []
    for read in history.reads:
        if read.version is None and read.reason != "foreign":
            continue
        judged += 1
        fault = _unreal(history, read)
        if fault:
            broken += 1
            if len(examples) < MOST_EXAMPLES:
                examples.append(_violation(history, read, fault))
    return Finding(
        check="C0",
        rule="the value read had been written before the read ended",
        judged=judged,
        broken=broken,
        examples=tuple(examples),
    )


def _unreal(history: IndexedHistory, read: Read) -> str:
    """Says what is wrong with the value; empty if nothing is.

    Version 0 is the state of a key before its first write.
    """
    version = read.version
    if version is None:
        return "answered bytes that are no value of this key"
    if version == 0:
        return ""
    write = history.writes.get((read.key, version))
    if write is None:
        return f"answered version {version}, which was never written"
    if write.committed > read.ended:
        return f"answered version {version} {spoken(write.committed - read.ended)} before it was committed"
    return ""


def in_time(history: IndexedHistory, grace_us: int) -> Finding:
    """C7. No read takes longer than its deadline and `grace_us`.

    `grace_us` covers the way to the instance and back, and a busy checker.
    """
    limited = [read for read in history.reads if read.deadline_us]
    late = [read for read in limited if read.ended - read.started > read.deadline_us + grace_us]
    return Finding(
        check="C7",
        rule=f"no read takes longer than its deadline (+ {spoken(grace_us)} for the way)",
        judged=len(limited),
        broken=len(late),
        examples=tuple(
            _violation(
                history, read, f"took {spoken(read.ended - read.started)} of {spoken(read.deadline_us)}"
            )
            for read in late[:MOST_EXAMPLES]
        ),
    )


def _violation(history: IndexedHistory, read: Read, fault: str) -> Violation:
    trail = history.trail(read.key, read.version, read.instance) if read.version else []
    return Violation(
        says=f"{read.instance} {fault} ({read.key} from {read.tier or 'no tier'})",
        key=read.key,
        tier=read.tier,
        instance=read.instance,
        as_of=read.as_of,
        shown=read.version,
        proof=(*trail, read),
    )
