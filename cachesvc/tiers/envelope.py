"""The bytes of an entry outside the process: in memcached and in a cell's Redis.

    magic 0xC5 · version 0x01 · msgpack array
    [id, as_of, fresh_until, stale_for, error_for, load_ms, content_type, tags, negative, value,
     origin_etag, confirmed, checksum]

The checksum is the xxh3 of all bytes of the array before the eight of its own, which are the last.
A copy with a wrong one is a miss: memcached and Redis keep bytes in memory that may not be
error-correcting, and a flipped bit would be answered as the value, or make a fence miss its target.
Envelopes of earlier releases have eleven fields and no checksum; they are read without one, as are
those of later releases, which have more fields. A flip in the count of the fields is found: the
array then ends early or late.

A new field is appended to the array, with a default: today's code reads the bytes that older
releases of version 1 wrote, and older releases read today's bytes. Any other change is another
version, and a copy of another version is a miss. The bytes of each released format are kept in
`tests/snapshots`.

A sealed envelope (`seal.py`) is of another version: the same array with an empty checksum, and a
seal behind the array.

The full key id stands inside. So a copy under a name that memcached knows only by its hash, or a
value that another program put there, is a miss and never the value of another key.
"""

import re
from typing import TypeAlias

import msgspec
from msgspec.structs import astuple
from xxhash import xxh3_64_digest

from cachesvc.model.entry import Entry, Key, tag_digests_of
from cachesvc.model.footprint import (
    if_shared,
    is_shared,
    is_shared_window,
    shared,
    shared_window,
    window_if_shared,
)

MAGIC = b"\xc5\x01"
"""Not UTF-8, and no msgpack of ours: two bytes tell the values of other programs apart."""

MOST_TAGS, LONGEST_TAG = 128, 256
"""The most tags of an entry that a topology allows, and the characters of the longest."""
LATEST = 1 << 53
"""The latest time and the longest window of an entry, µs: records hold no later ones."""
_CONTENT_TYPE = re.compile(r"[ -~]{0,256}")
_ETAG = re.compile(r'(?:W/)?"[!#-~]{0,256}"')


class _Record(msgspec.Struct, array_like=True, gc=False):
    """The msgpack array, in order. A field is only ever appended, with a default."""

    id: bytes
    as_of: int
    fresh_until: int
    stale_for: int
    error_for: int
    load_ms: int
    content_type: str
    tags: tuple[str, ...]
    negative: bool
    value: bytes
    origin_etag: str = ""
    confirmed: bool = True
    checksum: bytes = b""


_CHECKED = 0x90 + 13
"""The first byte of an array of thirteen fields, whose last bytes are the checksum."""
_NO_CHECKSUM = bytes(8)
_SMALL = 4096

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode
_Fields: TypeAlias = tuple[
    bytes, int, int, int, int, int, str, tuple[str, ...], bool, bytes, str, bool, bytes
]
"""The fields of a `_Record`, in order."""
_decode_checked = msgspec.msgpack.Decoder(_Fields).decode
"""Decodes an array that begins with `_CHECKED`.

Fields of a tuple cost a quarter of the time that those of a struct take to read.
"""


def pack(key: Key, entry: Entry) -> bytes:
    """Returns the bytes of `entry` under `key`."""
    checked = memoryview(encoded(key, entry, _NO_CHECKSUM))[:-8]
    return b"".join((MAGIC, checked, xxh3_64_digest(checked)))


def encoded(key: Key, entry: Entry, checksum: bytes) -> bytes:
    """Returns the array, whose last bytes are those of `checksum`."""
    record = (
        key.id,
        entry.as_of,
        entry.fresh_until,
        entry.stale_for,
        entry.error_for,
        entry.load_ms,
        entry.content_type,
        entry.tags,
        entry.negative,
        entry.value,
        entry.origin_etag,
        entry.confirmed,
        checksum,
    )
    return _encode(record)


