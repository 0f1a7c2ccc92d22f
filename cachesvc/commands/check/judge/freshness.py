"""C1 to C5 and C8: what a read must not miss.

Each check turns the history into debts (`Debts`) and then asks, of every read that showed a version, for the newest debt that
stood when it started. A read owes nothing for what happened while it ran: it may answer what its own flight loaded before.
Everything is judged by the read's start, and by the latest moment at which the other side can have happened (a call's end, a
merge as it was noticed), so that a violation is never the doing of the checker's own slowness.
"""

from collections.abc import Callable
from itertools import product

from msgspec import Struct

from cachesvc.commands.check.history import Announcement, Fenced, Read, region_of
from cachesvc.commands.check.judge.indexed_history import Docket
from cachesvc.commands.check.judge.owed_versions import FOR_EVER, Debt, Debts
from cachesvc.commands.check.verdicts import MOST_EXAMPLES, Finding, Violation, spoken

Owed = Callable[[Read], Debt | None]


class Rule(Struct, frozen=True):
    check: str
    text: str
    because: Callable[[Read, Debt], str]
    """Ends the sentence "us/us-a answered version 3 of k from l2, …"."""


def judged(docket: Docket, rule: Rule, owed: Owed, unobserved: str = "") -> Finding:
    """Every read that owed something, against what it owed."""
    count, broken = 0, 0
    examples: list[Violation] = []
    for read, shown in docket.shown:
        debt = owed(read)
        if debt is None:
            continue
        count += 1
        if shown < debt.w:
            broken += 1
            if len(examples) < MOST_EXAMPLES:
                examples.append(_accusation(docket, read, debt, rule.because(read, debt)))
    return Finding(
        check=rule.check,
        rule=rule.text,
        judged=count,
        broken=broken,
        examples=tuple(examples),
        unobserved=unobserved,
    )


def _accusation(docket: Docket, read: Read, debt: Debt, because: str) -> Violation:
    trail = docket.trail(read.key, debt.w, read.instance)
    proof = [*trail, *(record for record in debt.proof if not any(record is line for line in trail)), read]
    fence = next((record for record in proof if isinstance(record, Fenced)), None)
    return Violation(
        says=f"{read.instance} answered version {read.version} of {read.key} from {read.tier or 'no tier'}, {because}",
        key=read.key,
        tier=read.tier,
        instance=read.instance,
        as_of=read.as_of,
        shown=read.version,
        owed=debt.w,
        fence=f"{fence.region}:{fence.position}" if fence else "",
        fence_at=fence.at if fence else 0,
        proof=tuple(proof),
    )


def after_calls(docket: Docket) -> Finding:
    """C1. A call that was accepted obliges its own instance from its end on, and all that it said to have waited for."""
    debts: Debts[tuple[str, str]] = Debts()
    for call in docket.announcements:
        if call.how != "api" or not call.id:
            continue
        for instance in _obliged(docket, call):
            for key, w in call.writes:
                debts.add((key, instance), Debt(since=call.ended, w=w, proof=(call,)))
    rule = Rule(
        check="C1",
        text="after an invalidate call returned, its instance (with `wait`: each one waited for) shows its write or a newer one",
        because=lambda read, debt: (
            f"{spoken(read.started - debt.since)} after the call that announced version {debt.w} had returned"
        ),
    )
    return judged(docket, rule, _at_its_instance(debts))


def _obliged(docket: Docket, call: Announcement) -> set[str]:
    if call.wait == "none" or not call.reached:
        return {call.instance}
    region = region_of(call.instance)
    waited_for = {name for name in docket.run.instances if call.wait == "global" or region_of(name) == region}
    return waited_for | {call.instance}


def within_the_bound(docket: Docket) -> Finding:
    """C2. What was told to the cache is seen by every read that starts more than `max_lag` + heartbeat + skew later.

    Told: from the moment its announcement was accepted (its end; a cache cannot know of a write before). While the queue takes
    nothing, caches must assume the worst: so a write whose first attempts failed for that reason is owed as if it had been told
    when the first attempt began, by the reads that start up to the last failure; then again from its acceptance on. A write that
    was never accepted is owed up to the last failure only. Failures in a row count as one outage; an event's are the queue's own.

    Not owed from the commit itself: between the commit and the first attempt the queue may have been well, and have said so.
    """
    debts: Debts[str] = Debts()
    for told in docket.announcements:
        outage_end = _outage_end(told)
        for key, w in told.writes:
            if told.id:
                debts.add(key, Debt(since=told.ended + docket.bound_us, w=w, proof=(told,)))
            if outage_end is not None:
                debts.add(
                    key, Debt(since=told.started + docket.bound_us, until=outage_end, w=w, proof=(told,))
                )
    rule = Rule(
        check="C2",
        text=f"no read misses a write that was told to the cache more than {spoken(docket.bound_us)} before",
        because=lambda read, debt: _overdue(docket, read, debt),
    )
    return judged(docket, rule, lambda read: debts.owed(read.key, read.started))


