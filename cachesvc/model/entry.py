"""The words of the protocol as values. COHERENCE.md is their law; nothing here does I/O.

Entries and keys are `gc=False` structs of atoms: with millions of them a full collection stays in the milliseconds.
"""

from msgspec import Struct

from cachesvc.model.digest import digest, key_id, tag_id


class Key(Struct, frozen=True, gc=False):
    """A key of a namespace, with what is derived from it once per request."""

    namespace: str
    text: str
    id: bytes
    """Canonical bytes `namespace/text`; the identity in every tier."""
    digest: int
    """xxh3 of `id`: ring, home cell and sketch use this one."""

    @classmethod
    def of(cls, namespace: str, text: str) -> "Key":
        id_ = key_id(namespace, text)
        return cls(namespace, text, id_, digest(id_))


class Entry(Struct, frozen=True, gc=False):
    """One copy of a value. Expiry lives here, so that a stale copy can still be served. All times µs since the epoch."""

    value: bytes
    as_of: int
    """A time not later than the moment the load from the origin began. Admissible only if later than every fence on it."""
    fresh_until: int
    stale_for: int = 0
    """µs after `fresh_until` during which the value may be served while it is being refreshed (RFC 5861)."""
    error_for: int = 0
    """µs after `fresh_until` during which the value may be served when the origin fails (RFC 5861)."""
    load_ms: int = 0
    """How long the load took: the Δ of XFetch early refresh."""
    content_type: str = "application/octet-stream"
    tags: tuple[str, ...] = ()
    tag_digests: tuple[int, ...] = ()
    """Digests of `tags`, in order; computed once when the entry is made (`tag_digests_of`)."""
    negative: bool = False
    """Known absent: the origin said that there is no such value."""
    origin_etag: str = ""
    """The validator the origin sent with these bytes, to revalidate with; empty if none. Ours is a hash (`etag.py`)."""

    @property
    def kept_until(self) -> int:
        """The end of its use in any tier: fresh, stale or as a last resort."""
        return self.fresh_until + max(self.stale_for, self.error_for)


def tag_digests_of(namespace: str, tags: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(digest(tag_id(namespace, tag)) for tag in tags) if tags else ()
