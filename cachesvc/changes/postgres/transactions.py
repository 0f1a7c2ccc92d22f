"""Puts the messages of a slot together to transactions, with the names that each concerns.

A row is mapped when it comes, and only the names of its keys and tags are kept until the commit. So
a transaction takes memory by what it invalidates, not by its rows:

    at most `most_targets` names in all open transactions together     every name
    one more                                                           of the transaction with the
                                                                       most names: its namespaces

A row whose old values were not sent, or with a column that no key can be made of, fences the
namespaces concerned. It is also a fault of the transaction, which becomes a dead letter, and so is
a message of the outbox that cannot be read.

Under protocol 2 a large transaction comes in parts before its end, between those of others. If a
part of it is rolled back (to a savepoint), its names stay: that costs misses.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct

from cachesvc.changes.events.rows import UNAVAILABLE, Row, RowChange, RowMapping, all_concerned
from cachesvc.changes.postgres.fitness import BOOLEAN, unusable
from cachesvc.changes.postgres.pgoutput import (
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Relation,
    StreamAbort,
    StreamCommit,
    StreamStart,
    StreamStop,
    Truncate,
    UnreadableError,
    Update,
    Value,
    Values,
)
from cachesvc.model.change import Change
from cachesvc.model.key_text import MAX_KEY_BYTES

PREFIX = "cachesvc"
"""The prefix of logical messages that are meant for this service: the outbox."""
LARGEST_MESSAGE = 1 << 20
"""Bytes of the largest message of the outbox."""
MOST_FAULTS = 8
"""Faults of one transaction that are kept; the others are counted."""
POSTGRES_EPOCH_US = 946_684_800_000_000
"""2000-01-01 UTC in µs since 1970: times in the log are counted from then."""


class OutboxMessage(Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a logical message, as JSON."""

    changes: tuple[Change, ...] = ()
    traceparent: str = ""
    """The trace in which the transaction was made."""
    caller: str = ""
    """The name of the program, for the audit."""


_outbox = msgspec.json.Decoder(OutboxMessage)


class Committed(Struct, frozen=True):
    """A committed transaction."""

    xid: int
    """0: a message outside of any transaction."""
    commit_lsn: int
    end_lsn: int
    committed_us: int
    """µs since the Unix epoch, by the clock of the database."""
    changes: tuple[Change, ...] = ()
    """Empty if no namespace is concerned."""
    faults: tuple[str, ...] = ()
    traceparent: str = ""
    caller: str = ""


class AssemblerTally(Struct):
    """The counters of an assembler."""

    transactions: int = 0
    """Transactions that concern a namespace."""
    rows: int = 0
    """Rows of tables that a namespace names."""
    messages: int = 0
    """Messages of the outbox."""
    faults: int = 0
    """Rows and messages that could not be mapped as a whole."""
    collapsed: int = 0
    """Transactions with more names than are kept: their namespaces were fenced."""
    held: int = 0
    """Names of keys and tags that are held for open transactions now."""


