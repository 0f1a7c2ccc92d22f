"""Messages of `pgoutput` become transactions with the keys and tags that each concerns."""

import json
from collections.abc import Iterable

import pytest

from cachesvc.changes.contract import OpenChange
from cachesvc.changes.events.cloudevents import decode_ours
from cachesvc.changes.events.event_parser import EventParser
from cachesvc.changes.events.rows import RowMapping
from cachesvc.changes.postgres.events import MOST_NAMES, events_of
from cachesvc.changes.postgres.pgoutput import (
    UNCHANGED,
    Begin,
    Column,
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
    Unchanged,
    UnreadableError,
    Update,
    Value,
    Values,
)
from cachesvc.changes.postgres.transactions import (
    LARGEST_MESSAGE,
    POSTGRES_EPOCH_US,
    Assembler,
    AssemblerTally,
    Committed,
)
from cachesvc.config.topology import Namespace, Source
from cachesvc.model.change import Change
from cachesvc.model.units import Duration

BIGINT, TEXT, BOOLEAN, DATE = 20, 25, 16, 1082
BLOCKS = Source("public.blocks", key="{ws-{ws}}:block:{id}", tags=("{ws-{ws}}:page-{page?}",))
NAMESPACES = {
    "blocks": Namespace("web", sources=(BLOCKS,)),
    "flags": Namespace("web", sources=(Source("shop.public.flags", key="flag:{id}:{on}", soft=True),)),
    "days": Namespace("web", sources=(Source("public.days", key="day:{day}"),)),
}


def relation(oid: int, name: str, identity: Iterable[str], **types: int) -> Relation:
    known = set(identity)
    columns = tuple(Column(column, type_, column in known) for column, type_ in types.items())
    return Relation(oid, "public", name, "f" if known == set(types) else "d", columns)


FULL = relation(1, "blocks", ["id", "ws", "page", "body"], id=BIGINT, ws=BIGINT, page=BIGINT, body=TEXT)
BY_KEY = relation(1, "blocks", ["id", "ws"], id=BIGINT, ws=BIGINT, page=BIGINT, body=TEXT)
FLAGS = relation(2, "flags", ["id", "on"], id=BIGINT, on=BOOLEAN)
DAYS = relation(3, "days", ["day"], day=DATE)
OTHERS = relation(4, "others", ["id"], id=BIGINT)
BEGIN, END = Begin(100, 5, 700), Commit(100, 120, 5)


def row(*values: object) -> Values:
    """A row of texts; None is NULL."""

    def value(one: object) -> Value:
        return one if one is None or isinstance(one, Unchanged) else memoryview(str(one).encode())

    return [value(one) for one in values]


class Taking:
    """An assembler and its counters."""

    def __init__(self, *, most_targets: int = 1000) -> None:
        self.tally = AssemblerTally()
        mapping = RowMapping(NAMESPACES)
        self.assembler = Assembler(mapping, database="shop", most_targets=most_targets, tally=self.tally)

    def __call__(self, *messages: Message) -> list[Committed]:
        found = [self.assembler.take(message) for message in messages]
        return [one for one in found if one is not None]


def committed(*messages: Message) -> Committed:
    """The one transaction of these messages."""
    (found,) = Taking()(BEGIN, FULL, FLAGS, DAYS, OTHERS, *messages, END)
    return found


def test_the_rows_of_a_transaction_are_one_change_of_each_namespace() -> None:
    found = committed(
        Insert(1, row(1, 7, 5, "a")),
        Insert(1, row(2, 7, None, "b")),
        Insert(2, row(3, "t")),
        Insert(4, row(9)),
    )
    assert found == Committed(
        700,
        100,
        120,
        POSTGRES_EPOCH_US + 5,
        (
            Change("blocks", ("{ws-7}:block:1", "{ws-7}:block:2"), ("{ws-7}:page-5",)),
            Change("flags", ("flag:3:true",), soft=True),
        ),
    )


