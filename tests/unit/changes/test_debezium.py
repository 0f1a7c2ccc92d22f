"""Row changes: every shape that Debezium writes them in, and the keys and tags that a change concerns."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.changes.contract import OpenChange
from cachesvc.changes.events.event_parser import EventParser
from cachesvc.config.document import read_struct
from cachesvc.config.topology import Namespace
from cachesvc.model.change import Change
from cachesvc.model.key_text import check_key
from cachesvc.model.partition import partition
from cachesvc.model.units import Duration
from cachesvc.telemetry.traces.trace import SpanContext

HOUR = Duration.parse("1h")


def reader(*sources: dict[str, Any], namespace: str = "pages") -> EventParser:
    return EventParser(
        {namespace: read_struct({"owner": "web", "sources": list(sources)}, Namespace)},
        max_batch_keys=100,
        longest_over=HOUR,
    )


BLOCKS = {"source": "public.blocks", "key": "{ws-{workspace_id}}:block:{id}"}
read = reader(BLOCKS)

ROW = {"id": 42, "workspace_id": 7, "title": "a", "price": 1.5}
MOVED = {**ROW, "workspace_id": 8}
SOURCE = {
    "version": "3.0",
    "connector": "postgresql",
    "name": "shop",
    "db": "shop",
    "schema": "public",
    "table": "blocks",
}


def envelope(op: str, before: Any = None, after: Any = None, **source: Any) -> dict[str, Any]:
    return {
        "before": before,
        "after": after,
        "source": {**SOURCE, **source},
        "op": op,
        "ts_ms": 1_700_000_000_000,
    }


def record(value: Any, key: Any = ...) -> dict[bytes, bytes]:
    """In the sink's extended format."""
    return {
        b"key": b"default" if key is ... else json.dumps(key).encode(),
        b"value": json.dumps(value).encode(),
    }


def keys(found: OpenChange) -> list[str]:
    return [key for change in found.changes for key in change.keys]


UPDATE = envelope("u", ROW, MOVED)
CLOUD_EVENT = {
    "id": "name:shop;lsn:29274832;txId:565",
    "source": "/debezium/postgresql/shop",
    "specversion": "1.0",
    "type": "io.debezium.postgresql.datachangeevent",
    "datacontenttype": "application/json",
    "iodebeziumop": "u",
    "iodebeziumconnector": "postgresql",
    "iodebeziumname": "shop",
    "iodebeziumdb": "shop",
    "iodebeziumschema": "public",
    "iodebeziumtable": "blocks",
    "data": {"before": ROW, "after": MOVED},
}


@pytest.mark.parametrize(
    "fields",
    [
        record(UPDATE, {"id": 42}),
        record({"schema": {"type": "struct"}, "payload": UPDATE}, {"schema": {}, "payload": {"id": 42}}),
        {**record(UPDATE, {"id": 42}), b"__OP": b"u"},
        {b'{"id":42}': json.dumps(UPDATE).encode()},
        {b"default": json.dumps(UPDATE).encode()},
        {b"event": json.dumps(UPDATE).encode()},
        {b"event": json.dumps(CLOUD_EVENT).encode()},
        record(CLOUD_EVENT, {"id": 42}),
        record({**CLOUD_EVENT, "data": {"schema": {}, "payload": CLOUD_EVENT["data"]}}),
        {b"key": b"Struct{id=42}", b"value": json.dumps(UPDATE).encode()},
    ],
    ids=[
        "extended",
        "with schemas",
        "with headers",
        "compact",
        "compact without a key",
        "in `event`",
        "CloudEvent in `event`",
        "CloudEvent in `value`",
        "CloudEvent with schemas",
        "a key that is no JSON",
    ],
)
def test_a_row_change_is_read_in_every_format(fields: dict[bytes, bytes]) -> None:
    change = Change("pages", ("{ws-7}:block:42", "{ws-8}:block:42"))
    assert read("7-0", fields) == OpenChange("7-0", (change,), source="/debezium/postgresql/shop")


def test_the_converter_names_the_trace_of_a_row_change() -> None:
    traceparent = "00-00000000000000000000000000000001-0000000000000002-01"
    assert read("7-0", record({**CLOUD_EVENT, "traceparent": traceparent})).trace == SpanContext(1, 2, True)
    assert read("7-0", record({**CLOUD_EVENT, "traceparent": 7})).trace is None
    assert read("7-0", record(CLOUD_EVENT)).trace is None


