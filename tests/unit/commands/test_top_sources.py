"""The verdict on readers of databases."""

from msgspec.structs import replace

from cachesvc.changes.postgres.notes import Note
from cachesvc.commands.top.sources import source_troubles
from cachesvc.model.clock import SECONDS

NOW_US = 1_000_000 * SECONDS
WELL = Note("7", 1, 100, at_us=NOW_US - SECONDS, wal_status="reserved")


def told(**fields: object) -> list[str]:
    return list(source_troubles({("eu", "cdc"): replace(WELL, **fields)}, NOW_US))


def test_a_reader_that_is_well_is_no_trouble() -> None:
    assert told() == []
    assert list(source_troubles({}, NOW_US)) == []


def test_what_is_wrong_is_named() -> None:
    assert told(at_us=NOW_US - 20 * SECONDS) == [
        "nobody reads slot cdc of eu, for 20 s: what its database commits is not announced"
    ]
    assert told(trouble="postgres db:5432/shop: is away\x1b") == [
        "slot cdc of eu: postgres db:5432/shop: is away\\x1b"
    ]
    assert told(lag_seconds=12.5, lag_bytes=7) == ["slot cdc of eu is 12 s behind (7 bytes of its log)"]


def test_a_gap_is_told_for_some_minutes() -> None:
    gap = "the slot was gone"
    assert told(gap=gap, gap_us=NOW_US - 60 * SECONDS) == [
        "slot cdc of eu: changes may have been lost, all it feeds was fenced: the slot was gone"
    ]
    assert told(gap=gap, gap_us=NOW_US - 600 * SECONDS) == []