def unpack(key: Key, data: bytes, start: int = 0, as_of: int | None = None) -> Entry | None:
    """Returns the entry that `data` holds for `key` from `start` on, or None. Never raises.

    `as_of`: the entry's time, µs, where it is known better than when the envelope was packed.
    None is the answer for another version, another key, a wrong checksum, garbage, and fields out of
    bounds: content type and validator go into headers, tags into digests. Content types and
    windows are shared between entries: millions of copies have the same few.
    """
    if not data.startswith(MAGIC, start):
        return None
    # A slice of few bytes costs less than half of a view.
    body = data[start + 2 :] if len(data) < _SMALL else memoryview(data)[start + 2 :]
    return decoded(key, body, as_of, has_checksum=True)


def decoded(
    key: Key, body: bytes | memoryview, as_of: int | None = None, *, has_checksum: bool = False
) -> Entry | None:
    """Returns the entry of an array that `encoded` made for `key`, or None, as `unpack` does.

    `has_checksum`: its checksum is looked at, if it is of a release that wrote one.
    """
    try:
        fields: _Fields = _decode_checked(body) if body[0] == _CHECKED else astuple(_decode(body))
    except (msgspec.MsgspecError, RecursionError, ValueError, IndexError):
        return None
    (
        key_id,
        packed_as_of,
        fresh_until,
        stale_for,
        error_for,
        load_ms,
        content_type,
        tags,
        negative,
        value,
        origin_etag,
        confirmed,
        checksum,
    ) = fields
    if key_id != key.id:
        return None
    if has_checksum and body[0] == _CHECKED and checksum != xxh3_64_digest(body[:-8]):
        return None
    # Most copies pass the first look, which costs a fifth of the second one.
    stale, error, media = window_if_shared(stale_for), window_if_shared(error_for), if_shared(content_type)
    if (
        stale is None
        or error is None
        or media is None
        or tags
        or origin_etag
        or (packed_as_of | fresh_until | load_ms) >> 53
        or (as_of is not None and as_of >> 53)
    ):
        if not ((as_of or 0) <= LATEST and _is_in_bounds(_Record(*fields))):
            return None
        stale, error, media = shared_window(stale_for), shared_window(error_for), shared(content_type)
    return Entry(
        value,
        packed_as_of if as_of is None else as_of,
        fresh_until,
        stale,
        error,
        load_ms,
        media,
        tags,
        tag_digests_of(key.namespace, tags) if tags else (),
        negative,
        origin_etag,
        confirmed,
    )


def is_damaged(data: bytes) -> bool:
    """True if `data` is an envelope of this version that has changed since it was written.

    Also if a field of it is out of bounds, so that no release wrote it. For data that `unpack` does not
    take: an intact envelope of another key is not damaged.
    """
    if data[:2] != MAGIC:
        return False
    body = memoryview(data)[2:]
    try:
        record = _decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return True
    return _has_changed(record, body) or not _is_in_bounds(record)


def _has_changed(record: _Record, body: memoryview) -> bool:
    return body[0] == _CHECKED and record.checksum != xxh3_64_digest(body[:-8])


def _is_in_bounds(record: _Record) -> bool:
    """True if the fields can be those of an entry: any program may write an envelope.

    Texts and windows that are shared already were looked at when they were first met.
    """
    return (
        0 <= record.as_of <= LATEST
        and 0 <= record.fresh_until <= LATEST
        and 0 <= record.load_ms <= LATEST
        and (is_shared(record.content_type) or _CONTENT_TYPE.fullmatch(record.content_type) is not None)
        and (is_shared_window(record.stale_for) or 0 <= record.stale_for <= LATEST)
        and (is_shared_window(record.error_for) or 0 <= record.error_for <= LATEST)
        and not (record.tags and not _are_tags(record.tags))
        and not (record.origin_etag and not _ETAG.fullmatch(record.origin_etag))
    )


def _are_tags(tags: tuple[str, ...]) -> bool:
    return len(tags) <= MOST_TAGS and all(0 < len(tag) <= LONGEST_TAG for tag in tags)
