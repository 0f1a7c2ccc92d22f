"""The verdict on readers of databases (`cachesvc cdc`), by their notes at the queues."""

from collections.abc import Iterator, Mapping

from cachesvc.changes.postgres.notes import Note
from cachesvc.model.clock import SECONDS
from cachesvc.model.printable import printable

SILENT_US = 10 * SECONDS
"""A reader that has written no note for so long does not run: it writes one a second."""
BEHIND_SECONDS = 10.0
"""A slot that is further behind than that is a trouble."""
GAP_US = 300 * SECONDS
"""A gap is told for so long: it is over, and people should learn of it."""

Notes = Mapping[tuple[str, str], Note]
"""Notes by region and slot."""


def source_troubles(notes: Notes, now_us: int) -> Iterator[str]:
    """Yields a sentence for each trouble. Clocks may differ by seconds."""
    for (region, slot), note in notes.items():
        name = f"slot {printable(slot)} of {region}"
        if (silent_us := now_us - note.at_us) > SILENT_US:
            silent = f"{silent_us // SECONDS} s"
            yield f"nobody reads {name}, for {silent}: what its database commits is not announced"
        elif note.trouble:
            yield f"{name}: {printable(note.trouble)}"
        elif note.lag_seconds > BEHIND_SECONDS:
            yield f"{name} is {note.lag_seconds:.0f} s behind ({note.lag_bytes} bytes of its log)"
        if note.gap and now_us - note.gap_us < GAP_US:
            yield f"{name}: changes may have been lost, all it feeds was fenced: {printable(note.gap)}"
