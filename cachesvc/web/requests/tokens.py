"""`Cachesvc-Token`: `(digest, at)` pairs as base64url text without padding (PROTOCOL.md).

Each pair is two big-endian u64.
"""

import binascii
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable

from cachesvc.model.errors import RequestError
from cachesvc.model.fence import TokenPairs
from cachesvc.model.problems import ProblemKind
from cachesvc.web.requests.limits import MAX_TOKEN_HEADER

_PAIR = struct.Struct(">QQ")
_LATEST_US = 1 << 63
"""An `at` from here on is no time."""


def write_token(pairs: TokenPairs) -> str:
    """Returns the token of the pairs, in their order; empty for no pairs."""
    return urlsafe_b64encode(b"".join(_PAIR.pack(digest, at) for digest, at in pairs)).rstrip(b"=").decode()


def token_line(pairs: TokenPairs) -> str:
    """Returns the header line of a token; empty for no pairs, and for too many."""
    token = write_token(pairs)
    return f"Cachesvc-Token: {token}\r\n" if 0 < len(token) <= MAX_TOKEN_HEADER else ""


def read_token(text: str, field: str) -> TokenPairs:
    """Returns the pairs of a token, the newest per digest. Raises `RequestError`."""
    try:
        packed = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (binascii.Error, UnicodeEncodeError):
        raise _bad(field) from None
    # The decoder skips letters that are not of its alphabet. So the pairs are written again: a text that
    # differs was damaged.
    if len(packed) % _PAIR.size or urlsafe_b64encode(packed).rstrip(b"=").decode() != text.rstrip("="):
        raise _bad(field)
    return merged(_PAIR.iter_unpack(packed), field)


def merged(pairs: Iterable[tuple[int, int]], field: str) -> TokenPairs:
    """Returns one pair per digest, with its newest `at`: fences merge by maximum.

    Raises `RequestError` (`bad-token`) for an `at` that is no time.
    """
    newest: dict[int, int] = {}
    for digest, at in pairs:
        if at >= _LATEST_US:
            raise _bad(field)
        newest[digest] = max(at, newest.get(digest, 0))
    return tuple(newest.items())


def _bad(field: str) -> RequestError:
    return RequestError(ProblemKind.BAD_TOKEN, "this is no token: send one as it was answered", field=field)
