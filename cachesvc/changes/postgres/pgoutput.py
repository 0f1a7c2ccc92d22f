"""The messages of PostgreSQL's plugin `pgoutput`, protocols 1 and 2, as values.

The formats stand in
https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html:

    protocol 1     B begin, C commit, O origin, R relation, Y type, I insert, U update, D delete,
                   T truncate, M logical message
    protocol 2     also S stream start, E stream stop, c stream commit, A stream abort. Between S
                   and E, the messages R, Y, I, U, D, T and M begin with the id of a transaction,
                   which is that of the subtransaction if there is one

A value of a column stays the bytes that were sent, as a view of the message: of a large value that
nobody asks for, nothing is copied. Decoding a message takes no more memory than its own size,
whatever its counts and lengths say.
"""

import struct
from collections.abc import Sequence
from typing import Final, TypeAlias

from msgspec import Struct

MOST_COLUMNS = 1664
"""The most columns of a table (MaxTupleAttributeNumber in PostgreSQL's `htup_details.h`)."""

_INT16, _INT32, _INT64 = (struct.Struct(f"!{form}") for form in "HIQ")
_TEXT, _NULL, _UNCHANGED = b"tnu"
_STREAMED = frozenset(b"RYIUDTM")
"""Kinds of messages that have the id of their transaction in a stream."""


class UnreadableError(ValueError):
    """The bytes are no message of `pgoutput` in protocol 1 or 2."""


class Unchanged:
    """Stands for a large value that was not sent: an update left it as it was (TOAST)."""

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged()

Value: TypeAlias = memoryview | Unchanged | None
"""The bytes of a value in its text form; None is NULL."""
Values: TypeAlias = Sequence[Value]
"""The values of a row, in the order of the relation's columns."""


class Begin(Struct, frozen=True, gc=False):
    """The beginning of a transaction, which is sent once it is committed."""

    commit_lsn: int
    commit_us: int
    """µs since 2000-01-01 UTC, as in all messages."""
    xid: int


class Commit(Struct, frozen=True, gc=False):
    """The end of a transaction."""

    commit_lsn: int
    end_lsn: int
    """The end of the transaction in the log. Once it is confirmed, it is not sent again."""
    commit_us: int


class Origin(Struct, frozen=True, gc=False):
    """The transaction was replicated to this server from another one."""

    commit_lsn: int
    name: str


class Column(Struct, frozen=True, gc=False):
    name: str
    type_oid: int
    is_identity: bool
    """True if the column is part of the replica identity: its old value is sent."""


class Relation(Struct, frozen=True, gc=False):
    """A table, told before its first row and again after its definition has changed."""

    oid: int
    schema: str
    name: str
    identity: str
    """The replica identity: `d` default, `n` nothing, `f` full, `i` an index."""
    columns: tuple[Column, ...]
    xid: int = 0


class TypeName(Struct, frozen=True, gc=False):
    """A type that is not built in."""

    oid: int
    schema: str
    name: str
    xid: int = 0


class Insert(Struct, frozen=True, gc=False):
    oid: int
    """The relation's oid."""
    new: Values
    xid: int = 0


class Update(Struct, frozen=True, gc=False):
    oid: int
    new: Values
    old: Values | None = None
    """None: the replica identity is not FULL, and its columns did not change."""
    is_old_whole: bool = False
    """True: `old` has every column. False: those of the replica identity, others are NULL."""
    xid: int = 0


class Delete(Struct, frozen=True, gc=False):
    oid: int
    old: Values
    is_old_whole: bool
    xid: int = 0


class Truncate(Struct, frozen=True, gc=False):
    oids: tuple[int, ...]
    xid: int = 0


class LogicalMessage(Struct, frozen=True, gc=False):
    """A message of `pg_logical_emit_message`."""

    is_transactional: bool
    lsn: int
    prefix: str
    content: bytes
    xid: int = 0


class StreamStart(Struct, frozen=True, gc=False):
    """A part of a large transaction, which is still open, begins."""

    xid: int
    is_first: bool


class StreamStop(Struct, frozen=True, gc=False):
    """The part ends."""


class StreamCommit(Struct, frozen=True, gc=False):
    """A transaction that was sent in parts is committed."""

    xid: int
    commit_lsn: int
    end_lsn: int
    commit_us: int


class StreamAbort(Struct, frozen=True, gc=False):
    """A transaction that was sent in parts, or a subtransaction of it, is rolled back."""

    xid: int
    subxid: int
    """The same as `xid` if it is the whole transaction."""


Message: TypeAlias = (
    Begin
    | Commit
    | Origin
    | Relation
    | TypeName
    | Insert
    | Update
    | Delete
    | Truncate
    | LogicalMessage
    | StreamStart
    | StreamStop
    | StreamCommit
    | StreamAbort
)


class Decoder:
    """Decodes the messages of one connection, in order: it keeps whether a stream is open."""

    def __init__(self) -> None:
        self._is_in_stream = False

    def __repr__(self) -> str:
        return f"<Decoder [{'in a stream' if self._is_in_stream else 'between streams'}]>"

    def decode(self, data: bytes) -> Message:
        """Returns the message in `data`. Raises `UnreadableError`."""
        cursor = _Cursor(data)
        kind = cursor.byte()
        xid = cursor.int32() if self._is_in_stream and kind in _STREAMED else 0
        message = _decoded(kind, cursor, xid)
        cursor.end()
        if isinstance(message, StreamStart | StreamStop):
            if self._is_in_stream == isinstance(message, StreamStart):
                raise UnreadableError(f"a message {chr(kind)!r} where no stream can begin or end")
            self._is_in_stream = not self._is_in_stream
        return message


