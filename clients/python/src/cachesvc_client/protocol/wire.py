"""The documents of clients/PROTOCOL.md, one struct each.

Fields with default values are left out in both directions.
"""

from typing import Literal, TypeAlias

from msgspec import Struct

OCTETS = "application/octet-stream"
MSGPACK = "application/msgpack"
JSON = "application/json"
PROBLEM_TYPES = "https://cachesvc.dev/problems/"

Wait: TypeAlias = Literal["none", "region", "global"]
"""The instances that must have merged an invalidation before its call returns.

`none`: no other instance. `region`: every live instance of the region. `global`: every live
instance of all regions.
"""

ReleaseReason: TypeAlias = Literal["", "failed", "unkept"]
"""The reason for which a lease is given back unfilled.

`failed`: the load brought no value. `unkept`: it brought a value that cannot be kept, and for a
while nobody needs to wait for a fill of the key.
"""


class Problem(Struct):
    """A problem document (RFC 9457): why a request, or one key of a batch, failed."""

    type: str = ""
    title: str = ""
    status: int = 0
    detail: str = ""
    field: str = ""
    retryable: bool = False
    request_id: str = ""
    retry_after: float = 0.0
    """The seconds after which the origin asked to try again; 0 if it did not say."""
    scope: str = ""
    """The scope that a 403 found missing."""
    identity: str = ""
    """The identity that a 403 was for."""


class GetMany(Struct, omit_defaults=True):
    """The request of `:get`."""

    keys: list[str]
    token: str = ""
    max_lag: str = ""
    lease: bool = False
    wait: float = 0.0
    """Seconds to wait for another holder's fill."""


class Got(Struct, gc=False):
    """The answer to one key.

    Callers that asked for the same key in one batch share one such object.
    """

    outcome: str
    value: bytes = b""
    tier: str = ""
    age: int = 0
    """Whole seconds since the value was loaded."""
    ttl: int = 0
    """Whole seconds of freshness that are left; negative if the value is stale."""
    as_of: int = 0
    """The time of the value in µs since the epoch; 0 if the answer did not say, as on a miss."""
    content_type: str = OCTETS
    tags: tuple[str, ...] = ()
    lease: str = ""
    unkept: bool = False
    """True of a miss without a lease: values of the key could not be kept lately.

    The caller loads at once, because no fill will come.
    """
    problem: Problem | None = None
    lag: float | None = None
    """The lag of the whole answer (`GotMany.lag`), noted on each key of it."""
    queues: str = ""
    """The queues of the whole answer (`GotMany.queues`), noted on each key of it."""
    early: bool = False
    """True of a fresh value that the service asks this caller to load anew, before it expires."""
    spread: int = 0
    """The instances over which the reads of this hot key should be spread; 0 for other keys."""
    keep: bool = True
    """False if this answer, and every older one of the key, may not be kept."""
    is_moved: bool = False
    """True if an instance that was asked before gave no answer, noted here by the client.

    That one may have granted the lease which is held now, and then nobody has it.
    """

    @property
    def is_found(self) -> bool:
        """True if there is a value; if false, the key is a miss or known to be absent."""
        return self.outcome not in ("miss", "absent")

    def claim_lease(self) -> str:
        """Returns the lease to the first caller that asks, of those that share this answer.

        For the others it is empty.
        """
        lease, self.lease = self.lease, ""
        return lease


class GotMany(Struct):
    """The answer of `:get`."""

    results: list[Got]
    """One for each key, in the order of the request."""
    lag: float | None = None
    """The instance's staleness bound in seconds; None while it is unknown."""
    queues: str = ""
    """The queues that the bound is of: `region@epoch`, with commas, by name."""


class PutItem(Struct, omit_defaults=True, eq=False):
    """One write of `:put`; the times are seconds, None stands for the namespace's.

    Items are compared by identity: two writes of one key in a batch are two writes.
    """

    key: str
    value: bytes = b""
    content_type: str = OCTETS
    tags: tuple[str, ...] = ()
    ttl: float | None = None
    stale_while_revalidate: float | None = None
    stale_if_error: float | None = None
    absent: bool = False
    lease: str = ""
    source_lag: float = 0.0
    """Seconds by which the source of a value with a lease may have been behind its commits."""
    release: ReleaseReason = ""
    """Nothing is stored, and the lease is given back for this reason; empty in a write."""


class PutMany(Struct):
    """The request of `:put`."""

    items: list[PutItem]


class Put(Struct, gc=False):
    """The answer to one item of `:put`."""

    outcome: str
    """`stored`, `fenced`, `released` or `error`.

    `fenced`: the lease was voided or expired, the value was not kept. `released`: the lease was given
    back.
    """
    problem: Problem | None = None
    unannounced: str = ""
    """The id of a receipt, for `Cache.receipt`, if the region's queue is away.

    The value is stored, and the other instances hear of it when the queue is back. Empty otherwise.
    """


class PutResults(Struct):
    """The answer of `:put`."""

    results: list[Put]
    """One for each item, in the order of the request."""
    token: str = ""
    """The fences of the items that were stored without a lease; empty if there are none."""


class Invalidation(Struct, omit_defaults=True):
    """The request of `POST /v1/invalidations`."""

    namespace: str
    keys: list[str]
    tags: tuple[str, ...] = ()
    all: bool = False
    confirm: str = ""
    soft: bool = False
    over: str = ""
    wait: Wait = "none"

    @property
    def is_lenient(self) -> bool:
        """True if copies become stale and may still be answered."""
        return self.soft or bool(self.over)


class Receipt(Struct, frozen=True):
    """How far an invalidation got when the call returned."""

    id: str
    token: str
    """The token for another process that must read this write.

    The client that wrote sends the token with its own reads by itself.
    """
    applied: bool
    """True if every home cell concerned has applied the invalidation.

    If false, the fence is out, and the service goes on applying it.
    """
    position: str = ""
    """The position of the invalidation's fence on the region's stream, with its epoch."""
    reached: bool = True
    """True if every live instance that `wait` asks for has merged the fence.

    False if some had not when the deadline came.
    """
    missing: tuple[str, ...] = ()
    """The live instances that had not merged the fence, as `region/instance`."""
    announced: bool = True
    """False if the region's queue is away, and the instance keeps the fence until then.

    Until then, the other instances do not know of the write. This client reads it all the same.
    """


class ReceiptState(Struct, frozen=True):
    """How far an invalidation has got by now."""

    id: str
    state: Literal["open", "parked", "done", "buried"]
    """How far the invalidation is.

    `open`: it is accepted, and its fence is not out. `parked`: the fence is out, and a home cell has
    not applied the invalidation. `done`: all is done. `buried`: the invalidation cannot be done.
    """
    position: str = ""
    """The position of the invalidation's fence on the region's stream, with its epoch."""
    cells: tuple[str, ...] = ()
    """Home cells that have applied the invalidation."""
    missed: tuple[str, ...] = ()
    """Home cells that have not applied it."""
    merged: tuple[str, ...] = ()
    """Live instances that have merged the fence, as `region/instance`."""
    missing: tuple[str, ...] = ()
    """Live instances that have not merged it, as `region/instance`."""
    reason: str = ""
    """The reason why the invalidation was buried; empty unless it was."""
