"""A change as a CloudEvents 1.0 event in structured JSON (https://cloudevents.io).

    {"specversion": "1.0", "id": "…", "source": "/orders", "type": "dev.cachesvc.change.v1",
     "data": {"namespace": "pages", "keys": ["a"], "tags": ["t"], "all": false, "soft": false}}

Any producer may append one. The extension attribute `helduntil` (a timestamp) is ours: an
invalidate call is applying this change by itself until then. `traceparent` is that of the
distributed tracing extension
(https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/distributed-tracing.md): the
trace in which the change was made. A `traceparent` that cannot be read is ignored: no invalidation
is lost because of its trace. Other attributes are accepted and ignored; unknown fields of `data`
are refused, because a misspelt `tags` would otherwise invalidate nothing, silently.

A transaction of a database is one event of another type, `dev.cachesvc.transaction.v1`. Its `data`
has several `changes`, which are applied together, and `faults`: reasons why it is a dead letter as
well. `cachesvc cdc` writes it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from cachesvc.changes.contract import OpenChange
from cachesvc.model.change import Change
from cachesvc.telemetry.traces.trace import SpanContext

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Text = Annotated[str, Meta(min_length=1)]
_Timestamp = Annotated[datetime, Meta(tz=True)]


class _Event(Struct, frozen=True, omit_defaults=True):
    id: _Text
    source: _Text
    data: Change
    specversion: Literal["1.0"]
    type: Literal["dev.cachesvc.change.v1"]
    datacontenttype: str | None = None
    helduntil: _Timestamp | None = None
    traceparent: Any = None


class Transaction(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The changes of one transaction: `data` of an event `dev.cachesvc.transaction.v1`."""

    changes: tuple[Change, ...] = ()
    faults: tuple[str, ...] = ()
    """Reasons why more may have changed than `changes` says."""


class _TransactionEvent(Struct, frozen=True, omit_defaults=True):
    id: _Text
    source: _Text
    data: Transaction
    specversion: Literal["1.0"]
    type: Literal["dev.cachesvc.transaction.v1"]
    datacontenttype: str | None = None
    time: _Timestamp | None = None
    traceparent: Any = None


_decoder = msgspec.json.Decoder(_Event)
_transactions = msgspec.json.Decoder(_TransactionEvent)


def encode(change: Change, *, id_: str, source: str, held_until_us: int = 0, traceparent: str = "") -> bytes:
    """Returns the change as an event.

    `held_until_us` 0: the event has no `helduntil`. An empty `traceparent` is left out.
    """
    event = _Event(
        id_,
        source,
        change,
        "1.0",
        "dev.cachesvc.change.v1",
        datacontenttype="application/json",
        helduntil=_datetime(held_until_us) if held_until_us else None,
        traceparent=traceparent or None,
    )
    return msgspec.json.encode(event)


def encode_transaction(
    transaction: Transaction, *, id_: str, source: str, committed_us: int, traceparent: str = ""
) -> bytes:
    """Returns the transaction as an event.

    Its `time` is `committed_us`, µs since the epoch; it has none if that is 0.
    """
    event = _TransactionEvent(
        id_,
        source,
        transaction,
        "1.0",
        "dev.cachesvc.transaction.v1",
        datacontenttype="application/json",
        time=_datetime(committed_us) if committed_us else None,
        traceparent=traceparent or None,
    )
    return msgspec.json.encode(event)


def decode_item(item_id: str, fields: Mapping[bytes, bytes]) -> OpenChange:
    """Returns the change in an item of `changes` that this package wrote.

    `events.EventParser` also reads the items of other producers.
    """
    event = fields.get(b"event")
    return (
        OpenChange(item_id, reason="the item has no field `event`")
        if event is None
        else decode_ours(item_id, event)
    )


def decode_ours(item_id: str, event: bytes) -> OpenChange:
    """Returns what an event of either type of ours says. Never raises.

    One that cannot be read has a reason and no `source`.
    """
    change = decode(item_id, event)
    if not change.reason or change.source:
        return change
    try:
        found = _transactions.decode(event)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return change
    changes, faults = found.data.changes, found.data.faults
    if not (changes or faults):
        return OpenChange(item_id, reason="names no changes", source=found.source)
    return OpenChange(
        item_id, changes, "; ".join(faults), source=found.source, trace=trace_of(found.traceparent)
    )


def decode(item_id: str, event: bytes) -> OpenChange:
    """Returns the change in an event. Never raises.

    An event that cannot be read is an `OpenChange` without changes, with the reason.
    """
    try:
        found = _decoder.decode(event)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return OpenChange(item_id, reason=str(error))
    if not (found.data.keys or found.data.tags or found.data.all):
        return OpenChange(item_id, reason="names no keys, no tags and not `all`", source=found.source)
    held = _microseconds(found.helduntil) if found.helduntil else 0
    return OpenChange(
        item_id, (found.data,), held_until_us=held, source=found.source, trace=trace_of(found.traceparent)
    )


def trace_of(traceparent: object) -> SpanContext | None:
    """Returns the trace of a `traceparent`; None for any other value."""
    return SpanContext.parse(traceparent) if isinstance(traceparent, str) else None


def _datetime(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
