"""C1 to C5 and C8: the checks of what a read must not miss.

Each check turns the history into debts (`owed_versions.py`) and then asks, for every read that
showed a version, for the newest debt that stood when the read started. A read owes nothing for
what happened while it ran: it may answer with a value that its own flight loaded before. A read
is judged by its start, and every other event by the latest moment at which it can have happened
(the end of a call, the arrival of a merge's event): so slowness of the checker can never make a
violation.
"""

from collections.abc import Callable
from itertools import product

from msgspec import Struct

from cachesvc.commands.check.history import Announcement, Fenced, Read, region_of
from cachesvc.commands.check.judge.indexed_history import IndexedHistory
from cachesvc.commands.check.judge.owed_versions import Debt, Debts
from cachesvc.commands.check.verdicts import MOST_EXAMPLES, Finding, Violation, spoken

Owed = Callable[[Read], Debt | None]


class Rule(Struct, frozen=True):
    """The words of one check."""

    check: str
    text: str
    because: Callable[[Read, Debt], str]
    """Returns the end of the sentence "us/us-a answered version 3 of k from l2, …"."""


def judged(history: IndexedHistory, rule: Rule, owed: Owed, unobserved: str = "") -> Finding:
    """Judges every read that owed something against its debt."""
    count, broken = 0, 0
    examples: list[Violation] = []
    for read, shown in history.shown:
        debt = owed(read)
        if debt is None:
            continue
        count += 1
        if shown < debt.w:
            broken += 1
            if len(examples) < MOST_EXAMPLES:
                examples.append(_violation(history, read, debt, rule.because(read, debt)))
    return Finding(
        check=rule.check,
        rule=rule.text,
        judged=count,
        broken=broken,
        examples=tuple(examples),
        unobserved=unobserved,
    )