def _outage_end(told: Announcement) -> int | None:
    """When the outage that kept `told` from the queue was last met; None if there was none.

    Of an announcement that was given up, too: its end is no failure, the queue may have been back by then.
    """
    met = told.how == "event" or told.queue_down
    return max(told.failures, default=None) if met else None


def _overdue(docket: Docket, read: Read, debt: Debt) -> str:
    age = spoken(read.started - debt.since + docket.bound_us)
    what = "the queue had taken" if debt.until == FOR_EVER else "the queue, still down, had not taken"
    return f"{age} after {what} version {debt.w} (bound {spoken(docket.bound_us)})"


def after_merges(docket: Docket) -> Finding:
    """C3. An instance that has merged a write's fence shows that write, from any tier. The heart of the matter (G1)."""
    debts: Debts[tuple[str, str]] = Debts()
    for fence in docket.fences:
        change = docket.changes.get(fence.id)
        if change is None:
            continue
        for instance in docket.run.instances:
            merge = docket.merge(instance, fence, change.started)
            if merge is None:
                continue
            for key, w in change.writes:
                debts.add((key, instance), Debt(since=merge.at, w=w, proof=(change, fence, merge)))
    rule = Rule(
        check="C3",
        text="after an instance merged a write's fence, it shows that write or a newer one, from every tier",
        because=lambda read, debt: (
            f"{spoken(read.started - debt.since)} after it had merged the fence of version {debt.w}"
        ),
    )
    return judged(docket, rule, _at_its_instance(debts))


def with_tokens(docket: Docket) -> Finding:
    """C4. A token of a write is honoured anywhere."""
    rule = Rule(
        check="C4",
        text="a read with a token shows the token's write or a newer one, anywhere",
        because=lambda read, debt: f"with a token of version {debt.w} in hand",
    )
    return judged(docket, rule, _token_debt)


def _token_debt(read: Read) -> Debt | None:
    versions = [w for key, w in read.token_writes if key == read.key]
    return Debt(since=0, w=max(versions)) if versions else None


def in_sessions(docket: Docket) -> Finding:
    """C5. What a session has seen it does not lose again. Reads of a session that overlap owe each other nothing."""
    debts: Debts[tuple[str, str]] = Debts()
    for read, shown in docket.shown:
        if read.session:
            debts.add((read.session, read.key), Debt(since=read.ended, w=shown, proof=(read,)))
    rule = Rule(
        check="C5",
        text="a session never goes back",
        because=lambda read, debt: (
            f"{spoken(read.started - debt.since)} after session {read.session} had been shown version {debt.w}"
        ),
    )
    return judged(
        docket,
        rule,
        lambda read: debts.owed((read.session, read.key), read.started) if read.session else None,
    )


def after_the_last_fault(docket: Docket) -> Finding:
    """C8. When the last fault has been made good for the staleness bound, every instance shows what had been told by its end.

    Only a value shows that an instance has recovered: one that answers nothing but errors, or nothing, leaves it open.
    """
    rule = Rule(
        check="C8",
        text=f"{spoken(docket.bound_us)} after the last fault every instance shows the newest write told before the fault's end",
        because=lambda read, debt: (
            f"{spoken(read.started - debt.since)} after it should have recovered, with version {debt.w} owed"
        ),
    )
    if not docket.faults:
        return Finding(check=rule.check, rule=rule.text, unobserved="no fault was recorded")
    fault = docket.faults[-1]
    debts: Debts[tuple[str, str]] = Debts()
    for told in docket.announcements:
        if told.id and told.ended <= fault.ended:
            for (key, w), instance in product(told.writes, docket.run.instances):
                debts.add(
                    (key, instance), Debt(since=fault.ended + docket.bound_us, w=w, proof=(told, fault))
                )
    owed = _at_its_instance(debts)
    heard = {read.instance for read, _ in docket.shown if owed(read) is not None}
    silent = [instance for instance in docket.run.instances if instance not in heard]
    return judged(
        docket,
        rule,
        owed,
        unobserved=f"no later read showed a value at {', '.join(silent)}" if silent else "",
    )


def _at_its_instance(debts: Debts[tuple[str, str]]) -> Owed:
    """By key and instance. A caller's own cache merges after the instance that it follows, and owes nothing on its account."""
    return lambda read: None if read.tier == "near" else debts.owed((read.key, read.instance), read.started)
