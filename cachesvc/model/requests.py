"""What callers ask of the three paths, and what the paths answer. The web layer translates HTTP to these and back."""

from enum import StrEnum
from functools import cache
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.model.entry import Entry
from cachesvc.model.errors import RequestError
from cachesvc.model.fence import TokenPairs


class Outcome(StrEnum):
    HIT = "hit"
    """A fresh copy from a tier."""
    STALE = "stale"
    """A copy past its freshness, within what policy or the caller allows."""
    LOADED = "loaded"
    """Just loaded from the origin."""
    ABSENT = "absent"
    """Known absent: a negative entry."""
    MISS = "miss"
    """No copy, and nothing to load it from here. With a lease, the caller is the one to load it."""
    ERROR = "error"
    """This key failed; `error` says why."""


class ReadOptions(Struct, frozen=True, gc=False):
    """What a reader asks beyond the key: request `Cache-Control` (RFC 9111, 5.2.1), tokens, deadlines, a lease."""

    max_age_us: int | None = None
    max_stale_us: int | None = None
    """How far past freshness the caller accepts; None: the entry's own windows decide."""
    min_fresh_us: int = 0
    no_cache: bool = False
    """Load from the origin whatever is held (look-aside: a miss)."""
    no_store: bool = False
    """Answer, and keep nothing that this read loaded."""
    only_if_cached: bool = False
    token: TokenPairs = ()
    max_lag_us: int | None = None
    timeout_seconds: float | None = None
    lease: bool = False
    """Look-aside: on a miss grant one caller the lease."""
    wait_seconds: float = 0.0
    """Look-aside with `lease`: how long to wait for another's fill before answering a miss."""


PLAIN = ReadOptions()
"""A read that asks nothing special: the path of nearly all of them."""


class Step(Struct, frozen=True, gc=False):
    """A tier that was asked and did not answer, and why; rendered as a Cache-Status member (RFC 9211)."""

    tier: str
    """`l1`, `l2` or `l3`."""
    reason: str
    """An RFC 9211 `fwd` word: `uri-miss`, `stale`, `request`, `bypass`."""
    detail: str = ""
    """`fenced`, `unavailable`, `soft`, …"""
    collapsed: bool = False
    stored: bool = False
    """The answer was kept there."""

    def as_collapsed(self) -> "Step":
        return _variant(self, collapsed=True)

    def as_stored(self) -> "Step":
        return _variant(self, stored=True)


@cache
def _variant(step: Step, **flags: bool) -> Step:
    """There are a few dozen steps in all; making one anew for each read would cost more than the rest of its answer."""
    return replace(step, **flags)


class Answer(Struct, frozen=True, gc=False):
    """The answer to one read."""

    outcome: Outcome
    entry: Entry | None = None
    tier: str = ""
    """Who answered: `l1`, `l2`, `l3`, `origin`; empty for a miss."""
    trail: tuple[Step, ...] = ()
    """The tiers passed on the way, origin-side first."""
    lease: str | None = None
    """A granted lease token, to fill with."""
    error: RequestError | None = None


class Draft(Struct, frozen=True, gc=False):
    """What a caller wants stored. Absent lifetimes (None) are the namespace's; all µs."""

    value: bytes
    content_type: str = "application/octet-stream"
    tags: tuple[str, ...] = ()
    ttl_us: int | None = None
    stale_for_us: int | None = None
    error_for_us: int | None = None
    negative: bool = False
    lease: str | None = None
    """Fill under this lease; without one the write is an invalidation and a fill."""
    if_absent: bool = False
    if_match: tuple[str, ...] = ()


class Written(Struct, frozen=True, gc=False):
    """The answer to one write."""

    stored: bool
    reason: str = ""
    """Why not: `fenced` (the lease was voided) or `precondition`."""
    entry: Entry | None = None
    token: TokenPairs = ()
    """Read-your-writes anywhere."""
    error: RequestError | None = None


class Reach(StrEnum):
    """How far an invalidation must have got before the call returns."""

    NONE = "none"
    """Applied and published; merged where it was called."""
    REGION = "region"
    """Merged by every live instance of the region."""
    GLOBAL = "global"
    """Merged by every live instance of every region."""


class InvalidateOptions(Struct, frozen=True, gc=False):
    wait: Reach = Reach.NONE
    timeout_seconds: float = 5.0
    """For `wait`: then the receipt names who is missing."""
    who: str = ""
    """For the audit: the caller's declared name, or its address."""


class Receipt(Struct, frozen=True, gc=False):
    """How far an invalidation got when the call returned."""

    id: str
    """The change's id in the region's queue, prefixed by the region: `eu:1700000000000-0`."""
    token: TokenPairs
    applied: bool
    """Every home cell concerned has applied it. False: the fence is out, and the region's consumers go on applying it."""
    position: str = ""
    """Of the fence on the region's `fences` stream."""
    wait: Reach = Reach.NONE
    reached: bool = True
    """What `wait` asked for holds. False: not by the deadline; `missing` says who."""
    missing: tuple[str, ...] = ()
    """Instances that were waited for and have not merged the fence, as `region/instance`."""


class ReceiptState(Struct, frozen=True):
    """How far a change has got by now."""

    id: str
    state: Literal["open", "parked", "done", "buried"]
    position: str = ""
    cells: tuple[str, ...] = ()
    """Home cells that have applied it."""
    missed: tuple[str, ...] = ()
    """Home cells that have not."""
    merged: tuple[str, ...] = ()
    """Live instances past the fence, as `region/instance`."""
    missing: tuple[str, ...] = ()
    """Live instances that are not."""
    reason: str = ""
    """Why it was buried."""


class Estimate(Struct, frozen=True):
    """What an invalidation would touch (`dry_run`), as this instance sees it."""

    l1_entries: int
    """Copies in this instance's L1 that it would refuse."""
    recent_reads: float
    """The share of this instance's recent reads (a sample of L1's hits) that it would touch: 0 to 1."""
    sampled: int
    """How many recent reads the share was taken from."""
    cells: tuple[str, ...]
    """Home cells that would have to apply it."""
