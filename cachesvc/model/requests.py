"""The questions to the paths (read, write, invalidate) and their answers.

The web layer translates HTTP requests to these structs, and these structs to HTTP answers.
"""

from enum import StrEnum
from functools import cache
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.model.entry import Entry
from cachesvc.model.errors import RequestError
from cachesvc.model.fence import TokenPairs
from cachesvc.model.use import EVERY_USE, Use


class Outcome(StrEnum):
    """The end of one read of one key."""

    HIT = "hit"
    """A fresh copy from a tier."""
    STALE = "stale"
    """A copy past its freshness that the namespace or the caller allows."""
    LOADED = "loaded"
    """A value that was just loaded from the origin."""
    ABSENT = "absent"
    """A negative entry: the value is known to be absent."""
    MISS = "miss"
    """No copy, and no origin to load it from. A caller that got a lease is the one to load it."""
    ERROR = "error"
    """The read of this key failed; `Answer.error` says why."""


class ReadOptions(Struct, frozen=True, gc=False):
    """The options of a read: `Cache-Control` (RFC 9111, 5.2.1), token, deadlines, lease."""

    max_age_us: int | None = None
    """The greatest age of a copy that the caller accepts; None: any."""
    max_stale_us: int | None = None
    """How far past its freshness a copy may be; None: the entry's own windows decide."""
    min_fresh_us: int = 0
    """How much freshness a copy must still have."""
    no_cache: bool = False
    """True: the value is loaded from the origin, whatever is held.

    Look-aside: a miss, which with `lease` brings the lease unless another holds it.
    """
    no_store: bool = False
    """True: a value that this read loads is answered and not kept."""
    only_if_cached: bool = False
    """True: nothing is loaded; without a copy the answer is a miss."""
    token: TokenPairs = ()
    """Fences that hold for this read, beside those that the instance has merged."""
    max_lag_us: int | None = None
    """The greatest staleness bound that the caller accepts; None: the namespace's `max_lag`."""
    timeout_seconds: float | None = None
    """How long the caller waits; None: as long as the service allows."""
    lease: bool = False
    """Look-aside: True asks for the lease, which one caller is granted on a miss."""
    wait_seconds: float = 0.0
    """Look-aside with `lease`: how long to wait for the fill of another holder before a miss."""


PLAIN = ReadOptions()
"""The options of a read that asks nothing special, as nearly all reads do."""


class Step(Struct, frozen=True, gc=False):
    """A tier that did not answer, rendered as a member of `Cache-Status` (RFC 9211)."""

    tier: str
    """`l1`, `l2` or `l3`."""
    reason: str
    """The reason, as a `fwd` word of RFC 9211: `uri-miss`, `stale`, `request`, `bypass`."""
    detail: str = ""
    """More about the reason: `fenced`, `unavailable`, `soft`, …"""
    collapsed: bool = False
    """True: the read joined the load of another one."""
    stored: bool = False
    """True: the answer was kept in the tier."""
    origin_status: int = 0
    """The status that the origin answered, where the caller is answered another one; else 0."""

    def as_collapsed(self) -> "Step":
        return _variant(self, collapsed=True)

    def as_stored(self) -> "Step":
        return _variant(self, stored=True)

    def as_answered(self, origin_status: int) -> "Step":
        """Returns the step with the status that the origin answered."""
        return _variant(self, origin_status=origin_status)


@cache
def _variant(step: Step, **flags: int) -> Step:
    """Returns the step with these flags, made once.

    There are a few dozen steps in all. Making one for each read costs more than the rest of its answer.
    """
    return replace(step, **flags)


class Answer(Struct, frozen=True, gc=False):
    """The answer to one read."""

    outcome: Outcome
    entry: Entry | None = None
    tier: str = ""
    """The tier that answered: `l1`, `l2`, `l3`, `origin`; empty for a miss."""
    trail: tuple[Step, ...] = ()
    """The tiers that were passed on the way, the one nearest to the origin first."""
    lease: str | None = None
    """The token of a lease that was granted to the caller, to fill with."""
    error: RequestError | None = None
    use: Use = EVERY_USE
    """The uses of the answer for the caller, and for caches on the way to it."""
    unkept: bool = False
    """True: another holds the lease, and the key's values could not be kept lately.

    A fill will not come: the caller loads at once.
    """
    unmet: bool = False
    """True: the value may be older than the read's token asks for; its origin may lag."""


class Release(StrEnum):
    """The reason for which a caller gives a lease back unfilled."""

    FAILED = "failed"
    """The load brought no value: the next reader gets the lease."""
    UNKEPT = "unkept"
    """The load brought a value that cannot be kept.

    For a while nobody waits for the key's lease.
    """


