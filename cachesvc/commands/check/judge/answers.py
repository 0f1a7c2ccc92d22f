"""C0 and C7: what every single answer must be, whatever was written before."""

from cachesvc.commands.check.history import Read
from cachesvc.commands.check.judge.indexed_history import Docket
from cachesvc.commands.check.verdicts import MOST_EXAMPLES, Finding, Violation, spoken


def of_real_writes(docket: Docket) -> Finding:
    """C0. What was read had been written by the end of the read, for this key, and is whole."""
    judged, broken = 0, 0
    examples: list[Violation] = []
    for read in docket.reads:
        if read.version is None and read.reason != "foreign":
            continue
        judged += 1
        fault = _unreal(docket, read)
        if fault:
            broken += 1
            if len(examples) < MOST_EXAMPLES:
                examples.append(_accusation(docket, read, fault))
    return Finding(
        check="C0",
        rule="the value read had been written before the read ended",
        judged=judged,
        broken=broken,
        examples=tuple(examples),
    )


def _unreal(docket: Docket, read: Read) -> str:
    """What is wrong with the value; empty if nothing. Version 0 is what there was before the first write."""
    version = read.version
    if version is None:
        return "answered bytes that are no value of this key"
    if version == 0:
        return ""
    write = docket.writes.get((read.key, version))
    if write is None:
        return f"answered version {version}, which was never written"
    if write.committed > read.ended:
        return f"answered version {version} {spoken(write.committed - read.ended)} before it was committed"
    return ""


def in_time(docket: Docket, grace_us: int) -> Finding:
    """C7. `grace_us` is the client's: the way to the instance and back, and a busy checker."""
    limited = [read for read in docket.reads if read.deadline_us]
    late = [read for read in limited if read.ended - read.started > read.deadline_us + grace_us]
    return Finding(
        check="C7",
        rule=f"no read takes longer than its deadline (+ {spoken(grace_us)} for the way)",
        judged=len(limited),
        broken=len(late),
        examples=tuple(
            _accusation(
                docket, read, f"took {spoken(read.ended - read.started)} of {spoken(read.deadline_us)}"
            )
            for read in late[:MOST_EXAMPLES]
        ),
    )


def _accusation(docket: Docket, read: Read, fault: str) -> Violation:
    trail = docket.trail(read.key, read.version, read.instance) if read.version else []
    return Violation(
        says=f"{read.instance} {fault} ({read.key} from {read.tier or 'no tier'})",
        key=read.key,
        tier=read.tier,
        instance=read.instance,
        as_of=read.as_of,
        shown=read.version,
        proof=(*trail, read),
    )
