"""The documents of the wire, one struct each.

The structs decode requests, encode answers, and describe themselves in /openapi.json. Fields that
have their default are left out of answers. Times in requests and answers are seconds unless the
name says otherwise.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from cachesvc.changes.audit_trail import AuditRecord
from cachesvc.model.requests import Reach, Release
from cachesvc.web.requests.limits import (
    MAX_LEASE_LENGTH,
    MAX_MEDIA_TYPE_LENGTH,
    MAX_SOURCE_LAG_SECONDS,
    MAX_TOKEN_LENGTH,
)

OCTETS = "application/octet-stream"

Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Token = Annotated[str, Meta(max_length=MAX_TOKEN_LENGTH)]


class Problem(Struct, omit_defaults=True):
    """A problem (RFC 9457). `type` is `https://cachesvc.dev/problems/<kind>`."""

    type: str
    title: str
    status: int
    detail: str
    retryable: bool
    """Whether the same request may succeed later."""
    field: str = ""
    """The header, path segment or body path at fault."""
    request_id: str = ""
    token: str = ""
    """The fences that count although the request failed, as in `Cachesvc-Token`."""
    retry_after: int = 0
    """The seconds after which the origin asked to try again; left out if it did not say."""
    scope: str = ""
    """The scope that is missing, of a 401 or 403 for want of one."""
    identity: str = ""
    """The name of the identity that lacks the scope."""


class GetMany(Struct, forbid_unknown_fields=True):
    """The request of `POST /v1/{ns}:get`."""

    keys: list[str]
    token: Token = ""
    max_lag: Annotated[str, Meta(max_length=32)] = ""
    """The longest staleness bound that is accepted, such as `500ms`. Empty: the namespace's."""
    lease: bool = False
    wait: Seconds = 0.0


class Got(Struct, omit_defaults=True, gc=False):
    """The result for one key of `:get`."""

    outcome: Literal["hit", "stale", "loaded", "absent", "miss", "error"]
    value: bytes = b""
    tier: str = ""
    age: int = 0
    ttl: int = 0
    """Seconds of freshness that are left; negative if the value is stale."""
    as_of: int = 0
    """µs since the epoch."""
    content_type: str = OCTETS
    tags: tuple[str, ...] = ()
    lease: str = ""
    unkept: bool = False
    """True of a miss without a lease: the key's values could not be kept lately.

    The caller loads at once: a fill will not come.
    """
    problem: Problem | None = None
    keep: bool = True
    """False: this answer, and every older one of the key, may not be kept by anybody."""
    seen: int = 0
    """µs since the epoch, if `as_of` does not order the answers of the key here; else 0.

    A later read that must not go back sends the pair (digest of the key, `seen`) in its token,
    instead of (digest of the key, `as_of` - 1).
    """
    unmet: bool = False
    """True: the value may be older than the token asks for; its origin may lag."""
    early: bool = False
    """True: the caller should load the value anew, before it expires (XFetch).

    Only where callers load, and ask for leases. The lease over a fresh value is granted to a request
    with `lease` and `Cache-Control: no-cache`.
    """
    spread: int = 0
    """Over how many instances the readers of this hot key should spread it; 0 for other keys."""


class GotMany(Struct, omit_defaults=True):
    """The answer of `POST /v1/{ns}:get`, with results in the order of the keys."""

    results: list[Got]
    lag: float | None = None
    """The instance's staleness bound in seconds; left out while it is unknown."""
    queues: str = ""
    """The queue servers that the bound is of: `region@epoch`, with commas, by name.

    The epochs are those of the ids of `GET /v1/fences`. Left out while one is unknown."""


class PutItem(Struct, forbid_unknown_fields=True):
    """One item of `:put`; lifetimes that are left out are the namespace's."""

    key: str
    value: bytes = b""
    content_type: Annotated[str, Meta(max_length=MAX_MEDIA_TYPE_LENGTH)] = OCTETS
    tags: tuple[str, ...] = ()
    ttl: Seconds | None = None
    stale_while_revalidate: Seconds | None = None
    stale_if_error: Seconds | None = None
    absent: bool = False
    """True stores "known absent"; then there is no value."""
    lease: Annotated[str, Meta(max_length=MAX_LEASE_LENGTH)] = ""
    source_lag: Annotated[float, Meta(ge=0, le=MAX_SOURCE_LAG_SECONDS)] = 0.0
    """Seconds by which the source of the value may have been behind its commits.

    Only a value with a lease has it.
    """
    release: Release | None = None
    """Nothing is stored and the lease is given back: `failed` if the load brought no value,
    `unkept` if the value cannot be kept."""


