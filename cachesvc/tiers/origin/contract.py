"""The contract of an origin: loading a value, and the answer of a load."""

from typing import Protocol

from msgspec import Struct

from cachesvc.model.entry import Entry, Key
from cachesvc.model.use import EVERY_USE, Use


class Loaded(Struct, frozen=True):
    """The answer of an origin: bytes with lifetimes, or absence, or "not modified"."""

    value: bytes
    content_type: str
    ttl_us: int | None
    """Freshness that the origin asked for, less its `Age`; None: the namespace's TTL holds."""
    stale_for_us: int | None
    error_for_us: int | None
    tags: tuple[str, ...]
    age_us: int
    """The origin's `Age`, to be subtracted from `as_of`."""
    absent: bool = False
    """The origin answered 404 or 410: this becomes a negative entry."""
    not_modified: bool = False
    """The origin answered 304: `value`, content type and tags are those of `known`, which the
    origin validated. The copy is filled again, under the lease."""
    use: Use = EVERY_USE
    """The uses that the origin allows, beyond answering the read that loaded it."""
    etag: str | None = None
    status: int = 200
    """The status that the origin answered. Values and absences are kept without it."""


class Loader(Protocol):
    """Loads values of one namespace from its origin."""

    async def load(self, key: Key, *, known: Entry | None, timeout_seconds: float) -> Loaded:
        """Loads within the timeout. Raises `OriginError`.

        `known` is a copy that may be revalidated by its ETag.
        """
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...
