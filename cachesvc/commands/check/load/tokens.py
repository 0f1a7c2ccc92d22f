"""The format of `Cachesvc-Token`: base64url without padding of big-endian pairs
(clients/PROTOCOL.md)."""

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping

_PAIR = struct.Struct(">QQ")


def read(text: str) -> dict[int, int]:
    """Parses a token into `at` by digest. Raises `ValueError`."""
    try:
        packed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return dict(_PAIR.iter_unpack(packed))
    except struct.error as error:
        raise ValueError(f"{text[:80]!r} is no token") from error


def write(pairs: Mapping[int, int]) -> str:
    """Formats pairs of digest and `at` as a token; empty for none."""
    return (
        urlsafe_b64encode(b"".join(_PAIR.pack(digest, at) for digest, at in pairs.items()))
        .rstrip(b"=")
        .decode()
    )


def merge(into: dict[int, int], pairs: Mapping[int, int]) -> None:
    """Merges pairs into a token's: the newest `at` of each digest is kept."""
    for digest, at in pairs.items():
        into[digest] = max(at, into.get(digest, 0))
