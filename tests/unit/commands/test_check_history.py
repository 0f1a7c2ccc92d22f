"""A recorded history is read back, whatever became of its writer."""

import asyncio
from pathlib import Path

import pytest

from cachesvc.commands.check.history import (
    Announcement,
    BadLineError,
    Fault,
    Fenced,
    HistoryWriter,
    Load,
    Merged,
    Read,
    Record,
    Run,
    Write,
    read_history,
)

RECORDS: list[Record] = [
    Run(
        seed=7, instances=("eu/eu-a", "us/us-a"), max_lag_us=2_000_000, heartbeat_us=500_000, skew_us=100_000
    ),
    Write(key="{k}:ä", w=1, committed=10, tags=("t",)),
    Announcement(
        how="api", region="eu", instance="eu/eu-a", writes=(("{k}:ä", 1),), started=11, ended=15, id="eu:1-0"
    ),
    Fenced(id="eu:1-0", region="eu", position="1-3", at=1_700_000_000_000_000),
    Merged(instance="us/us-a", region="eu", position="1-3", at=20),
    Load(key="{k}:ä", w=1, started=16, ended=19, stored=True),
    Read(
        instance="eu/eu-a",
        key="{k}:ä",
        started=21,
        ended=22,
        outcome="hit",
        w=1,
        tier="l1",
        token_writes=(("{k}:ä", 1),),
    ),
    Fault(what="memcached killed", started=30, ended=40),
]


def written(path: Path) -> Path:
    writer = HistoryWriter(path)
    for record in RECORDS:
        writer.add(record)
    writer.close()
    return path


def test_every_kind_of_record_is_read_back_as_it_was(tmp_path: Path) -> None:
    history = read_history(written(tmp_path / "history.jsonl"))
    assert list(history.records) == RECORDS
    assert not history.cut_short


def test_a_writer_without_a_file_keeps_the_records() -> None:
    writer = HistoryWriter(None)
    for record in RECORDS:
        writer.add(record)
    writer.close()
    assert writer.records == RECORDS


def test_a_writer_may_be_closed_twice(tmp_path: Path) -> None:
    writer = HistoryWriter(tmp_path / "history.jsonl")
    writer.close()
    writer.close()


async def test_adding_never_blocks_the_loop(tmp_path: Path) -> None:
    """Blockbuster fails this if `add` touched the file."""
    path = tmp_path / "history.jsonl"
    writer = await asyncio.to_thread(HistoryWriter, path)
    for record in RECORDS:
        writer.add(record)
    await asyncio.to_thread(writer.close)
    history = await asyncio.to_thread(read_history, path)
    assert list(history.records) == RECORDS


def test_a_file_that_cannot_be_written_is_told_at_the_end_and_costs_no_record() -> None:
    writer = HistoryWriter(Path("/dev/full"))
    for record in RECORDS:
        writer.add(record)
    with pytest.raises(OSError, match="No space left"):
        writer.close()
    assert writer.records == RECORDS


def test_a_last_line_that_was_cut_short_is_left_out_and_said(tmp_path: Path) -> None:
    path = written(tmp_path / "history.jsonl")
    path.write_bytes(path.read_bytes()[:-2])
    history = read_history(path)
    assert list(history.records) == RECORDS[:-1]
    assert history.cut_short


@pytest.mark.parametrize("line", [b"", b"{", b'{"type":"rumour"}', b'{"type":"write","key":"a"}'])
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "history.jsonl"
    whole = written(path).read_bytes().splitlines()
    path.write_bytes(b"\n".join([whole[0], line, whole[2], b""]))
    with pytest.raises(BadLineError, match="line 2"):
        read_history(path)


def test_an_empty_file_is_an_empty_history(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.touch()
    assert read_history(path).records == ()
