"""The decoder of `pgoutput`: recorded bytes of PostgreSQL, constructed and hostile ones."""

import contextlib
import gzip
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc.changes.postgres.pgoutput import (
    UNCHANGED,
    Begin,
    Commit,
    Decoder,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Relation,
    StreamAbort,
    StreamCommit,
    StreamStart,
    StreamStop,
    Truncate,
    TypeName,
    UnreadableError,
    Update,
    Values,
)

SNAPSHOTS = Path(__file__).parents[2] / "snapshots" / "pgoutput"


def messages_of(protocol: int) -> Iterator[bytes]:
    """The messages that `tests/peers/record_pgoutput.py` recorded."""
    rest = gzip.decompress((SNAPSHOTS / f"protocol-{protocol}.gz").read_bytes())
    while rest:
        (size,) = struct.unpack_from("!I", rest)
        yield rest[4 : 4 + size]
        rest = rest[4 + size :]


def decoded(protocol: int) -> list[Message]:
    decoder = Decoder()
    return [decoder.decode(message) for message in messages_of(protocol)]


def texts(values: Values | None) -> list[object]:
    return [bytes(value).decode() if isinstance(value, memoryview) else value for value in values or ()]


def shown(message: Message) -> object:
    """A message without what differs between recordings."""
    match message:
        case Insert():
            return "I", texts(message.new)
        case Update():
            return "U", texts(message.old), message.is_old_whole, texts(message.new)
        case Delete():
            return "D", texts(message.old), message.is_old_whole
        case Truncate():
            return "T", len(message.oids)
        case LogicalMessage():
            return "M", message.prefix, message.content, message.is_transactional
        case Relation():
            names = [f"{column.name}{'!' if column.is_identity else ''}" for column in message.columns]
            return "R", f"{message.schema}.{message.name}", message.identity, names
        case TypeName():
            return "Y", f"{message.schema}.{message.name}"
        case _:
            return type(message).__name__


BLOCKS = ["id!", "workspace_id", "page_id", "title", "is_open", "body", "mood"]
BODY = "x" * 3000
FIRST = [
    "Begin",
    ("Y", "public.mood"),
    ("R", "public.blocks", "d", BLOCKS),
    ("I", ["1", "7", None, "é", "t", BODY, "calm"]),
    "Commit",
    "Begin",
    ("U", [], False, ["1", "7", None, "b", "f", UNCHANGED, "calm"]),
    "Commit",
    "Begin",
    ("U", ["1", None, None, None, None, None, None], False, ["2", "7", None, "b", "f", UNCHANGED, "calm"]),
    "Commit",
    "Begin",
    ("D", ["2", None, None, None, None, None, None], False),
    "Commit",
    "Begin",
    ("R", "public.pages", "f", ["id!", "name!"]),
    ("I", ["1", "one"]),
    ("U", ["1", "one"], True, ["1", "two"]),
    ("D", ["1", "two"], True),
    ("M", "cachesvc", b"{}", True),
    "Commit",
    "Begin",
]
"""The first transactions, as both protocols send them."""


@pytest.mark.parametrize("protocol", [1, 2])
def test_what_the_server_sent_of_rows_is_read(protocol: int) -> None:
    found = [shown(message) for message in decoded(protocol)]
    assert found[: len(FIRST)] == FIRST
    after = [one for one in found[len(FIRST) :] if one not in FIRST]
    assert ("T", 2) in after
    assert ("M", "other", b"now", False) in after
    assert ("R", "public.pages", "f", ["id!", "name!", "more!"]) in after
    assert ("I", ["5", "x", "3"]) in after


def test_a_large_transaction_comes_in_parts_under_protocol_2() -> None:
    found = decoded(2)
    start = next(place for place, one in enumerate(found) if isinstance(one, StreamStart))
    assert not any(isinstance(one, StreamStart) for one in decoded(1))
    parts = [one for one in found if isinstance(one, StreamStart)]
    assert [part.is_first for part in parts] == [True] + [False] * (len(parts) - 1)
    aborted = [one for one in found if isinstance(one, StreamAbort)]
    (committed,) = [one for one in found if isinstance(one, StreamCommit)]
    assert {part.xid for part in parts} == {committed.xid}
    rows = [one for one in found[start:] if isinstance(one, Insert)]
    subtransaction = {abort.subxid for abort in aborted}
    assert len([row for row in rows if row.xid == committed.xid]) == 200
    assert {row.xid for row in rows} - {committed.xid} == subtransaction
    assert isinstance(found[-1], StreamCommit)
    assert isinstance(found[-2], StreamAbort | StreamStop)