@pytest.mark.parametrize(
    ("op", "before", "after", "expected"),
    [
        ("c", None, ROW, ["{ws-7}:block:42"]),
        ("u", ROW, {**ROW, "title": "b"}, ["{ws-7}:block:42"]),
        ("u", ROW, MOVED, ["{ws-7}:block:42", "{ws-8}:block:42"]),
        ("u", ROW, {**MOVED, "id": 43}, ["{ws-7}:block:42", "{ws-8}:block:43"]),
        ("u", ROW, {**ROW, "workspace_id": None}, ["{ws-7}:block:42"]),
        ("u", {**ROW, "workspace_id": None}, ROW, ["{ws-7}:block:42"]),
        ("u", {**ROW, "workspace_id": 0}, {**ROW, "workspace_id": 0, "title": "b"}, ["{ws-0}:block:42"]),
        ("u", ROW, {**ROW, "workspace_id": "__debezium_unavailable_value"}, ["{ws-7}:block:42"]),
        ("d", ROW, None, ["{ws-7}:block:42"]),
        ("c", None, {"id": True, "workspace_id": "a b"}, ["{ws-a b}:block:true"]),
    ],
    ids=[
        "create",
        "update",
        "moved",
        "another id",
        "moved out",
        "moved in",
        "zero, unchanged",
        "a large value left alone",
        "delete",
        "types",
    ],
)
def test_both_images_of_a_row_are_invalidated(op: str, before: Any, after: Any, expected: list[str]) -> None:
    found = read("7-0", record(envelope(op, before, after), {"id": (after or before)["id"]}))
    assert (keys(found), found.reason) == (expected, "")


@pytest.mark.parametrize(
    "value",
    [
        envelope("r", None, ROW),
        envelope("m", schema="", table="") | {"message": {"prefix": "foo", "content": "Ymfy"}},
        envelope("c", None, ROW, table="orders"),
        None,
        {"schema": None, "payload": None},
        {"ts_ms": 1},
        {"schema": {}, "payload": {"ts_ms": 1}},
        {"status": "BEGIN", "id": "571:53195829", "ts_ms": 1, "event_count": None, "data_collections": None},
        {"source": SOURCE, "ddl": "ALTER TABLE blocks", "tableChanges": []},
    ],
    ids=[
        "snapshot",
        "message",
        "another table",
        "null",
        "null with schema",
        "heartbeat",
        "its schema",
        "transaction",
        "schema",
    ],
)
def test_what_says_nothing_about_a_row_is_skipped(value: Any) -> None:
    found = read("7-0", record(value, {"id": 42}))
    assert (found.changes, found.reason) == ((), "")


@pytest.mark.parametrize(
    "fields", [{b"key": b'{"id":1}', b"value": b"default"}, {b'{"id":1}': b"default"}, {b"event": b"null"}]
)
def test_tombstones_are_skipped(fields: dict[bytes, bytes]) -> None:
    assert read("7-0", fields) == OpenChange("7-0")


def test_a_truncated_table_is_its_whole_namespace() -> None:
    assert read("7-0", record(envelope("t"))).changes == (Change("pages", all=True),)


IDENTITY = "the table needs REPLICA IDENTITY FULL"


@pytest.mark.parametrize(
    ("value", "key", "expected", "reason"),
    [
        (
            envelope("u", None, ROW),
            {"id": 42},
            ["{ws-7}:block:42"],
            f"public.blocks: what 'workspace_id' was is not in the event: {IDENTITY}",
        ),
        (
            envelope("u", None, ROW),
            ...,
            ["{ws-7}:block:42"],
            f"public.blocks: what 'workspace_id' was is not in the event: {IDENTITY}; "
            f"public.blocks: what 'id' was is not in the event: {IDENTITY}",
        ),
        (
            envelope("d", {"id": 42}),
            {"id": 42},
            [],
            f"public.blocks: what 'workspace_id' was is not in the event: {IDENTITY}",
        ),
        (
            envelope("d", {"id": 42, "workspace_id": None}),
            {"id": 42},
            [],
            f"public.blocks: 'workspace_id' is null: {IDENTITY}, or the template {{workspace_id?}} if it may be null",
        ),
        (
            envelope("d", {"id": 42, "workspace_id": 0, "title": ""}),
            {"id": 42},
            ["{ws-0}:block:42"],
            f"public.blocks: 'workspace_id' was '0', which may also stand for unknown: {IDENTITY}",
        ),
        (
            envelope("u", {**ROW, "workspace_id": 0}, ROW),
            {"id": 42},
            ["{ws-0}:block:42", "{ws-7}:block:42"],
            f"public.blocks: 'workspace_id' was '0', which may also stand for unknown: {IDENTITY}",
        ),
        (
            envelope("u", {**ROW, "workspace_id": None}, {**ROW, "workspace_id": None}),
            {"id": 42},
            [],
            f"public.blocks: 'workspace_id' is null: {IDENTITY}, or the template {{workspace_id?}} if it may be null",
        ),
        (
            envelope("c", None, {"id": 42, "workspaceid": 7}),
            {"id": 42},
            [],
            "public.blocks: the row has no column 'workspace_id' (there is id, workspaceid)",
        ),
        (envelope("c"), {"id": 42}, [], "Debezium's op 'c' without `after`"),
        (envelope("u", ROW), {"id": 42}, [], "Debezium's op 'u' without `after`"),
        (
            envelope("c", None, {**ROW, "id": 1.5}),
            {"id": 1.5},
            [],
            "public.blocks: column 'id' holds a float: keys are made of text, whole numbers and booleans",
        ),
        (
            envelope("c", None, {**ROW, "id": {"scale": 0, "value": "Kg=="}}),
            ...,
            [],
            "public.blocks: column 'id' holds a dict: keys are made of text, whole numbers and booleans",
        ),
        (
            envelope("c", None, {**ROW, "id": "a\nb"}),
            ...,
            [],
            "key 0: a key has no control characters: U+000A is one",
        ),
        (envelope("c", None, [1]), ..., [], "`after` is no object of columns but a list"),
        (envelope("x", None, ROW), ..., [], "Debezium's op 'x' is none of c, u, d, r, t, m"),
        (
            {"op": "c", "after": ROW},
            ...,
            [],
            "neither a CloudEvent (no `specversion`) nor a Debezium envelope (no `op` and `source`)",
        ),
        (
            ROW,
            ...,
            [],
            "neither a CloudEvent (no `specversion`) nor a Debezium envelope (no `op` and `source`)",
        ),
        (
            {**CLOUD_EVENT, "datacontenttype": "application/avro", "data": "AAAAAAEAAgICAg=="},
            ...,
            [],
            "the `data` of the row change is no JSON object: set data.serializer.type=json",
        ),
        (
            {name: value for name, value in CLOUD_EVENT.items() if not name.startswith("iodebezium")},
            ...,
            [],
            "the row change has no attribute `iodebeziumop`: set extension.attributes.enable=true",
        ),
    ],
    ids=[
        "an update without the old row",
        "an update without the old row and key",
        "a delete with the key alone",
        "a delete with nulls for the unknown",
        "a delete with zeros for the unknown",
        "an update with a zero for the unknown",
        "null before and after",
        "a misspelt column",
        "a create without a row",
        "an update without the new row",
        "a float",
        "a decimal",
        "a control character",
        "a row that is a list",
        "an unknown op",
        "no source",
        "a row without its envelope",
        "Avro",
        "no attributes",
    ],
)
def test_a_dead_letter_says_what_is_missing_and_what_is_known_is_applied(
    value: Any, key: Any, expected: list[str], reason: str
) -> None:
    found = read("7-0", record(value, key))
    assert (keys(found), found.reason) == (expected, reason)


