"""The note that a reader of a slot leaves in the queue: how far it is, how it fares.

    everything up to a place is accepted ──► the place is noted ──► it is confirmed to the server
    more is confirmed than is noted, or the server has another history ──► a gap

So a slot that somebody dropped and made again, moved on, or read with another program is told from
one that this service left, and so is a database that was restored or failed over. The queue is the
right place for it: if the queue loses the note, it has lost changes, too, and all is fenced anyway.
"""

from typing import Protocol

import msgspec
from msgspec import Struct

from cachesvc.changes.postgres.lsn import text_of


class Note(Struct, frozen=True, omit_defaults=True):
    """One reader's note. Times are µs since the Unix epoch, by the reader's clock."""

    system: str = ""
    """The identifier of the cluster; empty before the slot was ever read."""
    timeline: int = 0
    lsn: int = 0
    """Everything up to here is accepted by the queue."""
    at_us: int = 0
    """When the note was written."""
    trouble: str = ""
    """Why no change is read now, or what will end it; empty if all is well."""
    lag_bytes: int = 0
    lag_seconds: float = 0.0
    wal_status: str = ""
    gap: str = ""
    """Why changes may have been lost, the last time."""
    gap_us: int = 0


class Notes(Protocol):
    """The notes of the readers at one queue. All methods raise `TierError`."""

    async def read(self, slot: str) -> Note: ...

    async def write(self, slot: str, note: Note) -> None: ...


def encode(note: Note) -> bytes:
    return msgspec.json.encode(note)


def decode(text: bytes | None) -> Note:
    """Returns the note; an empty one if there is none or it cannot be read."""
    try:
        return msgspec.json.decode(text or b"{}", type=Note)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Note()


def gap_since(note: Note, *, system: str, timeline: int, log_end: int, confirmed: int) -> str:
    """Returns why changes may have been lost since the note was written; empty if none were.

    `confirmed`: the place from which the slot goes on. `log_end`: the end of the server's log.
    """
    if not note.system:
        return "the queue has no note of this slot: nobody knows what was read"
    if system != note.system:
        return f"it is another database: system {system} in place of {note.system}"
    if timeline != note.timeline:
        return f"the database was failed over or restored: timeline {timeline} in place of {note.timeline}"
    if log_end < note.lsn:
        return f"the database was set back: its log ends at {text_of(log_end)}, before {text_of(note.lsn)}"
    if confirmed > note.lsn:
        return (
            f"the slot was made again or moved on: it begins at {text_of(confirmed)}, and"
            f" {text_of(note.lsn)} was read"
        )
    return ""