def _decoded(kind: int, cursor: "_Cursor", xid: int) -> Message:
    match chr(kind):
        case "I":
            oid = cursor.int32()
            cursor.expect(b"N")
            return Insert(oid, cursor.values(), xid)
        case "U":
            return _update(cursor, xid)
        case "D":
            oid, mark = cursor.int32(), cursor.expect(b"KO")
            return Delete(oid, cursor.values(), mark == ord("O"), xid)
        case "B":
            return Begin(cursor.int64(), cursor.int64(), cursor.int32())
        case "C":
            cursor.byte()  # flags, of which there are none
            return Commit(cursor.int64(), cursor.int64(), cursor.int64())
        case "R":
            return _relation(cursor, xid)
        case "Y":
            return TypeName(cursor.int32(), cursor.text(), cursor.text(), xid)
        case "T":
            count = cursor.count(cursor.int32(), 4)
            cursor.byte()  # CASCADE, RESTART IDENTITY
            return Truncate(tuple(cursor.int32() for _ in range(count)), xid)
        case "M":
            flags, lsn, prefix = cursor.byte(), cursor.int64(), cursor.text()
            return LogicalMessage(bool(flags & 1), lsn, prefix, bytes(cursor.take(cursor.int32())), xid)
        case "O":
            return Origin(cursor.int64(), cursor.text())
        case "S":
            return StreamStart(cursor.int32(), bool(cursor.byte()))
        case "E":
            return StreamStop()
        case "c":
            stream_xid = cursor.int32()
            cursor.byte()
            return StreamCommit(stream_xid, cursor.int64(), cursor.int64(), cursor.int64())
        case "A":
            return StreamAbort(cursor.int32(), cursor.int32())
        case other:
            raise UnreadableError(f"a message of the unknown kind {other!r}")


def _update(cursor: "_Cursor", xid: int) -> Update:
    oid, mark = cursor.int32(), cursor.expect(b"KON")
    if mark == ord("N"):
        return Update(oid, cursor.values(), xid=xid)
    old = cursor.values()
    cursor.expect(b"N")
    return Update(oid, cursor.values(), old, mark == ord("O"), xid)


def _relation(cursor: "_Cursor", xid: int) -> Relation:
    oid, schema, name = cursor.int32(), cursor.text(), cursor.text()
    identity = chr(cursor.expect(b"dnfi"))
    columns = []
    for _ in range(cursor.count(cursor.int16(), 10)):
        is_identity, column, type_oid = bool(cursor.byte() & 1), cursor.text(), cursor.int32()
        cursor.int32()  # the type's modifier, such as the length of a varchar
        columns.append(Column(column, type_oid, is_identity))
    return Relation(oid, schema or "pg_catalog", name, identity, tuple(columns), xid)


class _Cursor:
    """A place in a message. Every step is checked against the bytes that are there."""

    __slots__ = ("_at", "_data", "_view")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._view = memoryview(data)
        self._at = 0

    def take(self, size: int) -> memoryview:
        start, end = self._at, self._at + size
        if end > len(self._data):
            raise UnreadableError(f"the message ends after {len(self._data)} bytes, in the middle of a field")
        self._at = end
        return self._view[start:end]

    def byte(self) -> int:
        return self.take(1)[0]

    def int16(self) -> int:
        found: int = _INT16.unpack(self.take(2))[0]
        return found

    def int32(self) -> int:
        found: int = _INT32.unpack(self.take(4))[0]
        return found

    def int64(self) -> int:
        found: int = _INT64.unpack(self.take(8))[0]
        return found

    def text(self) -> str:
        """The text up to the next zero byte. Bytes that are not UTF-8 are replaced."""
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise UnreadableError("a text without its end")
        found = self._data[self._at : end].decode(errors="replace")
        self._at = end + 1
        return found

    def expect(self, marks: bytes) -> int:
        """The next byte, which must be one of `marks`."""
        if (found := self.byte()) not in marks:
            raise UnreadableError(f"a byte {found} in place of one of {marks.decode()}")
        return found

    def count(self, count: int, least_bytes: int) -> int:
        """Returns `count`, which the rest of the message must have room for."""
        if count * least_bytes > len(self._data) - self._at:
            raise UnreadableError(f"a count of {count}, for which the message is too short")
        return count

    def values(self) -> Values:
        count = self.count(self.int16(), 1)
        if count > MOST_COLUMNS:
            raise UnreadableError(f"a row of {count} columns, {MOST_COLUMNS} at most")
        # Without the calls of other methods: a large transaction has millions of values.
        data, view, at, end = self._data, self._view, self._at, len(self._data)
        found: list[Value] = []
        for _ in range(count):
            kind = data[at] if at < end else 0
            at += 1
            if kind == _TEXT and at + 4 <= end:
                (size,) = _INT32.unpack_from(data, at)
                at += 4
                found.append(view[at : at + size])
                at += size
            elif kind == _NULL:
                found.append(None)
            elif kind == _UNCHANGED:
                found.append(UNCHANGED)
            elif at > end or kind == _TEXT:
                break
            else:
                raise UnreadableError(f"a value of the kind {kind}, which was not asked for")
        if at > end or len(found) < count:
            raise UnreadableError(f"the message ends after {end} bytes, in the middle of a row")
        self._at = at
        return found

    def end(self) -> None:
        if self._at != len(self._data):
            raise UnreadableError(f"{len(self._data) - self._at} bytes after the end of the message")
