"""Events on `changes` are applied, skipped, or buried as dead letters with a reason."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.changes.contract import OpenChange
from cachesvc.changes.events.cloudevents import encode
from cachesvc.changes.events.event_parser import EventParser
from cachesvc.config.document import read_struct
from cachesvc.config.topology import Namespace
from cachesvc.model.change import Change
from cachesvc.model.units import Duration

HOUR = Duration.parse("1h")
NAMESPACES = {
    "pages": read_struct(
        {
            "owner": "web",
            "sources": [
                {
                    "source": "public.blocks",
                    "key": "{ws-{workspace_id}}:block:{id}",
                    "tags": ["page-{page_id?}"],
                }
            ],
        },
        Namespace,
    ),
    "search": read_struct(
        {"owner": "search", "sources": [{"source": "public.blocks", "tags": ["ws-{workspace_id}"]}]},
        Namespace,
    ),
}
read = EventParser(NAMESPACES, max_batch_keys=3, longest_over=HOUR)


def event(**changed: Any) -> dict[str, Any]:
    """A sound event with something else in it; `...` takes an attribute away."""
    data = {"namespace": "pages", "keys": ["a"]}
    sound = {
        "specversion": "1.0",
        "id": "1",
        "source": "/shop",
        "type": "dev.cachesvc.change.v1",
        "data": data,
    }
    return {name: value for name, value in {**sound, **changed}.items() if value is not ...}


def read_event(document: object) -> OpenChange:
    return read("7-0", {b"event": json.dumps(document).encode()})


def test_a_sound_event_is_its_change_and_who_said_it() -> None:
    data = {"namespace": "pages", "keys": ["{ws-7}:a"], "tags": ["t"], "soft": True, "over": "5m"}
    change = Change("pages", ("{ws-7}:a",), ("t",), soft=True, over="5m")
    assert read_event(event(data=data)) == OpenChange("7-0", (change,), source="/shop")


@pytest.mark.parametrize(
    ("until_us", "held_until_us"),
    [
        (1_700_000_000_000_000, 1_700_000_000_000_000),
        (1_700_000_060_000_000, 1_700_000_060_000_000),
        (1_700_000_060_000_001, 0),
    ],
    ids=["at once", "a minute", "longer than any call lasts"],
)
def test_what_the_api_appends_is_held_for_it_but_not_for_ever(until_us: int, held_until_us: int) -> None:
    change = Change("search", all=True)
    written = encode(change, id_="1", source="/cachesvc/eu", held_until_us=until_us)
    found = read("1700000000000-0", {b"event": written})
    assert found == OpenChange(
        "1700000000000-0", (change,), held_until_us=held_until_us, source="/cachesvc/eu"
    )


@pytest.mark.parametrize(
    "other",
    [
        {"time": "2999-01-01T00:00:00Z"},
        {"time": "yesterday"},
        {
            "datacontenttype": "application/json",
            "subject": "x",
            "traceparent": "00-0-0-00",
            "dataschema": "urn:x",
        },
    ],
    ids=["a time in the future", "no time at all", "other attributes"],
)
def test_attributes_that_decide_nothing_are_taken(other: dict[str, Any]) -> None:
    assert read_event(event(**other)).changes == (Change("pages", ("a",)),)


def data(**fields: Any) -> dict[str, Any]:
    return event(data={"namespace": "pages", **fields})


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (event(specversion="0.3"), "Invalid enum value '0.3' - at `$.specversion`"),
        (event(specversion=...), "neither a CloudEvent (no `specversion`) nor a Debezium envelope"),
        (event(id=...), "Object missing required field `id`"),
        (event(source=""), "Expected `str` of length >= 1 - at `$.source`"),
        (event(type="com.shop.order.v1"), "Invalid enum value 'com.shop.order.v1' - at `$.type`"),
        (event(data=...), "Object missing required field `data`"),
        (event(data="a"), "Expected `object`, got `str` - at `$.data`"),
        (data(), "names no keys, no tags and not `all`"),
        (data(keys=[]), "names no keys, no tags and not `all`"),
        (data(kyes=["a"]), "Object contains unknown field `kyes` - at `$.data`"),
        (data(keys="a"), "Expected `array`, got `str` - at `$.data.keys`"),
        (data(keys=["a"], over="5min"), "over: '5min' is not a duration"),
        (data(keys=["a"], over="61m"), "over: 61m is not above 0 and at most 3600s"),
        (data(keys=["a"], over="0s"), "over: 0s is not above 0 and at most 3600s"),
        (data(keys=["a"], over=f"{'9' * 400}d"), "over: "),
        (data(keys=["a", "b"], tags=["c", "d"]), "4 keys and tags, at most 3 in one event: send several"),
        (event(data={"namespace": "pages/x", "all": True}), "'pages/x' is no namespace name: it must match"),
        ("a", "neither a CloudEvent nor a Debezium envelope: not an object"),
        ([event()], "neither a CloudEvent nor a Debezium envelope: not an object"),
        ({}, "neither a CloudEvent (no `specversion`) nor a Debezium envelope (no `op` and `source`)"),
    ],
)
def test_a_bad_event_is_a_dead_letter_of_which_nothing_is_applied(document: object, reason: str) -> None:
    found = read_event(document)
    assert found.changes == ()
    assert found.reason.startswith(reason)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "the item has no field `event`, and no `key` and `value` of Debezium's"),
        ({b"evnt": b"{}"}, "the item has no field `event`"),
        ({b"event": b""}, "not JSON: Input data was truncated"),
        ({b"event": b"{"}, "not JSON: "),
        ({b"event": b"\xff"}, "not JSON: "),
        ({b"event": b"[" * 100_000}, "not JSON: "),
        ({b"value": b"[" * 100_000}, "not JSON: "),
    ],
)
def test_an_item_that_is_no_event_is_a_dead_letter(fields: Mapping[bytes, bytes], reason: str) -> None:
    assert read("7-0", fields).reason.startswith(reason)


def test_a_namespace_that_is_unknown_here_is_applied_all_the_same() -> None:
    found = read_event(event(data={"namespace": "page", "keys": ["a"]}))
    assert found.changes == (Change("page", ("a",)),)
    assert found.reason == "no namespace 'page' (there is pages, search)"


def test_keys_and_tags_out_of_rule_are_named_and_the_others_applied() -> None:
    found = read_event(data(keys=["a", "b\n"], tags=["é"]))
    assert found.changes == (Change("pages", ("a",)),)
    assert found.reason == (
        "key 1: a key has no control characters: U+000A is one; tag 0: a tag has 1 to 256 printable ASCII characters"
    )
    assert read_event(data(keys=["", "x" * 1025])).changes == ()


def test_a_reason_stays_short() -> None:
    reader = EventParser(NAMESPACES, max_batch_keys=1000, longest_over=HOUR)
    found = reader("7-0", {b"event": json.dumps(data(keys=[""] * 1000)).encode()})
    assert found.reason.endswith("; and 997 more")


def test_an_event_in_an_outbox_row_is_read_like_any_other() -> None:
    assert read("7-0", {b"key": b"1", b"value": json.dumps(event()).encode(), b"ID": b"9"}).changes == (
        Change("pages", ("a",)),
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
names = [
    "op",
    "source",
    "before",
    "after",
    "payload",
    "schema",
    "specversion",
    "type",
    "data",
    "id",
    "key",
    "iodebeziumop",
    "ts_ms",
]
shapes = st.dictionaries(
    st.sampled_from(names), json_values | st.sampled_from(["c", "u", "d", "io.debezium.x.datachangeevent"])
)
row_events = st.fixed_dictionaries(
    {"op": st.sampled_from("cudrtm"), "source": st.just({"schema": "public", "table": "blocks"})},
    optional={
        name: st.none() | st.dictionaries(st.sampled_from(["id", "workspace_id", "page_id"]), json_values)
        for name in ("before", "after")
    },
)


@given(
    st.dictionaries(
        st.sampled_from([b"event", b"key", b"value", b"default", b'{"id":1}']),
        st.binary(max_size=20)
        | (json_values | shapes | row_events).map(lambda value: json.dumps(value).encode()),
        max_size=3,
    )
)
def test_whatever_stands_on_the_stream_it_is_read_without_raising_and_only_sound_targets_come_out(
    fields: dict[bytes, bytes],
) -> None:
    found = read("7-0", fields)
    for change in found.changes:
        assert change.targets()
        assert all(0 < len(key.encode()) <= 1024 for key in change.keys)
        assert all(tag.isascii() and tag.isprintable() for tag in change.tags)