def test_a_row_that_moves_takes_its_old_and_its_new_key_with_it() -> None:
    (change,) = committed(Update(1, row(1, 8, 6, "a"), row(1, 7, 5, "a"), True)).changes
    assert change.keys == ("{ws-7}:block:1", "{ws-8}:block:1")
    assert change.tags == ("{ws-7}:page-5", "{ws-8}:page-6")


def test_a_primary_key_that_changes_is_both_keys_without_full_identity() -> None:
    by_index = relation(1, "blocks", ["id", "ws", "page"], id=BIGINT, ws=BIGINT, page=BIGINT, body=TEXT)
    old = row(1, 7, 5, None)
    (found,) = Taking()(BEGIN, by_index, Update(1, row(2, 7, 5, UNCHANGED), old, False), END)
    assert found.changes[0].keys == ("{ws-7}:block:1", "{ws-7}:block:2")


def test_a_large_value_that_was_not_sent_is_not_null() -> None:
    source = Source("public.blocks", key="body:{body?}")
    tally = AssemblerTally()
    namespaces = {"blocks": Namespace("web", sources=(source,))}
    assembler = Assembler(RowMapping(namespaces), database="shop", most_targets=9, tally=tally)
    update = Update(1, row(1, 7, 6, UNCHANGED), row(1, 7, 5, "long"), True)
    found = [assembler.take(message) for message in (BEGIN, FULL, update, END)]
    assert found[-1] is not None
    assert found[-1].changes == (Change("blocks", ("body:long",)),)


def test_an_old_value_that_was_not_sent_fences_the_namespace_and_is_a_fault() -> None:
    (found,) = Taking()(
        BEGIN, BY_KEY, Update(1, row(1, 7, 6, "a")), Delete(1, row(1, 7, None, None), False), END
    )
    assert found.changes == (Change("blocks", all=True),)
    (fault,) = found.faults
    assert (
        fault == "public.blocks: what 'page' was is not in the event: the table needs REPLICA IDENTITY FULL"
    )


@pytest.mark.parametrize(
    "change",
    [
        Update(1, row(1, 7, 6, "a")),
        Update(1, row(1, 7, 6, "a"), row(1, None, None, None), False),
        Delete(1, row(1, None, None, None), False),
    ],
)
def test_a_partition_with_a_poorer_replica_identity_than_its_table_fences_the_namespace(
    change: Message,
) -> None:
    found = committed(change)
    assert Change("blocks", all=True) in found.changes
    assert found.faults


def test_an_insert_needs_no_old_values() -> None:
    (found,) = Taking()(BEGIN, BY_KEY, Insert(1, row(1, 7, 6, "a")), END)
    assert found.faults == ()
    assert found.changes[0].tags == ("{ws-7}:page-6",)


def test_a_column_without_a_lasting_text_fences_the_namespace() -> None:
    found = committed(Insert(3, row("2026-01-01")))
    assert found.changes == (Change("days", all=True),)
    assert "column 'day' is of type date, whose text depends on settings" in found.faults[0]


def test_a_column_that_is_gone_fences_the_namespace() -> None:
    without = relation(1, "blocks", ["id", "ws"], id=BIGINT, ws=BIGINT)
    (found,) = Taking()(BEGIN, without, Insert(1, row(1, 7)), END)
    assert Change("blocks", all=True) in found.changes
    assert found.faults == ("public.blocks: the row has no column 'page' (there is id, ws)",)


def test_null_and_zero_are_values_and_a_null_without_its_mark_is_a_fault() -> None:
    found = committed(Delete(1, row(0, 7, None, ""), True), Insert(1, row(3, None, 5, "")))
    assert found.changes == (Change("blocks", ("{ws-7}:block:0",)),)
    assert found.faults == ("public.blocks: 'ws' is null: write the template {ws?} if it may be null",)


def test_truncate_fences_the_namespaces_of_the_table() -> None:
    found = committed(Truncate((1, 2, 4)))
    assert found.changes == (Change("blocks", all=True), Change("flags", all=True, soft=True))