class Assembler:
    """Takes the messages of one connection in order."""

    def __init__(
        self, mapping: RowMapping, *, database: str, most_targets: int, tally: AssemblerTally
    ) -> None:
        """`most_targets`: names that are held at most."""
        self._mapping = mapping
        self._database = database
        self._most_targets = most_targets
        self._tally = tally
        tally.held = 0
        self._tables: dict[int, _Table] = {}
        self._open: _Open | None = None
        """The transaction between its Begin and its Commit."""
        self._streamed: dict[int, _Open] = {}
        """Transactions of which parts have come, by id."""
        self._stream = 0
        """The transaction of which a part is coming; 0 between parts."""

    def __repr__(self) -> str:
        return f"<Assembler [{len(self._streamed)} in parts, {self._tally.held} names held]>"

    @property
    def is_between(self) -> bool:
        """True if no transaction has begun that is sent as a whole.

        Those that are sent in parts do not count: the server sends them again from their beginning, as long
        as their commit is not confirmed.
        """
        return self._open is None and not self._stream

    def take(self, message: Message) -> Committed | None:
        """Returns the transaction that this message commits. Raises `UnreadableError`."""
        match message:
            case Insert() | Update() | Delete():
                self._take_row(message)
            case Begin():
                self._open = _Open(message.xid)
            case Commit():
                ended, self._open = self._open, None
                return self._committed(ended, message)
            case Relation():
                self._tables[message.oid] = _Table(message, self._mapping, self._database)
            case Truncate():
                for oid in message.oids:
                    self._take_truncate(self._table(oid))
            case LogicalMessage():
                return self._take_message(message)
            case StreamStart():
                self._stream = message.xid
                self._streamed.setdefault(message.xid, _Open(message.xid))
            case StreamStop():
                self._stream = 0
            case StreamCommit():
                return self._committed(self._streamed.pop(message.xid, None), message)
            case StreamAbort() if message.xid == message.subxid:
                self._release(self._streamed.pop(message.xid, None))
        return None

    # rows -----------------------------------------------------------------------------------------

    def _take_row(self, message: Insert | Update | Delete) -> None:
        table = self._table(message.oid)
        if not table.rules:
            return
        self._tally.rows += 1
        if self._current().covers(table.ways):
            return
        concerned = all_concerned(table.fit_rules, table.row_change(message))
        whole = (*concerned.blind, *table.unusable)
        faults = (*concerned.faults, *table.unusable.values())
        self._add((*concerned.changes, *(Change(namespace, all=True) for namespace in whole)), faults)

    def _take_truncate(self, table: "_Table") -> None:
        self._add(all_concerned(table.rules, RowChange("t", table.names)).changes)

    def _add(self, changes: Iterable[Change], faults: Sequence[str] = ()) -> None:
        transaction = self._current()
        before = transaction.size
        for change in changes:
            transaction.add(change)
        self._tally.faults += bool(faults)
        transaction.note(faults)
        self._grown(transaction.size - before)

    def _grown(self, names: int) -> None:
        self._tally.held += names
        while self._tally.held > self._most_targets:
            largest = max(self._transactions(), key=lambda one: one.size)
            if not largest.size:
                return
            self._tally.held -= largest.collapse()
            self._tally.collapsed += 1

    def _transactions(self) -> Iterator["_Open"]:
        yield from self._streamed.values()
        if self._open is not None:
            yield self._open

    def _current(self) -> "_Open":
        found = self._streamed.get(self._stream) if self._stream else self._open
        if found is None:
            raise UnreadableError("a row outside of any transaction")
        return found

    def _table(self, oid: int) -> "_Table":
        try:
            return self._tables[oid]
        except KeyError:
            raise UnreadableError(f"a row of table {oid}, which was not told before") from None

    # messages of the outbox -----------------------------------------------------------------------

    def _take_message(self, message: LogicalMessage) -> Committed | None:
        if message.prefix != PREFIX:
            return None
        self._tally.messages += 1
        read = _read(message.content)
        if message.is_transactional:
            transaction = self._current()
            transaction.traceparent = read.traceparent or transaction.traceparent
            transaction.caller = read.caller or transaction.caller
            self._add(read.changes, read.faults)
            return None
        alone = _Open(0, read.traceparent, read.caller)
        for change in read.changes:
            alone.add(change)
        alone.note(read.faults)
        self._tally.faults += bool(read.faults)
        return _committed(alone, message.lsn, message.lsn, 0)

    # ends -----------------------------------------------------------------------------------------

    def _committed(self, transaction: "_Open | None", end: Commit | StreamCommit) -> Committed:
        if transaction is None:
            raise UnreadableError("the end of a transaction that has not begun")
        self._release(transaction)
        found = _committed(transaction, end.commit_lsn, end.end_lsn, end.commit_us)
        self._tally.transactions += bool(found.changes or found.faults)
        return found

    def _release(self, transaction: "_Open | None") -> None:
        if transaction is not None:
            self._tally.held -= transaction.size


class _Read(Struct, frozen=True):
    """A message of the outbox, as far as it could be read."""

    changes: tuple[Change, ...] = ()
    traceparent: str = ""
    caller: str = ""
    faults: tuple[str, ...] = ()


def _read(content: bytes) -> _Read:
    if len(content) > LARGEST_MESSAGE:
        return _Read(faults=(f"a message of the outbox has {len(content)} bytes, at most {LARGEST_MESSAGE}",))
    try:
        found = _outbox.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _Read(faults=(f"a message of the outbox cannot be read: {str(error)[:200]}",))
    return _Read(found.changes, found.traceparent, found.caller)


def _committed(transaction: "_Open", commit_lsn: int, end_lsn: int, commit_us: int) -> Committed:
    return Committed(
        transaction.xid,
        commit_lsn,
        end_lsn,
        commit_us + POSTGRES_EPOCH_US if commit_us else 0,
        tuple(transaction.changes()),
        tuple(transaction.faults()),
        transaction.traceparent,
        transaction.caller,
    )


class _Names:
    """The keys and tags of one namespace that change in one way."""

    def __init__(self) -> None:
        self.keys: dict[str, None] = {}
        self.tags: dict[str, None] = {}
        self.all = False

    @property
    def size(self) -> int:
        return len(self.keys) + len(self.tags)


