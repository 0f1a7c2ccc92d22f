"""The record of a copy in a cell's Redis: the fields that scripts need, then the envelope.

    as_of u64 · fresh_until u64 · soft_at u64 · negative u8 · bytes of tags u32 · bytes of token u8
    ETag (16 characters) · tag ids (msgpack array) · lease token it was filled under · envelope

Big-endian, at fixed places. The times in front are the ones in force: a cell issues the `as_of` of
a put after the envelope was packed. A record is one string instead of a hash: half the memory, and
one GET and one copy per read.
"""

import struct

import msgspec

from cachesvc.model.digest import tag_id
from cachesvc.model.entry import Entry, Key
from cachesvc.model.etag import etag
from cachesvc.tiers.envelope import is_damaged, pack, unpack

ETAG_CHARACTERS = 16
EXACT = 1 << 53
"""Lua counts in doubles: integers up to here are exact."""

_HEAD = struct.Struct(">QQQBIB16s")
_HEAD_BYTES = _HEAD.size
_encode_ids = msgspec.msgpack.Encoder().encode


def to_record(key: Key, entry: Entry, token: bytes = b"") -> bytes:
    """Returns the record of `entry`, filled under the lease `token` (empty for a put)."""
    tags = _encode_ids([tag_id(key.namespace, tag).decode() for tag in entry.tags]) if entry.tags else b""
    token = token[:255]  # a longer token is no lease of ours, and the script refuses it
    as_of, fresh_until = _in_range(entry.as_of), _in_range(entry.fresh_until)
    head = _HEAD.pack(
        as_of, fresh_until, 0, entry.negative, len(tags), len(token), bare(etag(entry)).encode()
    )
    return b"".join((head, tags, token, pack(key, entry)))


def from_record(key: Key, record: bytes) -> Entry | None:
    """Returns the entry; None (a miss) for a record of another version, and for garbage."""
    try:
        as_of, _, _, _, tag_bytes, token_bytes, _ = _HEAD.unpack_from(record)
    except struct.error:
        return None
    if as_of > EXACT:
        return None
    return unpack(key, record, _HEAD_BYTES + tag_bytes + token_bytes, as_of)


def is_damaged_record(record: bytes) -> bool:
    """True if the record's envelope has changed since it was written (`is_damaged`)."""
    try:
        as_of, _, _, _, tag_bytes, token_bytes, _ = _HEAD.unpack_from(record)
    except struct.error:
        return True
    return as_of > EXACT or is_damaged(record[_HEAD_BYTES + tag_bytes + token_bytes :])


def _in_range(time_us: int) -> int:
    """Clamps a time, so that an origin's absurd `Age` or lifetime cannot spoil a whole batch."""
    return min(max(time_us, 0), EXACT)


def bare(quoted: str) -> str:
    """Returns an ETag without its quotes, as records hold it."""
    return quoted.strip('"')
