"""What `lookup` answers: one of three, to be told apart by `match` or `isinstance`."""

from typing import Generic, Literal, TypeAlias, TypeVar

from msgspec import Struct
from xxhash import xxh3_64_hexdigest, xxh3_64_intdigest

from cachesvc_client.errors import CacheError

V = TypeVar("V")


class Hit(Struct, Generic[V], frozen=True):
    value: V
    tier: str
    """Who had it: `near`, `l1`, `l2`, `l3` or `origin`."""
    age: int
    """Whole seconds since it was loaded."""
    ttl: int
    """Whole seconds of freshness that are left; negative when stale."""
    stale: bool
    lag: float | None
    """Seconds: how much the instance may have missed of what was invalidated. None: it does not know yet."""
    etag: str
    """As `If-Match` takes it, in quotes. Equal for equal bytes of one content type."""


class Miss(Struct, frozen=True):
    reason: Literal["miss", "absent", "unreadable"] = "miss"
    """`absent`: it is known that there is no such value. `unreadable`: what is stored is of another version or type."""


class Unavailable(Struct, frozen=True):
    """The cache could not be asked. Nothing is known of the value."""

    error: CacheError


Lookup: TypeAlias = Hit[V] | Miss | Unavailable


def etag_of(value: bytes, content_type: str) -> str:
    """The service's own, which it does not send for each key of a batch (clients/PROTOCOL.md)."""
    return f'"{xxh3_64_hexdigest(value, xxh3_64_intdigest(content_type.encode()))}"'
