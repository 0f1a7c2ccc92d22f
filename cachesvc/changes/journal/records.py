"""The records of a journal, and their form in its file.

    MAGIC, then frames: length of the body (4 bytes), xxh3 of the body (8 bytes), body (msgpack)

The first record is the `Opening`. A record that was cut off, or whose body has another digest, ends
what can be read: nobody knows where the next one would begin.
"""

import struct
from collections.abc import Sequence

import msgspec
from msgspec import Struct
from xxhash import xxh3_64_intdigest

from cachesvc.changes.contract import Done
from cachesvc.model.change import Change
from cachesvc.model.fence import Fence

MAGIC = b"cachesvc journal 1\n"
_FRAME = struct.Struct(">IQ")


class Opening(Struct, frozen=True, tag="opening"):
    """The region and the deployment that a journal is of."""

    journal: str
    """A random word, the same for as long as the file lives."""
    region: str
    cells: tuple[str, ...]
    """The cells of the deployment when the file was made."""


class Begun(Struct, frozen=True, tag="begun"):
    """A change that is about to be applied."""

    id: str
    change: Change
    at_us: int
    """When it was accepted, by the instance's clock."""


class Fenced(Struct, frozen=True, tag="fenced"):
    """A change that was applied, with the fences that are to be published."""

    fences: tuple[Fence, ...]
    done: Done
    at_us: int


class Ended(Struct, frozen=True, tag="ended"):
    """Changes that were published, or that changed nothing."""

    ids: tuple[str, ...]


Record = Opening | Begun | Fenced | Ended

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class Contents(Struct, frozen=True):
    """The part of a journal's file that can be read."""

    records: Sequence[Record]
    end: int
    """The bytes up to the end of the last record that can be read."""
    is_whole: bool
    """False if there is something after that: it cannot be read."""


def framed(record: Record) -> bytes:
    """Returns a record as it stands in the file."""
    body = _encode(record)
    return _FRAME.pack(len(body), xxh3_64_intdigest(body)) + body


def read(data: bytes) -> Contents:
    """Returns the records of a file, up to the first one that cannot be read."""
    records: list[Record] = []
    end = len(MAGIC)
    while end < len(data):
        begin = end + _FRAME.size
        try:
            size, digest = _FRAME.unpack_from(data, end)
            body = data[begin : begin + size]
            if len(body) < size or xxh3_64_intdigest(body) != digest:
                break
            records.append(_decode(body))
        except (struct.error, msgspec.MsgspecError):
            break
        end = begin + size
    return Contents(records, min(end, len(data)), is_whole=end >= len(data))