class _Open:
    """A transaction that is not committed yet."""

    def __init__(self, xid: int, traceparent: str = "", caller: str = "") -> None:
        self.xid = xid
        self.traceparent = traceparent
        self.caller = caller
        self.size = 0
        """Names of keys and tags."""
        self._names: dict[tuple[str, bool, str], _Names] = {}
        self._faults: dict[str, None] = {}
        self._more_faults = 0

    def add(self, change: Change) -> None:
        names = self._names.setdefault((change.namespace, change.soft, change.over), _Names())
        if names.all:
            return
        before = names.size
        if change.all:
            names.all = True
            names.keys.clear()
            names.tags.clear()
        else:
            names.keys.update(dict.fromkeys(change.keys))
            names.tags.update(dict.fromkeys(change.tags))
        self.size += names.size - before

    def covers(self, ways: Iterable[tuple[str, bool, str]]) -> bool:
        """True if the whole namespace changes in each of these ways already."""
        return all((names := self._names.get(way)) is not None and names.all for way in ways)

    def collapse(self) -> int:
        """Puts whole namespaces in the place of names, and returns how many names went."""
        went = self.size
        for names in self._names.values():
            if names.size:
                names.all = True
                names.keys.clear()
                names.tags.clear()
        self.size = 0
        return went

    def note(self, faults: Iterable[str]) -> None:
        for fault in faults:
            if len(self._faults) < MOST_FAULTS:
                self._faults[fault] = None
            elif fault not in self._faults:
                self._more_faults += 1

    def changes(self) -> Iterator[Change]:
        for (namespace, soft, over), names in self._names.items():
            yield Change(namespace, tuple(names.keys), tuple(names.tags), names.all, soft, over)

    def faults(self) -> Iterator[str]:
        yield from self._faults
        if self._more_faults:
            yield f"and {self._more_faults} more"


class _Table:
    """A table, as the server last told it, with the rules of the namespaces that name it."""

    def __init__(self, relation: Relation, mapping: RowMapping, database: str) -> None:
        self.names = (f"{relation.schema}.{relation.name}", f"{database}.{relation.schema}.{relation.name}")
        self.rules = mapping.rules(self.names)
        types = {column.name: column.type_oid for column in relation.columns}
        self.unusable = {rule.namespace: why for rule in self.rules if (why := unusable(rule, types))}
        """Namespaces with a template that needs a column of no use for keys, and why it is."""
        self.ways = [(rule.namespace, rule.soft, "") for rule in self.rules]
        """The ways in which a row of the table may change something, as a transaction keeps them."""
        self.fit_rules = [rule for rule in self.rules if not unusable(rule, types)]
        wanted = {name for rule in self.fit_rules for name in rule.columns}
        self._columns = [
            (place, column.name, column.is_identity, column.type_oid == BOOLEAN)
            for place, column in enumerate(relation.columns)
            if column.name in wanted
        ]
        self._count = len(relation.columns)
        self._is_full = relation.identity == "f"

    def row_change(self, message: Insert | Update | Delete) -> RowChange:
        match message:
            case Insert():
                return RowChange("c", self.names, None, self._row(message.new), is_exact=True)
            case Delete():
                before = self._old(message.old, is_whole=message.is_old_whole)
                return RowChange("d", self.names, before, is_exact=True)
            case _:
                new = self._row(message.new)
                if message.old is None:  # the columns of the replica identity are as they were
                    old = self._old(message.new, is_whole=False)
                else:
                    old = self._old(message.old, is_whole=message.is_old_whole)
                return RowChange("u", self.names, old, new, is_exact=True)

    def _old(self, values: Values, *, is_whole: bool) -> Row:
        """Returns the known columns of an old row.

        A partition may have another replica identity than the table whose name its rows have. If the table
        says FULL and the old row is not whole, nobody knows which of its columns are known.
        """
        if self._is_full and not is_whole:
            return {}
        return self._row(values, is_whole=is_whole)

    def _row(self, values: Values, *, is_whole: bool = True) -> Row:
        if len(values) != self._count:
            raise UnreadableError(f"a row of {len(values)} columns, and the table has {self._count}")
        found = {}
        for place, name, is_identity, is_boolean in self._columns:
            if is_whole or is_identity:
                found[name] = _text(values[place], is_boolean)
        return found


def _text(value: Value, is_boolean: bool) -> str | None:
    if value is None:
        return None
    if not isinstance(value, memoryview):  # an update left it as it was
        return UNAVAILABLE
    # A longer text is in no key that could be stored, so its end is not kept.
    value = value[: MAX_KEY_BYTES + 1]
    text = str(value, "utf-8", "replace")
    return {"t": "true", "f": "false"}.get(text, text) if is_boolean else text
