"""The words of the protocol as values. COHERENCE.md is their law; nothing here does I/O.

Entries and keys are `gc=False` structs of atoms: with millions of them a full collection stays in the milliseconds.
"""

from enum import StrEnum

from msgspec import Struct

from cachesvc.hashing.digest import digest, key_id, namespace_id, tag_id
from cachesvc.units import Duration


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


class TargetKind(StrEnum):
    KEY = "key"
    TAG = "tag"
    NAMESPACE = "namespace"


class Target(Struct, frozen=True, gc=False):
    """What an invalidation names: a key, a tag or a whole namespace."""

    kind: TargetKind
    namespace: str
    text: str
    """The key or the tag; empty for a namespace."""
    id: bytes
    digest: int

    @classmethod
    def key(cls, namespace: str, text: str) -> "Target":
        return cls._of(TargetKind.KEY, namespace, text, key_id(namespace, text))

    @classmethod
    def tag(cls, namespace: str, text: str) -> "Target":
        return cls._of(TargetKind.TAG, namespace, text, tag_id(namespace, text))

    @classmethod
    def whole(cls, namespace: str) -> "Target":
        return cls._of(TargetKind.NAMESPACE, namespace, "", namespace_id(namespace))

    @classmethod
    def _of(cls, kind: TargetKind, namespace: str, text: str, id_: bytes) -> "Target":
        return cls(kind, namespace, text, id_, digest(id_))


class Fence(Struct, frozen=True, gc=False):
    """An invalidation as caches see it: copies of the target with `as_of <= at` are refused (or, if soft, stale)."""

    digest: int
    at: int
    soft: bool = False
    namespace: str = ""
    """Named only by a namespace fence: those are kept exactly, beside the sketch."""
    unapplied: bool = False
    """Published while the home cell could not be reached: L3 cannot judge it, so the instance does."""
    over: int = 0
    """µs. Above 0 the fence is paced: each entry becomes stale (not gone) at its own moment from `at` to `at + over`."""
    placement: int = 0
    """The placement under which it was applied (`Placement.id`); 0: every one. An instance under another placement cannot rely
    on its home cells having it, and keeps it as unapplied."""


class Change(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What a producer says: these targets of this namespace changed. The `data` of a `dev.cachesvc.change.v1` event."""

    namespace: str
    keys: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    all: bool = False
    soft: bool = False
    """Copies become stale instead of gone."""
    over: str = ""
    """A duration such as `5m`: pace it. Each entry becomes stale at its own moment of that window."""

    @property
    def over_us(self) -> int:
        """Raises `ValueError` for what is no duration: who takes a change in checks this first."""
        return int(Duration.parse(self.over)) if self.over else 0

    def targets(self) -> list[Target]:
        found = [Target.key(self.namespace, key) for key in self.keys]
        found += [Target.tag(self.namespace, tag) for tag in self.tags]
        if self.all:
            found.append(Target.whole(self.namespace))
        return found


TokenPairs = tuple[tuple[int, int], ...]
"""A token: `(digest, at)` pairs that a read must honour as fences."""
