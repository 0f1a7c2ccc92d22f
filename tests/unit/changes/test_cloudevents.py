"""The event as this package writes it. What it makes of others' is in test_events.py."""

import json

import pytest

from cachesvc.changes.contract import OpenChange
from cachesvc.changes.events.cloudevents import decode, decode_item, encode
from cachesvc.model.change import Change
from cachesvc.telemetry.traces.trace import SpanContext

CHANGE = Change("pages", ("{ws-7}:a", "\u2028"), ("t",), soft=True, over="5m")


def test_an_event_on_the_wire() -> None:
    """Read by every release: a change here needs a new type, `dev.cachesvc.change.v2`."""
    assert json.loads(
        encode(CHANGE, id_="1", source="/cachesvc/eu", held_until_us=1_700_000_000_000_001)
    ) == {
        "specversion": "1.0",
        "type": "dev.cachesvc.change.v1",
        "id": "1",
        "source": "/cachesvc/eu",
        "datacontenttype": "application/json",
        "helduntil": "2023-11-14T22:13:20.000001Z",
        "data": {
            "namespace": "pages",
            "keys": ["{ws-7}:a", "\u2028"],
            "tags": ["t"],
            "all": False,
            "soft": True,
            "over": "5m",
        },
    }


@pytest.mark.parametrize("change", [CHANGE, Change("docs", all=True)])
@pytest.mark.parametrize("held_until_us", [0, 1_700_000_000_000_001])
def test_what_was_written_is_read(change: Change, held_until_us: int) -> None:
    event = encode(change, id_="1", source="/s", held_until_us=held_until_us)
    assert decode("7-0", event) == OpenChange("7-0", (change,), held_until_us=held_until_us, source="/s")
    assert decode_item("7-0", {b"event": event}) == decode("7-0", event)


def test_an_event_names_the_trace_it_was_made_in() -> None:
    context = SpanContext(1, 2, False)
    event = encode(CHANGE, id_="1", source="/s", traceparent=str(context))
    assert json.loads(event)["traceparent"] == "00-00000000000000000000000000000001-0000000000000002-00"
    assert decode("7-0", event) == OpenChange("7-0", (CHANGE,), source="/s", trace=context)


def test_an_item_without_an_event_is_a_dead_letter() -> None:
    assert decode_item("7-0", {b"evnt": b"{}"}) == OpenChange("7-0", reason="the item has no field `event`")


def test_a_time_without_its_zone_is_no_time() -> None:
    event = encode(CHANGE, id_="1", source="/s", held_until_us=1).replace(b'Z"', b'"')
    assert decode("7-0", event).reason == "Expected `datetime` with a timezone component - at `$.helduntil`"