class Draft(Struct, frozen=True, gc=False):
    """A value that a caller wants stored. A lifetime of None is the namespace's."""

    value: bytes
    content_type: str = "application/octet-stream"
    tags: tuple[str, ...] = ()
    ttl_us: int | None = None
    stale_for_us: int | None = None
    error_for_us: int | None = None
    negative: bool = False
    """True: "known absent" is stored; `value` is empty."""
    lease: str | None = None
    """The lease to fill under; without one the write is an invalidation and a fill."""
    source_lag_us: int = 0
    """How far the source of a fill may have been behind its commits.

    The entry is so much older than its lease.
    """
    if_absent: bool = False
    """True: store only if the home cell has no value (`If-None-Match: *`)."""
    if_match: tuple[str, ...] = ()
    """Store only over a value with one of these ETags (`If-Match`); empty: no condition."""
    release: Release | None = None
    """Nothing is stored, and `lease` is given back, for this reason."""


class Written(Struct, frozen=True, gc=False):
    """The answer to one write."""

    stored: bool
    reason: str = ""
    """Why it was not stored, in one word.

    `precondition`, `released`, `fenced` (a fence refuses the value), or `lapsed` (its lease is not
    in force).
    """
    entry: Entry | None = None
    token: TokenPairs = ()
    """The token with which any instance answers the writer with this value or a later one."""
    error: RequestError | None = None
    unannounced: str = ""
    """The receipt's id of a put that the other instances have not been told of: the region's
    queue is away, and the instance keeps the fence until it is back. Empty for all others."""


class Reach(StrEnum):
    """How far an invalidation must have got before the call returns."""

    NONE = "none"
    """It is applied and published, and merged by the instance that was called."""
    REGION = "region"
    """Every live instance of the region has merged it."""
    GLOBAL = "global"
    """Every live instance of every region has merged it."""


class Author(Struct, frozen=True, gc=False):
    """Whoever makes a change or a call, as far as it is known."""

    identity: str = ""
    """The name of the identity that was proved; empty for an anonymous caller."""
    address: str = ""
    """The address of the peer; empty for what no caller sent."""
    says: str = ""
    """The name that the caller gave itself, or an event's `source`. It proves nothing."""


class InvalidateOptions(Struct, frozen=True, gc=False):
    """The options of an invalidation."""

    wait: Reach = Reach.NONE
    timeout_seconds: float = 5.0
    """How long `wait` may last; then the receipt names the instances that are missing."""
    author: Author = Author()
    """The caller that invalidates, for the audit."""


class Receipt(Struct, frozen=True, gc=False):
    """How far an invalidation got when the call returned."""

    id: str
    """The change's id in the region's queue, prefixed by the region: `eu:1700000000000-0`."""
    token: TokenPairs
    applied: bool
    """True: every home cell concerned has applied it. False: its fence is published, and the
    region's consumers go on applying it."""
    position: str = ""
    """The position of its fence on the region's `fences` stream."""
    wait: Reach = Reach.NONE
    reached: bool = True
    """True: the reach that `wait` asked for holds. False: it did not hold at the deadline."""
    missing: tuple[str, ...] = ()
    """The instances that were waited for and have not merged the fence, as `region/instance`."""
    announced: bool = True
    """False: the region's queue is away, and the instance keeps the fence until it is back."""


class ReceiptState(Struct, frozen=True):
    """How far a change has got by now."""

    id: str
    state: Literal["open", "parked", "done", "buried"]
    """`open`: accepted, its fence is not published; `parked`: published, not applied in the
    cells of `missed`; `done`; `buried`: it cannot be done, `reason` says why."""
    position: str = ""
    """The position of its fence on the region's `fences` stream; empty before that."""
    cells: tuple[str, ...] = ()
    """The home cells that have applied it."""
    missed: tuple[str, ...] = ()
    """The home cells that have not applied it."""
    merged: tuple[str, ...] = ()
    """The live instances that have merged its fence, as `region/instance`."""
    missing: tuple[str, ...] = ()
    """The live instances that have not merged its fence."""
    reason: str = ""
    """Why it was buried; else empty."""


class Estimate(Struct, frozen=True):
    """How much an invalidation would touch (`dry_run`), as this instance sees it."""

    l1_entries: int
    """The copies in this instance's L1 that it would refuse; for tags, taken from a look at
    50,000 copies if L1 has more."""
    recent_reads: float
    """The share (0 to 1) of this instance's recent reads that it would touch; of a sample of
    L1's hits."""
    sampled: int
    """The number of recent reads that the share was taken from."""
    cells: tuple[str, ...]
    """The home cells that would have to apply it."""
