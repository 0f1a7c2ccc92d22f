"""The documents of clients/PROTOCOL.md, one struct each. Fields with default values are left out in both directions."""

from typing import Literal, TypeAlias

from msgspec import Struct

OCTETS = "application/octet-stream"
MSGPACK = "application/msgpack"
JSON = "application/json"
PROBLEM_TYPES = "https://cachesvc.dev/problems/"

Wait: TypeAlias = Literal["none", "region", "global"]
"""Who must have merged an invalidation before its call returns: nobody else, the region's live instances, or all regions'."""


class Problem(Struct):
    type: str = ""
    title: str = ""
    status: int = 0
    detail: str = ""
    field: str = ""
    retryable: bool = False
    request_id: str = ""


class GetMany(Struct, omit_defaults=True):
    keys: list[str]
    token: str = ""
    max_lag: str = ""
    lease: bool = False
    wait: float = 0.0


class Got(Struct, gc=False):
    """One key's answer. It may be shared by callers that asked for the same key in one batch."""

    outcome: str
    value: bytes = b""
    tier: str = ""
    age: int = 0
    ttl: int = 0
    """Negative when stale."""
    as_of: int = 0
    """µs since the epoch; 0 if the answer did not say, as on a miss."""
    content_type: str = OCTETS
    tags: tuple[str, ...] = ()
    lease: str = ""
    problem: Problem | None = None
    lag: float | None = None
    """Of the whole answer (`GotMany.lag`), noted on each key of it."""

    @property
    def is_found(self) -> bool:
        """Whether there is a value; if not, it is a miss or known to be absent."""
        return self.outcome not in ("miss", "absent")

    def claim_lease(self) -> str:
        """The lease, to the first of the callers that share this answer; empty for the others."""
        lease, self.lease = self.lease, ""
        return lease


class GotMany(Struct):
    results: list[Got]
    lag: float | None = None


class PutItem(Struct, omit_defaults=True, eq=False):
    """Compared by identity: two writes of one key in a batch are two writes."""

    key: str
    value: bytes = b""
    content_type: str = OCTETS
    tags: tuple[str, ...] = ()
    ttl: float | None = None
    stale_while_revalidate: float | None = None
    stale_if_error: float | None = None
    absent: bool = False
    lease: str = ""


class PutMany(Struct):
    items: list[PutItem]


class Put(Struct, gc=False):
    """One item's answer: `stored`, `fenced` (the lease was voided, the value was not kept) or `error`."""

    outcome: str
    problem: Problem | None = None


class PutResults(Struct):
    results: list[Put]
    token: str = ""


class Invalidation(Struct, omit_defaults=True):
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
        """Copies become stale and may still be answered."""
        return self.soft or bool(self.over)


class Receipt(Struct, frozen=True):
    """How far an invalidation got when the call returned."""

    id: str
    token: str
    """For another process that must read this write; the client that wrote sends it with its reads by itself."""
    applied: bool
    """Every home cell concerned has applied it. False: the fence is out, and the service goes on applying it."""
    position: str = ""
    """Of its fence on the region's stream."""
    reached: bool = True
    """What `wait` asked for holds: every live instance concerned has merged it. False: not by the deadline."""
    missing: tuple[str, ...] = ()
    """Who had not, as `region/instance`."""


class ReceiptState(Struct, frozen=True):
    """How far an invalidation has got by now."""

    id: str
    state: Literal["open", "parked", "done", "buried"]
    """`open`: accepted, its fence is not out. `parked`: the fence is out, a home cell is missing. `buried`: it cannot be done."""
    position: str = ""
    cells: tuple[str, ...] = ()
    """Home cells that have applied it."""
    missed: tuple[str, ...] = ()
    """Home cells that have not."""
    merged: tuple[str, ...] = ()
    """Live instances that have merged it, as `region/instance`."""
    missing: tuple[str, ...] = ()
    """Live instances that have not."""
    reason: str = ""
    """Why it was buried."""
