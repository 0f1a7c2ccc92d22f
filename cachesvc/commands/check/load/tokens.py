"""`Cachesvc-Token` from outside: base64url, no padding, of big-endian (digest, at) pairs (clients/PROTOCOL.md)."""

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping

_PAIR = struct.Struct(">QQ")


def read(text: str) -> dict[int, int]:
    """digest → at. Raises `ValueError`."""
    try:
        packed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return dict(_PAIR.iter_unpack(packed))
    except struct.error as error:
        raise ValueError(f"{text[:80]!r} is no token") from error


def write(pairs: Mapping[int, int]) -> str:
    return (
        urlsafe_b64encode(b"".join(_PAIR.pack(digest, at) for digest, at in pairs.items()))
        .rstrip(b"=")
        .decode()
    )


def merge(into: dict[int, int], pairs: Mapping[int, int]) -> None:
    """Keep the newest `at` of each digest."""
    for digest, at in pairs.items():
        into[digest] = max(at, into.get(digest, 0))
