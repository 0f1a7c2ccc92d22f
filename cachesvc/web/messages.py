"""The documents of the wire, one struct each: they decode requests, encode answers, and describe themselves in /openapi.json.

Fields with default values are left out of answers. Times in requests and answers are seconds unless the name says otherwise.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from cachesvc.model.requests import Reach
from cachesvc.web.requests.limits import MAX_LEASE_LENGTH, MAX_MEDIA_TYPE_LENGTH

OCTETS = "application/octet-stream"
CHANGE_EVENT = "dev.cachesvc.change.v1"

Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Short = Annotated[str, Meta(max_length=8192)]


class Problem(Struct, omit_defaults=True):
    """RFC 9457. `type` is stable: `https://cachesvc.dev/problems/<kind>`."""

    type: str
    title: str
    status: int
    detail: str
    retryable: bool
    """Whether the same request may succeed later."""
    field: str = ""
    """The header, path segment or body path at fault."""
    request_id: str = ""


class GetMany(Struct, forbid_unknown_fields=True):
    """`POST /v1/{ns}:get`."""

    keys: list[str]
    token: Short = ""
    max_lag: Annotated[str, Meta(max_length=32)] = ""
    """Such as `500ms`."""
    lease: bool = False
    wait: Seconds = 0.0


class Got(Struct, omit_defaults=True, gc=False):
    """One key of `:get`'s answer."""

    outcome: Literal["hit", "stale", "loaded", "absent", "miss", "error"]
    value: bytes = b""
    tier: str = ""
    age: int = 0
    ttl: int = 0
    """Negative when stale."""
    as_of: int = 0
    """µs since the epoch."""
    content_type: str = OCTETS
    tags: tuple[str, ...] = ()
    lease: str = ""
    problem: Problem | None = None


class GotMany(Struct, omit_defaults=True):
    results: list[Got]
    lag: float | None = None
    """The instance's staleness bound; left out while it is unknown."""


class PutItem(Struct, forbid_unknown_fields=True):
    key: str
    value: bytes = b""
    content_type: Annotated[str, Meta(max_length=MAX_MEDIA_TYPE_LENGTH)] = OCTETS
    tags: tuple[str, ...] = ()
    ttl: Seconds | None = None
    stale_while_revalidate: Seconds | None = None
    stale_if_error: Seconds | None = None
    absent: bool = False
    """Store "known absent"; there is no value then."""
    lease: Annotated[str, Meta(max_length=MAX_LEASE_LENGTH)] = ""


class PutMany(Struct, forbid_unknown_fields=True):
    """`POST /v1/{ns}:put`."""

    items: list[PutItem]


class Put(Struct, omit_defaults=True, gc=False):
    """One item of `:put`'s answer. `fenced`: the lease was voided, the value was not kept."""

    outcome: Literal["stored", "fenced", "error"]
    problem: Problem | None = None


class PutResults(Struct, omit_defaults=True):
    results: list[Put]
    token: str = ""


class Invalidation(Struct, forbid_unknown_fields=True):
    """`POST /v1/invalidations`: a change, and how it is to be done."""

    namespace: str
    keys: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    all: bool = False
    """The whole namespace."""
    confirm: Annotated[str, Meta(max_length=64)] = ""
    """With `all`: the namespace once more."""
    soft: bool = False
    """Copies become stale instead of gone."""
    over: Annotated[str, Meta(max_length=32)] = ""
    """A duration, such as `5m`: copies become stale one after the other within it."""
    wait: Reach = Reach.NONE
    """Answer when it is merged by every live instance of the region, or of all; or say at the deadline who is missing."""
    dry_run: bool = False
    """Only say what it would touch."""


class ChangeEvent(Struct):
    """A CloudEvent 1.0 in structured mode; attributes not named here are taken and ignored."""

    specversion: Literal["1.0"]
    type: Literal["dev.cachesvc.change.v1"]
    id: Annotated[str, Meta(min_length=1)]
    source: Annotated[str, Meta(min_length=1)]
    data: Invalidation
    datacontenttype: str = "application/json"


class InvalidationReceipt(Struct):
    id: str
    token: str
    applied: bool
    """Every home cell concerned has applied it; if not, the fence is out and the region's consumers go on applying it."""
    position: str
    """Of the fence on the region's stream."""
    wait: Reach
    reached: bool
    """What `wait` asked for holds. If not, the status is 202."""
    missing: tuple[str, ...]
    """Who had not merged the fence at the deadline, as `region/instance`."""


class HotKey(Struct, omit_defaults=True):
    """One key of `GET /v1/hotkeys`."""

    digest: str
    """xxh3 of `namespace/key`, 16 hexadecimal digits."""
    share: float
    """Of the namespace's reads, at least."""
    error: float
    """By how much the share may be higher, beside the chance of sampling."""
    reads_per_second: float
    """At this instance, about."""
    key: str = ""
    """Only for the debug token."""


class LargeValue(Struct, omit_defaults=True):
    digest: str
    bytes: int
    key: str = ""
    """Only for the debug token."""


class HotKeys(Struct):
    """What this instance was asked for in the last minute or two."""

    namespace: str
    window_seconds: float
    reads_sampled: int
    sampled_one_in: int
    hot: list[HotKey]
    """Those read most, the first most of all."""
    largest: list[LargeValue]
    """Of the values that it saw, the largest first."""
