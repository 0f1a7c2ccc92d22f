"""The 64-bit digest of a target; the ring, the home cell and the fence sketch all use it.

It is computed once per target and request. A target is a key, a tag or a namespace; its canonical
bytes are `pages/the-key`, `pages#the-tag` and `pages`. Namespace names hold neither `/` nor `#`,
so no two targets share their bytes. The function is xxh3 (https://xxhash.com) with seed 0: the
digest is part of the wire format (fences, tokens) and never depends on the process or the
release.
"""

from collections.abc import Callable

from xxhash import xxh3_64_intdigest

digest: Callable[[bytes], int] = xxh3_64_intdigest
"""Returns the xxh3 64-bit digest of a target's canonical bytes, 0 to 2**64 - 1."""


def key_id(namespace: str, key: str) -> bytes:
    return f"{namespace}/{key}".encode()


def tag_id(namespace: str, tag: str) -> bytes:
    return f"{namespace}#{tag}".encode()


def namespace_id(namespace: str) -> bytes:
    return namespace.encode()
