"""Content codings of an origin's body, decoded whole, within a limit and to the very end.

aiohttp's own decoding stays off: it takes a compressed stream that stops early for a complete body,
and half a value would then be cached as the value.
"""

import zlib

from cachesvc.model.units import Size

_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's `wbits`. 15 is the zlib format, which HTTP calls deflate; 16 more is gzip (RFC
9110, 8.4.1)."""


class DecodingError(Exception):
    """The body is not what its `Content-Encoding` says, or it is cut short."""


class UnknownEncodingError(Exception):
    """The coding, or a stack of codings, is not supported."""


class BodyTooLargeError(Exception):
    """The body has more bytes than the limit allows."""


def decoded(body: bytes, encoding: str, limit: Size) -> bytes:
    """Returns the bytes behind one content coding. Raises the three errors above.

    At most `limit` + 1 bytes are ever made.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _WINDOW:
        raise UnknownEncodingError(f"content encoding {encoding!r}")
    stream = zlib.decompressobj(_WINDOW[name])
    try:
        value = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise DecodingError(f"{error}") from error
    if len(value) > limit:
        raise BodyTooLargeError
    if not stream.eof or stream.unused_data:
        raise DecodingError("it ends early or goes on after its end")
    return value
