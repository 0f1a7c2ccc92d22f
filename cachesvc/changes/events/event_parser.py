"""The changes in an item of `changes`, whichever producer wrote it.

    field `event`                           a CloudEvent of ours (cloudevents.py), or a row change
    fields `key` and `value`, or one field  a record of Debezium Server's Redis sink (debezium.py)
    named like a record's key

The content of a value tells what it is: a CloudEvent of ours in `value` is read as one in `event`
(rows of an outbox table are such).

    a dead letter, because                              and yet applied
    not JSON, no CloudEvent, of an unknown type;        nothing
    names nothing; an unknown field in `data`; a
    bad `over`; more keys and tags than a call may have
    a key or tag is out of rule                         the others: no copies are under that one
    this instance does not know the namespace           all of it: another instance may know it
    not all keys of the old row are known               those that are (rows.py)

An item that names nothing and has nothing wrong is skipped: rows of a snapshot, tombstones,
heartbeats, tables that no namespace names. An event's `time` decides nothing: a fence has the time
of the cell that issues it.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from cachesvc.changes.contract import OpenChange, position_of
from cachesvc.changes.events import cloudevents, debezium
from cachesvc.changes.events.rows import RowMapping
from cachesvc.config.topology import Namespace
from cachesvc.config.topology_rules import NAMESPACE_NAME
from cachesvc.model.cache_groups import check_tag
from cachesvc.model.change import Change
from cachesvc.model.did_you_mean import there_is
from cachesvc.model.key_text import check_key
from cachesvc.model.units import Duration

LONGEST_HOLD_US = 60_000_000
"""A hold that ends later than this after its item came is ignored. An invalidate call
holds its change for seconds; a longer hold would only hold up `complete_to`."""
SHOWN_FAULTS = 3
"""Faults of one event that its reason names. The event stands beside the reason, so nobody
needs the other nine hundred."""


class EventParser:
    """Parses the items of `changes`, under one topology.

    Never raises: a fault of an item is its `reason`.
    """

    def __init__(
        self, namespaces: Mapping[str, Namespace], max_batch_keys: int, longest_over: Duration
    ) -> None:
        """Makes a parser for these namespaces.

        A paced fence (`over`) longer than `longest_over` is refused, because it would not be kept so long.
        """
        self._namespaces = namespaces
        self._max_batch_keys = max_batch_keys
        self._longest_over = longest_over
        self._rows = RowMapping(namespaces)

    def take(self, namespaces: Mapping[str, Namespace]) -> None:
        """Parses with these namespaces, and with their `sources`, from now on."""
        self._namespaces = namespaces
        self._rows = RowMapping(namespaces)

    def __repr__(self) -> str:
        return f"<EventParser [{len(self._namespaces)} namespaces] {self._rows!r}>"

    def __call__(self, item_id: str, fields: Mapping[bytes, bytes]) -> OpenChange:
        if (event := fields.get(b"event")) is not None:
            return self._checked(self._read(item_id, event))
        if (record := debezium.value_and_key(fields)) is None:
            return OpenChange(
                item_id, reason="the item has no field `event`, and no `key` and `value` of Debezium's"
            )
        value, key = record
        return (
            OpenChange(item_id)
            if value in debezium.TOMBSTONES
            else self._checked(self._read(item_id, value, key))
        )

    def _read(self, item_id: str, value: bytes, key: bytes = b"") -> OpenChange:
        ours = cloudevents.decode_ours(item_id, value)
        if not ours.reason or ours.source:
            return (
                ours
                if ours.held_until_us <= position_of(item_id)[0] * 1000 + LONGEST_HOLD_US
                else replace(ours, held_until_us=0)
            )
        try:
            document = msgspec.json.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return replace(ours, reason=f"not JSON: {error}")
        if isinstance(document, dict) and "specversion" in document and not debezium.is_data_change(document):
            return ours
        return self._read_row(item_id, document, key)

    def _read_row(self, item_id: str, document: object, key: bytes) -> OpenChange:
        try:
            row = debezium.row_change(document, key)
        except debezium.UnreadableError as error:
            return OpenChange(item_id, reason=str(error))
        if row is None:
            return OpenChange(item_id)
        concerned = self._rows.concerned(row)
        return OpenChange(
            item_id, concerned.changes, _reason(concerned.faults), source=row.source, trace=row.trace
        )

    def _checked(self, found: OpenChange) -> OpenChange:
        faults = [found.reason] if found.reason else []
        changes = []
        for change in found.changes:
            sound, wrong = checked(change, self._max_batch_keys, self._longest_over)
            faults += wrong
            if sound is not None:
                changes.append(sound)
                faults += self._unknown(sound.namespace)
        return replace(found, changes=tuple(changes), reason=_reason(faults)) if faults else found

    def _unknown(self, namespace: str) -> list[str]:
        if namespace in self._namespaces:
            return []
        return [f"no namespace {namespace!r}{there_is(self._namespaces)}"]


def checked(change: Change, max_batch_keys: int, longest_over: Duration) -> tuple[Change | None, list[str]]:
    """Returns the part of a change that can be applied, and the faults of the rest.

    The rules are those of the API. Whether the namespace exists is not checked.
    """
    if fault := _fault(change, max_batch_keys) or _over_fault(change, longest_over):
        return None, [fault]
    keys, wrong_keys = _within(_check_key, change.keys)
    tags, wrong_tags = _within(check_tag, change.tags)
    if not (wrong_keys or wrong_tags):
        return change, []
    sound = replace(change, keys=keys, tags=tags) if keys or tags or change.all else None
    return sound, wrong_keys + wrong_tags


def _fault(change: Change, max_batch_keys: int) -> str:
    """Returns why nothing of the change can be applied; empty if something can."""
    if not NAMESPACE_NAME.fullmatch(change.namespace):
        return f"{change.namespace[:80]!r} is no namespace name: it must match {NAMESPACE_NAME.pattern}"
    if (count := len(change.keys) + len(change.tags)) > max_batch_keys:
        return f"{count} keys and tags, at most {max_batch_keys} in one event: send several"
    if not (count or change.all):
        return "names no keys, no tags and not `all`"
    return ""


def _over_fault(change: Change, longest: Duration) -> str:
    try:
        over = change.over_us
    except (ValueError, OverflowError) as error:
        return f"over: {str(error)[:200]}"
    return (
        f"over: {change.over} is not above 0 and at most {longest.seconds:g}s"
        if change.over and not 0 < over <= longest
        else ""
    )


def _within(check: Callable[[str, int], str], texts: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    sound, wrong = [], []
    for index, text in enumerate(texts):
        try:
            sound.append(check(text, index))
        except ValueError as error:
            wrong.append(str(error))
    return tuple(sound), wrong


def _check_key(text: str, index: int) -> str:
    try:
        return check_key(text)
    except ValueError as error:
        raise ValueError(f"key {index}: {error}") from None


def _reason(faults: Sequence[str]) -> str:
    more = len(faults) - SHOWN_FAULTS
    return "; ".join([*faults[:SHOWN_FAULTS], f"and {more} more"] if more > 0 else faults)