def _violation(history: IndexedHistory, read: Read, debt: Debt, because: str) -> Violation:
    trail = history.trail(read.key, debt.w, read.instance)
    proof = [*trail, *(record for record in debt.proof if not any(record is line for line in trail)), read]
    fence = next((record for record in proof if isinstance(record, Fenced)), None)
    return Violation(
        says=f"{read.instance} answered version {read.version} of {read.key}"
        f" from {read.tier or 'no tier'}, {because}",
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


def after_calls(history: IndexedHistory) -> Finding:
    """C1. An accepted call obliges its own instance, and those it waited for, from its end on.

    A put is such a call: it is an invalidation and a fill.
    """
    debts: Debts[tuple[str, str]] = Debts()
    for call in history.announcements:
        if call.how == "event" or not call.id:
            continue
        for instance in _obliged(history, call):
            for key, w in call.writes:
                debts.add((key, instance), Debt(since=call.ended, w=w, proof=(call,)))
    rule = Rule(
        check="C1",
        text="after an invalidate call or a put returned, its instance (with `wait`: each one waited for)"
        " shows its write or a newer one",
        because=lambda read, debt: (
            f"{spoken(read.started - debt.since)} after the call that announced version {debt.w} had returned"
        ),
    )
    return judged(history, rule, _at_its_instance(debts))


def _obliged(history: IndexedHistory, call: Announcement) -> set[str]:
    if call.wait == "none" or not call.reached:
        return {call.instance}
    region = region_of(call.instance)
    waited_for = {
        name for name in history.run.instances if call.wait == "global" or region_of(name) == region
    }
    return waited_for | {call.instance}


def within_the_bound(history: IndexedHistory) -> Finding:
    """C2. An announced write is seen by reads that start `max_lag` + heartbeat + skew later.

    A write counts as announced from the moment its announcement was accepted (the end of the
    call): before that, a cache cannot know of it. While the queue takes nothing, caches have to
    assume the worst. So a write whose first attempts failed for that reason is owed as if it had
    been announced when the first attempt began, by the reads that end before the last attempt
    that failed; and again from its acceptance on. A write that was never accepted is owed by the
    former only. (While the last attempt waits for its time limit the queue may be back, and say
    that nothing is missing.) One that its instance keeps in its journal may be unseen for two
    heartbeats more. Failures in a row count as one outage, unless the queue has taken another
    announcement between them. The failures of an event are always the queue's own.

    Nothing is owed from the commit itself: between the commit and the first attempt the queue may
    have worked, and said that nothing was missing.
    """
    debts: Debts[str] = Debts()
    for told in history.announcements:
        outage_end = _outage_end(history, told)
        for key, w in told.writes:
            if told.id:
                bound_us = history.bound_us + (0 if told.announced else history.unannounced_us)
                debts.add(key, Debt(since=told.ended + bound_us, w=w, proof=(told,)))
            if outage_end is not None:
                debts.add(
                    key, Debt(since=told.started + history.bound_us, until=outage_end, w=w, proof=(told,))
                )
    rule = Rule(
        check="C2",
        text=f"no read misses a write that was told to the cache more than {spoken(history.bound_us)} before",
        because=lambda read, debt: _overdue(history, read, debt),
    )
    return judged(history, rule, lambda read: debts.owed(read.key, read.started, read.ended))


def _outage_end(history: IndexedHistory, told: Announcement) -> int | None:
    """The last time at which the queue was surely down; None if there was none.

    It is the beginning of the last attempt that failed. This holds for an announcement that was
    given up, too: the attempt that was given up is no failure, because the queue may have been
    back by then. A queue that has taken another announcement meanwhile was not down all the time,
    but lost connections, say: the outage ends where the attempt began that it took.
    """
    if not told.failures or not (told.how == "event" or told.queue_down):
        return None
    taken = [
        max(other.failures, default=other.started)
        for other in history.announcements
        if other.id and other.region in told.failed_in and told.started < other.ended <= max(told.failures)
    ]
    return min([max(told.failures), *taken])


def _overdue(history: IndexedHistory, read: Read, debt: Debt) -> str:
    age = spoken(read.started - debt.since + history.bound_us)
    what = "the queue had taken" if debt.until is None else "the queue, still down, had not taken"
    return f"{age} after {what} version {debt.w} (bound {spoken(history.bound_us)})"


def after_merges(history: IndexedHistory) -> Finding:
    """C3. An instance that has merged a write's fence shows that write or a newer one, from
    any tier.

    This is guarantee G1 of docs/coherence.md.
    """
    debts: Debts[tuple[str, str]] = Debts()
    for fence in history.fences:
        change = history.changes.get(fence.id)
        if change is None:
            continue
        for instance in history.run.instances:
            merge = history.merge(instance, fence, change.started)
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
    return judged(history, rule, _at_its_instance(debts))


def with_tokens(history: IndexedHistory) -> Finding:
    """C4. A read that sends a write's token shows that write or a newer one, at any instance."""
    rule = Rule(
        check="C4",
        text="a read with a token shows the token's write or a newer one, anywhere",
        because=lambda read, debt: f"with a token of version {debt.w} in hand",
    )
    return judged(history, rule, _token_debt)


def _token_debt(read: Read) -> Debt | None:
    versions = [w for key, w in read.token_writes if key == read.key]
    return Debt(since=0, w=max(versions)) if versions else None


def in_sessions(history: IndexedHistory) -> Finding:
    """C5. A session never goes back. Reads of one session that overlap owe each other nothing."""
    debts: Debts[tuple[str, str]] = Debts()
    for read, shown in history.shown:
        if read.session:
            debts.add((read.session, read.key), Debt(since=read.ended, w=shown, proof=(read,)))
    rule = Rule(
        check="C5",
        text="a session never goes back",
        because=lambda read, debt: (
            f"{spoken(read.started - debt.since)} after session {read.session}"
            f" had been shown version {debt.w}"
        ),
    )
    return judged(
        history,
        rule,
        lambda read: debts.owed((read.session, read.key), read.started) if read.session else None,
    )


def after_the_last_fault(history: IndexedHistory) -> Finding:
    """C8. Every instance recovers from the last fault.

    When the staleness bound has passed after the end of the last fault, every instance shows the
    writes that were announced by that end. Only a value shows that an instance has recovered: for
    an instance that answers with errors only, or with no value, the check is not observed.
    """
    rule = Rule(
        check="C8",
        text=f"{spoken(history.bound_us)} after the last fault every instance shows"
        " the newest write told before the fault's end",
        because=lambda read, debt: (
            f"{spoken(read.started - debt.since)} after it should have recovered, with version {debt.w} owed"
        ),
    )
    if not history.faults:
        return Finding(check=rule.check, rule=rule.text, unobserved="no fault was recorded")
    fault = history.faults[-1]
    debts: Debts[tuple[str, str]] = Debts()
    for told in history.announcements:
        if told.id and told.ended <= fault.ended:
            for (key, w), instance in product(told.writes, history.run.instances):
                debts.add(
                    (key, instance), Debt(since=fault.ended + history.bound_us, w=w, proof=(told, fault))
                )
    owed = _at_its_instance(debts)
    heard = {read.instance for read, _ in history.shown if owed(read) is not None}
    silent = [instance for instance in history.run.instances if instance not in heard]
    return judged(
        history,
        rule,
        owed,
        unobserved=f"no later read showed a value at {', '.join(silent)}" if silent else "",
    )


def _at_its_instance(debts: Debts[tuple[str, str]]) -> Owed:
    """Debts by key and instance.

    A caller's own cache (`near`) merges after the instance that it follows, and owes nothing for
    what that instance has merged.
    """
    return lambda read: None if read.tier == "near" else debts.owed((read.key, read.instance), read.started)
