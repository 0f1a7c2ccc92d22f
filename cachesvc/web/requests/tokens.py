"""`Cachesvc-Token`: `(digest, at)` pairs as base64url text without padding; each pair is two big-endian u64 (PROTOCOL.md)."""

import binascii
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable

from cachesvc.model.errors import RequestError
from cachesvc.model.fence import TokenPairs
from cachesvc.model.problems import ProblemKind

_PAIR = struct.Struct(">QQ")
_LATEST = 1 << 63
"""µs. A later `at` is no time."""


def write_token(pairs: TokenPairs) -> str:
    return urlsafe_b64encode(b"".join(_PAIR.pack(digest, at) for digest, at in pairs)).rstrip(b"=").decode()


def read_token(text: str, field: str) -> TokenPairs:
    """The pairs of a token, the newest of each digest. Raises `RequestError` if it is none of ours."""
    try:
        packed = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (binascii.Error, UnicodeEncodeError):
        raise _bad(field) from None
    # The decoder skips letters that are not of its alphabet: what does not read back the same was damaged.
    if len(packed) % _PAIR.size or urlsafe_b64encode(packed).rstrip(b"=").decode() != text.rstrip("="):
        raise _bad(field)
    return merged(_PAIR.iter_unpack(packed), field)


def merged(pairs: Iterable[tuple[int, int]], field: str) -> TokenPairs:
    """One pair per digest, with its newest `at`: fences merge by maximum."""
    newest: dict[int, int] = {}
    for digest, at in pairs:
        if at >= _LATEST:
            raise _bad(field)
        newest[digest] = max(at, newest.get(digest, 0))
    return tuple(newest.items())


def _bad(field: str) -> RequestError:
    return RequestError(ProblemKind.BAD_TOKEN, "this is no token: send one as it was answered", field=field)
