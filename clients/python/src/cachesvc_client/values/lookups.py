"""The three answers of `lookup`, to be told apart by `match` or `isinstance`."""

from typing import Generic, Literal, TypeAlias, TypeVar

from msgspec import Struct
from xxhash import xxh3_64_hexdigest, xxh3_64_intdigest

from cachesvc_client.errors import CacheError

V = TypeVar("V")


class Hit(Struct, Generic[V], frozen=True):
    """The cache has a value, fresh or stale."""

    value: V
    tier: str
    """The tier that had the value: `near`, `l1`, `l2`, `l3` or `origin`."""
    age: int
    """Whole seconds since the value was loaded."""
    ttl: int
    """Whole seconds of freshness that are left; negative if the value is stale."""
    stale: bool
    lag: float | None
    """The seconds by which the instance may be behind with invalidations; None while unknown."""
    etag: str
    """The ETag in quotes, as `If-Match` takes it; equal for equal bytes of one content type."""


class Miss(Struct, frozen=True):
    """The cache has no value that this reader takes."""

    reason: Literal["miss", "absent", "unreadable"] = "miss"
    """`absent`: it is known that there is no such value.

    `unreadable`: the stored value is of another version or type. `miss`: nothing is stored.
    """


class Unavailable(Struct, frozen=True):
    """The cache could not be asked; nothing is known of the value."""

    error: CacheError


Lookup: TypeAlias = Hit[V] | Miss | Unavailable


def etag_of(value: bytes, content_type: str) -> str:
    """Returns the ETag that the service gives to this value.

    The service does not send it for the keys of a batch (clients/PROTOCOL.md, "Batches").
    """
    return f'"{xxh3_64_hexdigest(value, xxh3_64_intdigest(content_type.encode()))}"'
