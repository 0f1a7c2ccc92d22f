"""The file of a journal: what is read of it after whatever has happened to it."""

import errno
import os
from pathlib import Path

import pytest

from cachesvc.changes.contract import Done, Parked
from cachesvc.changes.journal.file import JournalFile
from cachesvc.changes.journal.records import MAGIC, Begun, Ended, Fenced, Opening, framed
from cachesvc.model.change import Change, Target
from cachesvc.model.errors import ConfigError
from cachesvc.model.fence import Fence

OPENING = Opening("0a", "eu", ("c1",))
PARKED = Parked("c2", 7, 2**63, Target.key("docs", "ü"))
RECORDS = (
    Begun("1-2", Change("docs", keys=("a",), tags=("t",), over="5m"), 17),
    Fenced(
        (Fence(2**64 - 1, 5, issuers=(("c1", 2**63),), placement=2**63),),
        Done("1-2", (PARKED,), is_from_journal=True),
        17,
    ),
    Ended(("1-2",)),
)


def at(path: Path, opening: Opening = OPENING) -> JournalFile:
    return JournalFile(path, opening, is_synced=True)


async def written(path: Path) -> None:
    file = at(path)
    await file.open()
    for record in RECORDS:
        await file.append(framed(record))
    await file.close()


async def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    await written(path)
    file = at(path, Opening("another", "us", ()))
    found = await file.open()
    assert (tuple(found.records), found.is_whole) == ((OPENING, *RECORDS), True)
    assert file.size == path.stat().st_size
    await file.empty()
    await file.append(framed(RECORDS[0]))
    await file.close()
    file = at(path)
    assert list((await file.open()).records) == [OPENING, RECORDS[0]]
    await file.close()


async def test_wherever_it_is_cut_off_all_before_is_read_and_the_rest_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    await written(path)
    data = path.read_bytes()
    ends = [len(data) - sum(len(framed(record)) for record in RECORDS[i:]) for i in range(4)]
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        file = at(path)
        found = await file.open()
        assert len(found.records) == max(1, sum(end <= cut for end in ends))
        assert found.is_whole is (cut in ends or cut <= len(MAGIC))
        await file.append(framed(RECORDS[0]))
        await file.close()
        file = at(path)
        found = await file.open()
        assert (found.records[-1], found.is_whole) == (RECORDS[0], True)
        await file.close()


async def test_what_is_behind_a_spoiled_byte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    await written(path)
    data = bytearray(path.read_bytes())
    data[-len(framed(RECORDS[2])) - 3] ^= 1
    path.write_bytes(data)
    file = at(path)
    found = await file.open()
    assert (list(found.records), found.is_whole) == ([OPENING, RECORDS[0]], False)
    await file.close()


async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    first, second = at(tmp_path / "journal"), at(tmp_path / "journal")
    await first.open()
    with pytest.raises(ConfigError, match=r"queue\.journal\.path: .* is used by another process"):
        await second.open()
    await second.close()
    await first.close()
    third = at(tmp_path / "journal")
    await third.open()
    await third.close()


async def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("cachesvc")
    (tmp_path / "notes").write_text("what I must not forget")
    for path, why in ((tmp_path / "notes", "is no journal"), (tmp_path / "no" / "folder", "No such file")):
        file = at(path)
        with pytest.raises(ConfigError, match=why):
            await file.open()
        await file.close()
    assert (tmp_path / "notes").read_text() == "what I must not forget"


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
async def test_a_disk_that_fails_keeps_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: int
) -> None:
    path = tmp_path / "journal"
    file = at(path)
    await file.open()
    await file.append(framed(RECORDS[0]))
    before = path.read_bytes()
    pwrite = os.pwrite

    def fails(to: int, data: bytes = b"", offset: int = 0) -> int:
        if data:
            pwrite(to, bytes(data[:5]), offset)
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        with pytest.raises(OSError, match=os.strerror(error)):
            await file.append(framed(RECORDS[1]))
    assert path.read_bytes() == before
    await file.append(framed(RECORDS[2]))
    await file.close()
    file = at(path)
    assert list((await file.open()).records) == [OPENING, RECORDS[0], RECORDS[2]]
    await file.close()