class PutMany(Struct, forbid_unknown_fields=True):
    """The request of `POST /v1/{ns}:put`."""

    items: list[PutItem]


class Put(Struct, omit_defaults=True, gc=False):
    """The result for one item of `:put`.

    `fenced`: the lease was voided, and the value was not kept. `released`: the lease is not in
    force any more.
    """

    outcome: Literal["stored", "fenced", "released", "error"]
    problem: Problem | None = None
    unannounced: str = ""
    """The receipt's id of a put whose fence the instance keeps until its queue is back.

    Empty for all others."""


class PutResults(Struct, omit_defaults=True):
    """The answer of `POST /v1/{ns}:put`, with results in the order of the items."""

    results: list[Put]
    token: str = ""


class Invalidation(Struct, forbid_unknown_fields=True):
    """The request of `POST /v1/invalidations`: a change, and how it is to be done."""

    namespace: str
    keys: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    all: bool = False
    """True: the whole namespace changed."""
    confirm: Annotated[str, Meta(max_length=64)] = ""
    """With `all`, the name of the namespace once more."""
    soft: bool = False
    """True: copies become stale instead of gone."""
    over: Annotated[str, Meta(max_length=32)] = ""
    """A duration, such as `5m`, in which copies become stale one after the other."""
    wait: Reach = Reach.NONE
    """How far it must be merged before it is answered: by every live instance of the region,
    or of all regions. At the deadline the answer names the instances that are missing."""
    dry_run: bool = False
    """True: nothing is changed, and the answer says how much would be touched."""


class ChangeEvent(Struct):
    """A CloudEvent 1.0 in structured mode. Attributes that are not named here are ignored."""

    specversion: Literal["1.0"]
    type: Literal["dev.cachesvc.change.v1"]
    id: Annotated[str, Meta(min_length=1)]
    source: Annotated[str, Meta(min_length=1)]
    data: Invalidation
    datacontenttype: str = "application/json"


class InvalidationReceipt(Struct, omit_defaults=True):
    """The answer to an invalidation: how far it got."""

    id: str
    token: str
    applied: bool
    """True: every home cell concerned has applied it. False: its fence is published, and the
    region's consumers go on applying it."""
    position: str
    """The position of its fence on the region's stream, with the stream's epoch."""
    wait: Reach
    reached: bool
    """True: the reach that `wait` asked for holds. If not, the status is 202."""
    missing: tuple[str, ...]
    """The instances that had not merged the fence at the deadline, as `region/instance`."""
    announced: bool = True
    """False: the region's queue is away, and the instance keeps the fence in its journal until
    the queue is back. The status is 202. Left out if true."""


class AuditPage(Struct):
    """The answer of `GET /v1/audit`: records of this process, the newest first."""

    region: str
    instance: str
    records: list[AuditRecord]
    dropped: int
    """Older records that are not kept any more (`telemetry.audit_records`)."""
    left_out: int
    """Refusals that were counted and not recorded, because there were too many in a second."""


class HotKey(Struct, omit_defaults=True):
    """One key of `GET /v1/hotkeys`."""

    digest: str
    """The xxh3 of `namespace/key`, 16 hexadecimal digits."""
    share: float
    """The least share of the namespace's reads, 0 to 1."""
    error: float
    """How much higher the share may be, beside the chance of sampling."""
    reads_per_second: float
    """Reads per second at this instance, about."""
    key: str = ""
    """The text of the key; empty without the debug token."""


class LargeValue(Struct, omit_defaults=True):
    """One of the largest values of `GET /v1/hotkeys`."""

    digest: str
    bytes: int
    key: str = ""
    """The text of the key; empty without the debug token."""


class HotKeys(Struct):
    """The answer of `GET /v1/hotkeys`: the reads of the last minute or two at this instance."""

    namespace: str
    window_seconds: float
    reads_sampled: int
    sampled_one_in: int
    hot: list[HotKey]
    """The keys that are read most, in order."""
    largest: list[LargeValue]
    """The largest values that it saw, in order."""
