"""The documents of clients/PROTOCOL.md, one struct each. Fields with default values are left out in both directions."""

from msgspec import Struct

OCTETS = "application/octet-stream"
MSGPACK = "application/msgpack"
JSON = "application/json"
PROBLEM_TYPES = "https://cachesvc.dev/problems/"


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
    lease: str = ""
    problem: Problem | None = None

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
    soft: bool = False


class Receipt(Struct, frozen=True):
    """How far an invalidation got when the call returned."""

    id: str
    token: str
    """For another process that must read this write; the client that wrote sends it with its reads by itself."""
    applied: bool
    """Every home cell concerned has applied it. False: the fence is out, and the service goes on applying it."""