def test_a_table_that_no_namespace_names_is_nothing() -> None:
    found = committed(Insert(4, row(9)))
    assert (found.changes, found.faults) == ((), ())
    assert events_of(found, "s") == []


def message(content: object, *, is_transactional: bool = True, prefix: str = "cachesvc") -> LogicalMessage:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return LogicalMessage(is_transactional, 99, prefix, text)


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_outbox_names_what_no_row_names_in_the_same_change() -> None:
    told = {"changes": [{"namespace": "blocks", "tags": ["t"]}], "traceparent": TRACE, "caller": "shop"}
    found = committed(Insert(1, row(1, 7, None, "a")), message(told), message({"x": 1}, prefix="other"))
    assert found.changes == (Change("blocks", ("{ws-7}:block:1",), ("t",)),)
    assert (found.traceparent, found.caller) == (TRACE, "shop")
    (event,) = events_of(found, "cdc")
    taken = decode_ours("1-0", event)
    assert taken.source == "/postgres/cdc/shop"
    assert str(taken.trace) == TRACE


def test_a_message_outside_of_a_transaction_is_a_change_of_its_own() -> None:
    (found,) = Taking()(
        message({"changes": [{"namespace": "blocks", "keys": ["k"]}]}, is_transactional=False)
    )
    assert (found.xid, found.end_lsn, found.changes) == (0, 99, (Change("blocks", ("k",)),))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "cannot be read"),
        (b'{"chagnes": []}', "unknown field"),
        (b"[" * 100_000, "cannot be read"),
        (b" " * (LARGEST_MESSAGE + 1), "has 1048577 bytes"),
    ],
)
def test_a_message_that_cannot_be_read_is_a_fault(content: bytes, said: str) -> None:
    (fault,) = committed(message(content)).faults
    assert said in fault


# transactions in parts ----------------------------------------------------------------------------


def test_parts_of_transactions_come_between_others() -> None:
    taking = Taking()
    found = taking(
        StreamStart(1, True),
        FULL,
        Insert(1, row(1, 7, None, "a"), 1),
        StreamStop(),
        BEGIN,
        Insert(1, row(2, 7, None, "a")),
        END,
        StreamStart(2, True),
        Insert(1, row(3, 7, None, "a"), 2),
        StreamStop(),
        StreamStart(1, False),
        Insert(1, row(4, 7, None, "a"), 5),
        StreamStop(),
        StreamAbort(1, 5),
        StreamAbort(2, 2),
        StreamCommit(1, 200, 220, 5),
    )
    assert [(one.xid, one.changes[0].keys) for one in found] == [
        (700, ("{ws-7}:block:2",)),
        (1, ("{ws-7}:block:1", "{ws-7}:block:4")),
    ]
    assert taking.tally.held == 0


def test_a_reader_is_between_transactions_while_parts_of_one_wait() -> None:
    taking = Taking()
    taking(StreamStart(1, True))
    assert not taking.assembler.is_between
    taking(StreamStop())
    assert taking.assembler.is_between
    taking(BEGIN)
    assert not taking.assembler.is_between
    taking(END)
    assert taking.assembler.is_between


def test_a_transaction_with_more_names_than_are_kept_fences_its_namespaces() -> None:
    taking = Taking(most_targets=10)
    rows = [Insert(1, row(n, 7, None, "a")) for n in range(5000)]
    (found,) = taking(BEGIN, FULL, *rows, END)
    assert found.changes == (Change("blocks", all=True),)
    assert taking.tally.collapsed == 1
    assert taking.tally.held == 0


