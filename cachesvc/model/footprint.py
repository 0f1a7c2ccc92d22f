"""The bytes that an entry takes of this process's memory, by measurement.

    key text, value, tags          their bytes, and the headers of their objects
    content type, origin's ETag    the same, unless the text is one that all entries share
    times and windows              an integer above 256 is an object of its own
    the rest                       what every entry has: `ENTRY_BYTES`

The footprint of an entry never changes, so nothing has to remember it: it is computed when the
entry comes and again when it leaves. tests/integration/test_memory_budget.py holds it against the
growth of a process.

**Shared texts.** Millions of entries have the same few content types and windows, and those are one
object each (`shared`). A caller may send any content type, so the table takes the first
`MOST_SHARED` and no more. It forgets none: whether an entry's text is shared is asked by identity,
and the answer must be the same on both occasions. Texts that come later are charged to their
entries.
"""

from typing import TypeVar

from cachesvc.model.entry import Entry

ENTRY_BYTES = 475
"""Bytes that an entry costs beyond the texts in it: the headers of key and value, the
entry and its two times (310), and the index (80 to 170: under turnover a dict has three to six
slots per item). Charged so, the process grows to 80 to 105 % of a budget under turnover."""
TEXT_BYTES = 64
"""Bytes of a string beside its characters, at most."""
INTEGER_BYTES = 48
"""Bytes of an integer that is an object of its own, and shared by nobody, at most."""
TAGS_BYTES = 128
"""Bytes of the two tuples of a tagged entry."""
TAG_BYTES = 128
"""Bytes that a tag costs beyond its text: the string, the digest, a place in each tuple."""
MOST_SHARED = 1024
"""Content types that are shared (0.4 MB at most), and as many windows."""

_DEFAULT_TYPE = Entry(b"", 0, 0).content_type
_SMALL = 256
"""The interpreter has one object for each integer up to this."""

ValueT = TypeVar("ValueT", str, int)


class _Shared(dict[ValueT, ValueT]):
    """Maps a value to the object that stands for it; a look-up of one that has come is C code."""

    def __missing__(self, value: ValueT) -> ValueT:
        if len(self) < MOST_SHARED:
            self[value] = value
        return value


_texts: _Shared[str] = _Shared({_DEFAULT_TYPE: _DEFAULT_TYPE})
_windows: _Shared[int] = _Shared()

shared = _texts.__getitem__
"""Returns a content type as the object that all entries share, or as it is."""
shared_window = _windows.__getitem__
"""Returns a window as the object that all entries share, or as it is."""
if_shared = _texts.get
"""Returns the object that all entries share of a content type; None if there is none."""
window_if_shared = _windows.get
"""Returns the object that all entries share of a window; None if there is none."""
is_shared = _texts.__contains__
"""True if all entries share this content type."""
is_shared_window = _windows.__contains__
"""True if all entries share this window."""


def footprint(key_id: bytes, entry: Entry) -> int:
    """Returns the bytes that an entry takes, with its key and its place in an index."""
    size = len(key_id) + len(entry.value) + ENTRY_BYTES
    content_type = entry.content_type
    if content_type is not _DEFAULT_TYPE and content_type is not _texts.get(content_type):
        size += TEXT_BYTES + _bytes_of(content_type)
    if etag := entry.origin_etag:
        size += TEXT_BYTES + _bytes_of(etag)
    if entry.load_ms > _SMALL:
        size += INTEGER_BYTES
    if (window := entry.stale_for) > _SMALL and window is not _windows.get(window):
        size += INTEGER_BYTES
    if (window := entry.error_for) > _SMALL and window is not _windows.get(window):
        size += INTEGER_BYTES
    if tags := entry.tags:
        size += TAGS_BYTES + TAG_BYTES * len(tags) + _bytes_of("".join(tags))
    return size


def _bytes_of(text: str) -> int:
    """Returns the bytes of the characters of a text; 8 for each if one is not ASCII.

    Such a text has 1 to 4 bytes per character, and as many again as UTF-8, which is kept beside it
    once it was asked for.
    """
    return len(text) if text.isascii() else 8 * len(text)
