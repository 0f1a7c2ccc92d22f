"""The next step of a read, from the copies in the tiers, the key's lease, and who loads.

A read asks L1, L2 and L3 in this order and stops at the first fresh copy. A stale copy in L1 is
answered at once. Beyond L1 only the newest copy that was seen may be answered stale, whatever its
standing is: an older one would take the key back to a version that has been replaced.

Reads and explanations both call `next_step`, so an explanation cannot say something else than a
read does. Only hits are answered without the call, for speed (`_from_l1` in `paths/read.py`,
`_land_from_l2` and `_land_from_l3` in `paths/flight_runner.py`). `tests/paths/test_next_step.py`
compares those with `next_step`.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from cachesvc.coherence.admission import Standing


class CopySeen(NamedTuple):
    """A copy in one tier, as a read judges it."""

    tier: str
    """`l1`, `l2` or `l3`."""
    standing: Standing
    as_of: int
    """µs since the epoch."""
    negative: bool = False
    suits: bool = True
    """False if the copy does not meet what the read asks for beyond the rule (`max-age`, …)."""


class Lease(Enum):
    """The key's lease, as one read finds it."""

    FREE = "free"
    """The home grants the lease, or has granted it to this read."""
    HELD = "held"
    """Another read or caller holds the lease."""
    UNAVAILABLE = "unavailable"
    """The home is out of reach, or the lease's holder is too slow to wait for."""


class WhoLoads(Enum):
    """The one who loads the value where no copy is answered."""

    INSTANCE = "instance"
    """This instance, from the namespace's origin."""
    CALLER = "caller"
    """The caller, which asked for the lease (look-aside)."""
    NOBODY = "nobody"
    """A read of the tiers only: `only-if-cached`, or look-aside without asking for the lease."""


class Action(Enum):
    """The kinds of next step."""

    ANSWER = "answer a fresh copy"
    ANSWER_STALE = "answer a stale copy and refresh it"
    LOAD = "load under the lease"
    LOAD_WITHOUT_LEASE = "load without a lease"
    LEASE_TO_CALLER = "give the lease to the caller"
    """A stale copy may go with the lease."""
    WAIT = "wait for another's load"
    MISS = "miss"


class NextStep(NamedTuple):
    """An action, and the copies that belong to it."""

    action: Action
    copy: CopySeen | None = None
    """The copy that is answered; for `LEASE_TO_CALLER` the one that goes along."""
    last_resort: CopySeen | None = None
    """The copy that is answered if the load fails or takes too long."""


_WITHOUT_A_COPY = {
    (WhoLoads.INSTANCE, Lease.FREE): Action.LOAD,
    (WhoLoads.INSTANCE, Lease.HELD): Action.WAIT,
    (WhoLoads.INSTANCE, Lease.UNAVAILABLE): Action.LOAD_WITHOUT_LEASE,
    (WhoLoads.CALLER, Lease.FREE): Action.LEASE_TO_CALLER,
    (WhoLoads.CALLER, Lease.HELD): Action.WAIT,
    (WhoLoads.CALLER, Lease.UNAVAILABLE): Action.MISS,
}


def next_step(
    copies: Sequence[CopySeen], lease: Lease, who: WhoLoads, *, accepts_stale: bool = False
) -> NextStep:
    """The next step of a read that sees these copies and no others, in the order of the tiers.

    `accepts_stale`: the reader takes stale copies beyond their own window (`max-stale`), from L1.
    """
    for copy in copies:
        is_fresh = copy.standing is Standing.FRESH
        if copy.suits and is_fresh:
            return NextStep(Action.ANSWER, copy)
        if copy.tier == "l1":
            if copy.suits and _is_stale_for_l1(copy, who, accepts_stale=accepts_stale):
                return NextStep(Action.ANSWER_STALE, copy)
        elif is_fresh:
            return _past_the_copies(lease, who)
    stale = _newest(copies, Standing.STALE)
    if who is WhoLoads.CALLER and lease is Lease.FREE:
        return NextStep(Action.LEASE_TO_CALLER, stale)
    if stale is not None:
        return NextStep(Action.ANSWER_STALE, stale) if stale.suits else _past_the_copies(lease, who)
    return NextStep(_without_a_copy(lease, who), last_resort=last_resort(copies))


def last_resort(copies: Sequence[CopySeen]) -> CopySeen | None:
    """The copy that may stand in for a failing or late origin (RFC 5861, 4), or None."""
    newest = _newest(copies, Standing.STALE, Standing.LAST_RESORT)
    return newest if newest is not None and newest.suits else None


def _is_stale_for_l1(copy: CopySeen, who: WhoLoads, *, accepts_stale: bool) -> bool:
    if copy.negative:
        return False
    if copy.standing is Standing.STALE:
        return who is not WhoLoads.CALLER or accepts_stale
    return copy.standing is Standing.LAST_RESORT and accepts_stale


def _past_the_copies(lease: Lease, who: WhoLoads) -> NextStep:
    """The step of a read whose copy does not suit.

    A copy that is fresh, or the one to answer stale, ends the look at the tiers even if it does not
    suit: the origin is then asked past all copies, or the read is a miss.
    """
    return NextStep(_without_a_copy(lease, who) if who is WhoLoads.INSTANCE else Action.MISS)


def _without_a_copy(lease: Lease, who: WhoLoads) -> Action:
    return _WITHOUT_A_COPY.get((who, lease), Action.MISS)


def _newest(copies: Sequence[CopySeen], *good: Standing) -> CopySeen | None:
    """The newest copy, if it has a value and its standing is one of `good`; else None.

    Of several copies that are as new, the farthest with such a standing.
    """
    newest = max((copy.as_of for copy in copies), default=0)
    as_new = (copy for copy in reversed(copies) if copy.as_of == newest)
    return next((copy for copy in as_new if copy.standing in good and not copy.negative), None)
