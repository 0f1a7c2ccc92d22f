"""When a slot does not fit its note, and which commits are visible."""

import pytest

from cachesvc.changes.postgres.lsn import lsn_of, text_of
from cachesvc.changes.postgres.notes import Note, decode, encode, gap_since
from cachesvc.changes.postgres.visibility import is_visible

NOTE = Note("7", 1, 500, at_us=9, gap="once")


@pytest.mark.parametrize(
    ("system", "timeline", "log_end", "confirmed", "said"),
    [
        ("7", 1, 600, 500, ""),
        ("7", 1, 500, 400, ""),
        ("7", 1, 600, 501, "made again or moved on"),
        ("8", 1, 600, 500, "it is another database"),
        ("7", 2, 600, 500, "failed over or restored"),
        ("7", 1, 499, 400, "the database was set back"),
    ],
)
def test_a_gap_is_named(system: str, timeline: int, log_end: int, confirmed: int, said: str) -> None:
    found = gap_since(NOTE, system=system, timeline=timeline, log_end=log_end, confirmed=confirmed)
    assert said in found
    assert bool(said) == bool(found)


def test_without_a_note_nobody_knows_what_was_read() -> None:
    assert gap_since(Note(), system="7", timeline=1, log_end=1, confirmed=1)


def test_a_note_that_was_written_is_read_and_anything_else_is_none() -> None:
    assert decode(encode(NOTE)) == NOTE
    assert decode(None) == decode(b"{") == decode(b"\xff") == decode(b'{"lsn": "x"}') == Note()


@pytest.mark.parametrize(
    ("xid", "snapshot", "visible"),
    [
        (700, "690:701:", True),
        (700, "690:700:", False),
        (700, "690:710:695,700", False),
        (700, "690:710:695,701", True),
        (5, f"{(1 << 32) + 1}:{(1 << 32) + 6}:", True),
        (5, f"{(1 << 32) + 1}:{(1 << 32) + 5}:", False),
        (0xFFFFFFF0, f"{(1 << 32) + 1}:{(1 << 32) + 5}:", True),
    ],
)
def test_a_commit_is_visible_in_a_snapshot_that_was_taken_after_it(
    xid: int, snapshot: str, visible: bool
) -> None:
    assert is_visible(xid, snapshot) == visible


def test_a_place_in_the_log_is_read_and_written() -> None:
    assert lsn_of("16/B374D848") == 0x16B374D848
    assert text_of(0x16B374D848) == "16/B374D848"