def test_the_transaction_with_the_most_names_gives_way() -> None:
    taking = Taking(most_targets=10)
    found = taking(
        StreamStart(1, True),
        FULL,
        *[Insert(1, row(n, 7, None, "a"), 1) for n in range(8)],
        StreamStop(),
        BEGIN,
        *[Insert(1, row(n, 8, None, "a")) for n in range(4)],
        END,
        StreamCommit(1, 200, 220, 5),
    )
    small, large = found
    assert len(small.changes[0].keys) == 4
    assert large.changes == (Change("blocks", all=True),)


@pytest.mark.parametrize(
    "messages",
    [
        (Insert(1, row(1)),),
        (FULL, Insert(1, row(1, 7, None, "a"))),
        (BEGIN, FULL, Insert(1, row(1))),
        (END,),
        (StreamCommit(1, 2, 3, 4),),
    ],
)
def test_messages_out_of_order_are_refused(messages: tuple[Message, ...]) -> None:
    with pytest.raises(UnreadableError):
        Taking()(*messages)


# events -------------------------------------------------------------------------------------------


def parsed(event: bytes) -> OpenChange:
    return EventParser(NAMESPACES, 1000, Duration.parse("1h"))("1-0", {b"event": event})


def test_an_event_on_the_wire() -> None:
    (event,) = events_of(committed(Insert(1, row(1, 7, None, "a"))), "cdc")
    assert json.loads(event) == {
        "specversion": "1.0",
        "type": "dev.cachesvc.transaction.v1",
        "id": "cdc:0/64",
        "source": "/postgres/cdc",
        "time": "2000-01-01T00:00:00.000005Z",
        "datacontenttype": "application/json",
        "data": {
            "changes": [
                {
                    "namespace": "blocks",
                    "keys": ["{ws-7}:block:1"],
                    "tags": [],
                    "all": False,
                    "soft": False,
                    "over": "",
                }
            ]
        },
    }
    assert parsed(event).changes == (Change("blocks", ("{ws-7}:block:1",)),)


def test_an_instance_applies_what_is_known_and_buries_a_fault() -> None:
    (event,) = events_of(committed(Insert(1, row(1, 7, None, "a")), message(b"{")), "cdc")
    found = parsed(event)
    assert found.changes == (Change("blocks", ("{ws-7}:block:1",)),)
    assert found.reason.startswith("a message of the outbox cannot be read")


def test_a_key_that_is_too_long_is_a_dead_letter_and_is_not_kept_whole() -> None:
    source = {"blocks": Namespace("web", sources=(Source("public.blocks", key="body:{body?}"),))}
    assembler = Assembler(RowMapping(source), database="shop", most_targets=9, tally=AssemblerTally())
    found = [assembler.take(one) for one in (BEGIN, FULL, Insert(1, row(1, 7, 5, "x" * 1_000_000)), END)][-1]
    assert found is not None
    assert len(found.changes[0].keys[0]) < 1100
    assert "a key has 1 to 1024 bytes" in parsed(events_of(found, "cdc")[0]).reason


def test_many_names_are_pieces_that_instances_take_and_many_more_are_several_events() -> None:
    taking = Taking(most_targets=100_000)
    count = 3 * MOST_NAMES + 1
    (found,) = taking(BEGIN, FULL, *[Insert(1, row(n, 7, None, "a")) for n in range(count)], END)
    (event,) = events_of(found, "cdc")
    assert [len(change.keys) for change in parsed(event).changes] == [1000, 1000, 1000, 1]
    (found,) = taking(BEGIN, FULL, *[Insert(1, row(n, 7, None, "a")) for n in range(20_000)], END)
    events = [parsed(event) for event in events_of(found, "cdc")]
    assert [sum(len(change.keys) for change in event.changes) for event in events] == [8000, 8000, 4000]
    assert len({key for event in events for change in event.changes for key in change.keys}) == 20_000


def test_a_transaction_event_of_an_unknown_shape_is_a_dead_letter() -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "dev.cachesvc.transaction.v1"}
    assert parsed(json.dumps({**event, "data": {"chagnes": []}}).encode()).reason
    assert parsed(json.dumps({**event, "data": {}}).encode()).reason == "names no changes"
