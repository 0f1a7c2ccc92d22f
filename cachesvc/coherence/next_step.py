"""What a read does next, from the copies that the tiers hold, the key's lease, and who loads.

Reads and explanations both ask `next_step`, so an explanation cannot say something else than a read does. Only the hits have
their own early returns in the read path, for speed (`paths/read.py: _from_l1`, `paths/flight_runner.py: _land_from_l2` and
`_land_from_l3`); `tests/paths/test_next_step.py` holds those to it too. A read asks L1, L2 and
L3 in this order and stops at the first fresh copy. A stale copy in L1 is answered at once. Of the stale copies beyond L1 only the
newest copy that was seen counts, whatever its standing: an older one would take the key back to a version already replaced.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from cachesvc.coherence.admission import Standing


class CopySeen(NamedTuple):
    """A copy in one tier, as the read that asks judges it."""

    tier: str
    """`l1`, `l2` or `l3`."""
    standing: Standing
    as_of: int
    """µs since the epoch."""
    negative: bool = False
    suits: bool = True
    """False: the copy does not meet what the read asks for beyond the rule (`max-age`, `no-cache`, …)."""


class Lease(Enum):
    """The key's lease, as far as this read can have it."""

    FREE = "free"
    """The home grants it (for a read under way: has granted it)."""
    HELD = "held"
    """Another read or caller holds it."""
    UNAVAILABLE = "unavailable"
    """The home is out of reach, or the holder takes longer than is worth waiting for."""


class WhoLoads(Enum):
    """Who loads the value where no copy is answered."""

    INSTANCE = "instance"
    """This instance, from the namespace's origin."""
    CALLER = "caller"
    """The caller, who asked for the lease (look-aside)."""
    NOBODY = "nobody"
    """A read of the tiers only: `only-if-cached`, or look-aside without a wish for the lease."""


class Action(Enum):
    """What a read does next."""

    ANSWER = "answer a fresh copy"
    ANSWER_STALE = "answer a stale copy and refresh it"
    LOAD = "load under the lease"
    LOAD_WITHOUT_LEASE = "load without a lease"
    LEASE_TO_CALLER = "give the lease to the caller"
    """A stale copy may go along."""
    WAIT = "wait for another's load"
    MISS = "miss"


class NextStep(NamedTuple):
    """An action, and the copies that belong to it."""

    action: Action
    copy: CopySeen | None = None
    """The copy that is answered."""
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
    """The next step of a read that sees these copies, in the order of the tiers, and no others.

    `accepts_stale`: the reader itself named an age up to which it takes stale copies (`max-stale`); L1 honours it.
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
    """The copy that may stand in for an origin that fails or is late (RFC 5861, 4): the newest, if it may be answered so."""
    newest = _newest(copies, Standing.STALE, Standing.LAST_RESORT)
    return newest if newest is not None and newest.suits else None


def _is_stale_for_l1(copy: CopySeen, who: WhoLoads, *, accepts_stale: bool) -> bool:
    if copy.negative:
        return False
    if copy.standing is Standing.STALE:
        return who is not WhoLoads.CALLER or accepts_stale
    return copy.standing is Standing.LAST_RESORT and accepts_stale


def _past_the_copies(lease: Lease, who: WhoLoads) -> NextStep:
    """A copy ended the read's look at the tiers and does not suit: the origin is asked past all copies, or nobody."""
    return NextStep(_without_a_copy(lease, who) if who is WhoLoads.INSTANCE else Action.MISS)


def _without_a_copy(lease: Lease, who: WhoLoads) -> Action:
    return _WITHOUT_A_COPY.get((who, lease), Action.MISS)


def _newest(copies: Sequence[CopySeen], *good: Standing) -> CopySeen | None:
    """The newest copy, if it has a value and its standing is one of `good`; of several as new, the farthest that is."""
    newest = max((copy.as_of for copy in copies), default=0)
    as_new = (copy for copy in reversed(copies) if copy.as_of == newest)
    return next((copy for copy in as_new if copy.standing in good and not copy.negative), None)
