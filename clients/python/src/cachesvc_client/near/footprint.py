"""The bytes that a copy takes of the caller's memory, by measurement.

Everything that the service or a writer chose is charged to the copy: key, value, content type,
tags, and the decoded object if it is kept beside the bytes. tests/test_near_memory.py holds the
charges against the growth of a process.
"""

import dataclasses
import enum
from sys import getsizeof
from typing import Any

from msgspec import Struct
from msgspec.structs import astuple

from cachesvc_client.protocol.wire import Got

COPY_BYTES = 1050
"""Bytes of a copy beside its texts: object, answer, digests, places in the indexes."""
TEXT_BYTES = 64
"""Bytes of a string beside its characters, at most."""
TAG_BYTES = 240
"""Bytes of a copy's tag beside its text: string, digest, a place among its copies."""
TAG_INDEX_BYTES = 320
"""Bytes of a tag's index entry, charged to the shelf once for all copies."""


def bytes_of_copy(key: str, got: Got) -> int:
    """Returns the bytes that an answer takes when it is held."""
    size = COPY_BYTES + _characters(key) + len(got.value) + TEXT_BYTES + _characters(got.content_type)
    return size + (TAG_BYTES * len(got.tags) + _characters("".join(got.tags)) if got.tags else 0)


def bytes_of_object(value: object) -> int:
    """Returns the bytes of a decoded object and of all its parts.

    A part that comes twice counts twice. Handles the types of `values/immutable.py`; of others, the
    parts are not known.
    """
    size, parts = 0, [value]
    while parts:
        part = parts.pop()
        size += getsizeof(part) + 15 & -16  # as the allocator rounds
        parts.extend(_parts_of(part))
    return size


def _parts_of(value: Any) -> Any:
    if isinstance(value, (tuple, frozenset)):
        return value
    if isinstance(value, Struct):
        return astuple(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, enum.Enum)):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return ()


def _characters(text: str) -> int:
    """Returns the bytes of the characters; 8 for each if one is not ASCII.

    The text is kept as UTF-8 beside itself once that was asked for.
    """
    return len(text) if text.isascii() else 8 * len(text)