def test_a_commit_has_its_places_in_the_log_and_its_time() -> None:
    begins = [one for one in decoded(1) if isinstance(one, Begin)]
    commits = [one for one in decoded(1) if isinstance(one, Commit)]
    for begin, commit in zip(begins, commits, strict=True):
        assert begin.commit_lsn == commit.commit_lsn < commit.end_lsn
        assert begin.commit_us == commit.commit_us > 0


def test_kinds_that_a_recording_lacks_are_read() -> None:
    decoder = Decoder()
    assert decoder.decode(b"O" + struct.pack("!Q", 7) + b"pg_16400\0") == Origin(7, "pg_16400")
    assert decoder.decode(b"A" + struct.pack("!II", 5, 6)) == StreamAbort(5, 6)
    relation = b"R" + struct.pack("!I", 1) + b"\0t\0" + b"i" + struct.pack("!H", 0)
    assert decoder.decode(relation) == Relation(1, "pg_catalog", "t", "i", ())


def test_in_a_stream_messages_begin_with_their_transaction() -> None:
    decoder = Decoder()
    insert = struct.pack("!I", 9) + b"N" + struct.pack("!H", 1) + b"n"
    assert decoder.decode(b"I" + insert) == Insert(9, [None])
    assert decoder.decode(b"S" + struct.pack("!I", 700) + b"\1") == StreamStart(700, True)
    assert decoder.decode(b"I" + struct.pack("!I", 701) + insert) == Insert(9, [None], 701)
    assert decoder.decode(b"E") == StreamStop()
    assert decoder.decode(b"I" + insert) == Insert(9, [None])


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"", "in the middle of a field"),
        (b"X", "unknown kind 'X'"),
        (b"E", "where no stream can"),
        (b"B\0", "in the middle of a field"),
        (b"O" + bytes(8) + b"name", "a text without its end"),
        (b"I" + bytes(4) + b"N" + b"\xff\xff", "for which the message is too short"),
        (b"I" + bytes(4) + b"N" + b"\x07\xd0" + b"n" * 2000, "a row of 2000 columns"),
        (b"I" + bytes(4) + b"N\0\1t\xff\xff\xff\xff", "in the middle of a row"),
        (b"I" + bytes(4) + b"N\0\1t\0", "in the middle of a row"),
        (b"I" + bytes(4) + b"N\0\2nt", "in the middle of a row"),
        (b"I" + bytes(4) + b"N\0\1b\0\0\0\0", "a value of the kind 98"),
        (b"T" + b"\xff\xff\xff\xff\0", "a count of 4294967295"),
        (b"R" + bytes(4) + b"a\0b\0d\xff\xff", "a count of 65535"),
        (b"M\0" + bytes(8) + b"p\0\xff\xff\xff\xff", "in the middle of a field"),
        (b"A" + bytes(9), "1 bytes after the end"),
    ],
)
def test_bytes_out_of_rule_are_refused(message: bytes, said: str) -> None:
    with pytest.raises(UnreadableError, match=said):
        Decoder().decode(message)


def test_a_stream_in_a_stream_is_refused() -> None:
    decoder = Decoder()
    decoder.decode(b"S" + bytes(5))
    with pytest.raises(UnreadableError, match="where no stream can"):
        decoder.decode(b"S" + bytes(5))


RECORDED = [*messages_of(1)][:60] + [*messages_of(2)][-3:]


@given(st.sampled_from(RECORDED), st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_is_sent_is_read_or_refused(message: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(message) - 1))
    changed = (
        message[:place] + data.draw(st.binary(max_size=8)) + message[place + data.draw(st.integers(0, 8)) :]
    )
    with contextlib.suppress(UnreadableError):
        Decoder().decode(changed)


def test_a_large_value_is_not_copied() -> None:
    size = 20_000_000
    message = b"I" + bytes(4) + b"N\0\1t" + struct.pack("!I", size) + bytes(size)
    tracemalloc.start()
    try:
        found = Decoder().decode(message)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert isinstance(found, Insert)
    assert isinstance(found.new[0], memoryview)
    assert len(found.new[0]) == size
