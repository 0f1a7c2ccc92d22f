"""Keys and entries. The rule that entries obey stands in docs/coherence.md.

Both are `gc=False` structs of atoms: with three million of them a full garbage collection takes 2
ms, and 0.5 to 3 s with other kinds of objects.
"""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import overload

from msgspec import Struct

from cachesvc.model.digest import digest, key_id, tag_id


class Key(Struct, frozen=True, gc=False):
    """A key of a namespace, with the values that are derived from it once per request."""

    namespace: str
    text: str
    id: bytes
    """The canonical bytes `namespace/text`: the key's identity in every tier."""
    digest: int
    """The xxh3 of `id`, which the ring, the home cell and the fence sketch use."""

    @classmethod
    def of(cls, namespace: str, text: str) -> "Key":
        id_ = key_id(namespace, text)
        return cls(namespace, text, id_, digest(id_))


class Keys(Sequence[Key]):
    """Keys of one namespace. Each `Key` is made anew when it is asked for.

    What L1 answers needs ids and digests only: to make a hundred `Key`s costs as much as to find them.
    """

    __slots__ = ("digests", "ids", "namespace", "texts")

    def __init__(self, namespace: str, texts: Sequence[str], ids: Sequence[bytes]) -> None:
        """`ids` are those of the keys with these texts (`Key.id`)."""
        self.namespace = namespace
        self.texts = texts
        self.ids = ids
        self.digests = list(map(digest, ids))

    def __repr__(self) -> str:
        return f"<Keys [{len(self.ids)} of {self.namespace!r}]>"

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Key]:
        return map(Key, repeat(self.namespace), self.texts, self.ids, self.digests)

    @overload
    def __getitem__(self, at: int, /) -> Key: ...

    @overload
    def __getitem__(self, at: slice, /) -> list[Key]: ...

    def __getitem__(self, at: int | slice, /) -> Key | list[Key]:
        if isinstance(at, slice):
            return list(self)[at]
        return Key(self.namespace, self.texts[at], self.ids[at], self.digests[at])


def digests_of(keys: Sequence[Key]) -> Sequence[int]:
    """Returns the digests of the keys, in order."""
    return keys.digests if isinstance(keys, Keys) else [key.digest for key in keys]


def ids_of(keys: Sequence[Key]) -> Sequence[bytes]:
    """Returns the ids of the keys, in order."""
    return keys.ids if isinstance(keys, Keys) else [key.id for key in keys]


class Entry(Struct, frozen=True, gc=False):
    """One copy of a value, with its own expiry, so that a stale copy can still be answered.

    All times are µs since the epoch. The stale windows are those of RFC 5861.
    """

    value: bytes
    as_of: int
    """A time not later than the moment the load from the origin began. The entry is admissible
    only if this is later than every fence on the entry."""
    fresh_until: int
    """The end of freshness."""
    stale_for: int = 0
    """How long after `fresh_until`, in µs, the value may be answered while it is refreshed."""
    error_for: int = 0
    """How long after `fresh_until`, in µs, the value may be answered if the origin fails."""
    load_ms: int = 0
    """How long the load took, in ms (the Δ of XFetch); 0 for a value that was written.

    Of a fill it is the time since the lease was granted.
    """
    content_type: str = "application/octet-stream"
    tags: tuple[str, ...] = ()
    tag_digests: tuple[int, ...] = ()
    """The digests of `tags`, in order (`tag_digests_of`), computed when the entry is made."""
    negative: bool = False
    """True: the value is known to be absent, because its origin or its writer said so."""
    origin_etag: str = ""
    """The validator that the origin sent with these bytes, for revalidation; empty if it sent
    none. The ETag that callers get is another one, a hash (`etag.py`)."""
    confirmed: bool = True
    """True if the home cell stored the value: `as_of` then orders the copies of a key.

    False for a value that was loaded without a lease, or whose fill was refused or not answered. A
    load that began earlier may have the later `as_of`."""

    @property
    def kept_until(self) -> int:
        """The end of its use in any tier, be it fresh, stale or as a last resort."""
        return self.fresh_until + max(self.stale_for, self.error_for)


def tag_digests_of(namespace: str, tags: tuple[str, ...]) -> tuple[int, ...]:
    """Returns the digests of the tags of a namespace, in order."""
    return tuple(digest(tag_id(namespace, tag)) for tag in tags) if tags else ()
