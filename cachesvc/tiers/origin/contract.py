from typing import Protocol

from msgspec import Struct

from cachesvc.model.entry import Entry, Key


class Loaded(Struct, frozen=True):
    """What an origin answered: bytes with lifetimes, or absence, or "not modified"."""

    value: bytes
    content_type: str
    ttl_us: int | None
    """Freshness the origin asked for, less its `Age`; None: the namespace's."""
    stale_for_us: int | None
    error_for_us: int | None
    tags: tuple[str, ...]
    age_us: int
    """The origin's `Age`: subtracted from `as_of`."""
    absent: bool = False
    """404 or 410: becomes a negative entry."""
    not_modified: bool = False
    """304: `value`, content type and tags are those of `known`, which it validated; filled again, under the lease."""
    storable: bool = True
    """False for `no-store` and `private`: answered, not kept."""
    etag: str | None = None


class Loader(Protocol):
    """Loads values of one namespace from its origin."""

    async def load(self, key: Key, *, known: Entry | None, timeout_seconds: float) -> Loaded:
        """Load within the timeout. `known` is a copy that may be revalidated by its ETag. Raises `OriginError`."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...