def test_an_update_without_the_old_row_is_enough_if_the_templates_name_the_records_key_alone() -> None:
    """PostgreSQL's default: an update that leaves the primary key alone comes without the old row."""
    found = reader({"source": "public.blocks", "key": "block:{id}"})(
        "7-0", record(envelope("u", None, ROW), {"id": 42})
    )
    assert (keys(found), found.reason) == (["block:42"], "")


def test_a_column_that_may_be_null_gives_nothing_where_it_is() -> None:
    read = reader(
        {
            "source": "public.blocks",
            "keys": ["{id}", "{id}:parent:{parent_id?}"],
            "tags": ["parent-{parent_id?}"],
        }
    )
    child, root = {"id": 42, "parent_id": 1}, {"id": 42, "parent_id": None}
    created = read("7-0", record(envelope("c", None, root), {"id": 42}))
    moved = read("7-0", record(envelope("u", child, root), {"id": 42}))
    assert (created.changes, created.reason) == ((Change("pages", ("42",)),), "")
    assert (moved.changes, moved.reason) == ((Change("pages", ("42", "42:parent:1"), ("parent-1",)),), "")


def test_one_row_may_concern_several_namespaces_hard_and_softly() -> None:
    namespaces = {
        "pages": read_struct(
            {"owner": "web", "sources": [BLOCKS, {**BLOCKS, "key": "list:{workspace_id}", "soft": True}]},
            Namespace,
        ),
        "search": read_struct(
            {"owner": "s", "sources": [{"source": "shop.public.blocks", "tags": ["ws-{workspace_id}"]}]},
            Namespace,
        ),
    }
    found = EventParser(namespaces, 100, HOUR)("7-0", record(envelope("d", ROW), {"id": 42}))
    assert found.changes == (
        Change("pages", ("{ws-7}:block:42",)),
        Change("pages", ("list:7",), soft=True),
        Change("search", tags=("ws-7",)),
    )


def test_a_table_without_a_schema_goes_by_its_database() -> None:
    read = reader({"source": "shop.blocks", "key": "{id}"})
    assert keys(read("7-0", record(envelope("c", None, ROW, connector="mysql", schema=None)))) == ["42"]


columns = st.text(max_size=8) | st.integers() | st.booleans() | st.none()
rows = st.fixed_dictionaries({"id": columns, "workspace_id": columns})


@given(rows, rows)
def test_a_rendered_key_obeys_the_rules_for_keys_or_is_a_dead_letter(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    found = read("7-0", record(envelope("u", before, after)))
    rendered = keys(found)
    assert [check_key(key) for key in rendered] == rendered
    null = [None in row.values() for row in (before, after)]
    assert bool(rendered) or bool(found.reason) or all(null)


@given(st.integers(), st.integers())
def test_the_partition_of_a_rendered_key_is_the_templates(id_: int, workspace: int) -> None:
    (key,) = keys(read("7-0", record(envelope("c", None, {"id": id_, "workspace_id": workspace}))))
    assert partition(key) == f"ws-{workspace}"
