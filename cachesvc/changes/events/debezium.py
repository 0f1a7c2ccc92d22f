"""Row changes as Debezium writes them: in its Redis sink and its CloudEvents converter.

The sink (RedisStreamChangeConsumer;
https://debezium.io/documentation/reference/stable/operations/debezium-server.html, "Redis
(Stream)") appends one item per record, by `debezium.sink.redis.message.format`:

    extended   fields `key` and `value`, and one for each header, in upper case
    compact    one field: its name is the record's key, its value the record's value (the default)

A record without a key or value has the text of `null.key` or `null.value` there, `default` unless
set. A value is an envelope
(https://debezium.io/documentation/reference/stable/connectors/postgresql.html, "Data change
events"), alone or, with `schemas.enable` of the converter, as the `payload` beside its `schema`:

    {"op": "u", "before": {…}, "after": {…},
     "source": {"connector", "name", "db", "schema", "table", …}, "ts_ms": …}

`op`: c create, u update, d delete, r read by a snapshot, t truncate, m logical decoding message. A
delete is followed by a tombstone, a key without a value. The same stream may carry heartbeats
(`ts_ms` alone), boundaries of transactions (`status`) and changes of schemas (`ddl`).

The CloudEvents converter
(https://debezium.io/documentation/reference/stable/integrations/cloudevents.html) writes type
`io.debezium.connector.<connector>.DataChangeEvent` (before Debezium 3:
`io.debezium.<connector>.datachangeevent`), with the content of `op` and `source` as attributes
`iodebezium…`, and `before` and `after` in `data`. With `opentelemetry.tracing.attributes.enable` it
adds `traceparent`. For records that are about no row (heartbeats, transactions) it writes no value.

What Debezium 3.6.3 wrote about a table of PostgreSQL is in `tests/snapshots/debezium`.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from cachesvc.changes.events.cloudevents import trace_of
from cachesvc.changes.events.rows import Row, RowChange

TOMBSTONES = (b"default", b"null", b"")
"""Values of a record that has none."""
OPERATIONS = ("c", "u", "d", "r", "t", "m")
_EVENT_TYPE = re.compile(r"io\.debezium\..+\.datachangeevent", re.IGNORECASE)
_NO_ROW = ("status", "ddl", "tableChanges")
_decoder = msgspec.json.Decoder()


class UnreadableError(ValueError):
    """The value is not what Debezium writes about a row."""


def value_and_key(fields: Mapping[bytes, bytes]) -> tuple[bytes, bytes] | None:
    """Returns value and key of the record in an item's fields, in either format; None if none."""
    if b"value" in fields:
        return fields[b"value"], fields.get(b"key", b"")
    if len(fields) == 1:
        ((key, value),) = fields.items()
        if key == b"default" or key.startswith(b"{"):
            return value, key
    return None


def is_data_change(event: Mapping[str, Any]) -> bool:
    """True for a CloudEvent of Debezium's converter."""
    return isinstance(kind := event.get("type"), str) and bool(_EVENT_TYPE.fullmatch(kind))


def row_change(document: object, key: bytes = b"") -> RowChange | None:
    """Returns the row change in a record; None if the record says nothing about rows.

    Raises `UnreadableError` for a record that Debezium does not write.
    """
    envelope = _payload(document)
    if envelope is None:
        return None
    if not isinstance(envelope, dict):
        raise UnreadableError("neither a CloudEvent nor a Debezium envelope: not an object")
    if is_data_change(envelope):
        envelope = _envelope(envelope)
    elif _says_nothing_of_rows(envelope):
        return None
    op, source = envelope.get("op"), envelope.get("source")
    if op is None or not isinstance(source, dict):
        raise UnreadableError(
            "neither a CloudEvent (no `specversion`) nor a Debezium envelope (no `op` and `source`)"
        )
    if op not in OPERATIONS:
        raise UnreadableError(f"Debezium's op {op!r:.64} is none of {', '.join(OPERATIONS)}")
    before, after = (_row(envelope.get(name), name) for name in ("before", "after"))
    if op in ("c", "u") and after is None:
        raise UnreadableError(f"Debezium's op {op!r} without `after`")
    name = f"/debezium/{source.get('connector')}/{source.get('name')}"
    return RowChange(
        op, _tables(source), before, after, _key(key), name, trace_of(envelope.get("traceparent"))
    )


def _payload(document: object) -> object:
    """Returns the document without the schema that stands beside it."""
    if isinstance(document, dict) and "payload" in document and document.keys() <= {"schema", "payload"}:
        return document["payload"]
    return document


def _envelope(event: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the envelope that a CloudEvent was made from."""
    data = _payload(event.get("data"))
    if not isinstance(data, dict):
        raise UnreadableError("the `data` of the row change is no JSON object: set data.serializer.type=json")
    if "iodebeziumop" not in event:
        raise UnreadableError(
            "the row change has no attribute `iodebeziumop`: set extension.attributes.enable=true"
        )
    source = {name: event.get(f"iodebezium{name}") for name in ("connector", "name", "db", "schema", "table")}
    return {**data, "op": event["iodebeziumop"], "source": source, "traceparent": event.get("traceparent")}


def _says_nothing_of_rows(envelope: Mapping[str, Any]) -> bool:
    if "op" in envelope or not envelope:
        return False
    return all(name.startswith("ts_") for name in envelope) or any(name in envelope for name in _NO_ROW)


def _row(value: object, name: str) -> Row | None:
    if value is None or isinstance(value, dict):
        return value
    raise UnreadableError(f"`{name}` is no object of columns but a {type(value).__name__}")


def _key(key: bytes) -> Row:
    """Returns the columns in a record's key.

    A key that is not JSON, or is one unnamed value, identifies no column.
    """
    try:
        found = _payload(_decoder.decode(key)) if key else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _tables(source: Mapping[str, Any]) -> tuple[str, ...]:
    database, schema, table = (source.get(name) or "" for name in ("db", "schema", "table"))
    return (f"{schema}.{table}", f"{database}.{schema}.{table}") if schema else (f"{database}.{table}",)
