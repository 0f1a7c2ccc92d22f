"""Records that Debezium itself wrote (`tests/peers/record_debezium.py`) are read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cachesvc.changes.contract import OpenChange
from cachesvc.changes.events.event_parser import EventParser
from cachesvc.config.document import read_struct
from cachesvc.config.topology import Namespace
from cachesvc.model.change import Change
from cachesvc.model.units import Duration

RECORDED = Path(__file__).parents[2] / "snapshots" / "debezium"
FORMATS = ("json", "json-schemas", "cloudevents", "cloudevents-schemas")
BOTH_TABLES = ("json", "cloudevents")
KEYS = {"key": "{ws-{workspace_id}}:block:{id}", "tags": ["{ws-{workspace_id}}:page-{page_id?}"]}
READ = EventParser(
    {
        "pages": read_struct({"owner": "web", "sources": [{"source": "public.blocks", **KEYS}]}, Namespace),
        "plain": read_struct({"owner": "web", "sources": [{"source": "public.plain", **KEYS}]}, Namespace),
        "ids": read_struct(
            {"owner": "web", "sources": [{"source": "public.plain", "key": "{id}"}]}, Namespace
        ),
    },
    100,
    Duration.parse("1h"),
)


def extended(record: Mapping[str, Any]) -> dict[bytes, bytes]:
    """The record as the sink writes it in its extended format."""
    return {name.encode(): (record[name] or "default").encode() for name in ("key", "value")}


def compact(record: Mapping[str, Any]) -> dict[bytes, bytes]:
    """The record as the sink writes it in its compact format."""
    return {(record["key"] or "default").encode(): (record["value"] or "default").encode()}


def read(name: str, shape: Any = extended) -> list[tuple[str, OpenChange]]:
    """The records that change something or are dead letters, each with its step."""
    records = json.loads((RECORDED / f"{name}.json").read_text())
    found = [(record["step"], READ("7-0", shape(record))) for record in records]
    return [(step, one) for step, one in found if one.changes or one.reason]


def pages(*places: tuple[int, int], tags: tuple[str, ...] = ()) -> Change:
    return Change("pages", tuple(f"{{ws-{workspace}}}:block:{id_}" for workspace, id_ in places), tags)


@pytest.mark.parametrize("shape", [extended, compact])
@pytest.mark.parametrize("name", FORMATS)
def test_every_change_of_a_row_is_read(name: str, shape: Any) -> None:
    page = ("{ws-7}:page-5",)
    found = [(step, one) for step, one in read(name, shape) if one.changes[0].namespace == "pages"]
    assert [(step, one.changes, one.reason) for step, one in found] == [
        ("create", (pages((7, 42), tags=page),), ""),
        ("update", (pages((7, 42), tags=page),), ""),
        ("move", (pages((7, 42), (8, 42), tags=page),), ""),
        ("another id", (pages((8, 42)),), ""),
        ("another id", (pages((8, 43)),), ""),
        ("delete", (pages((8, 43)),), ""),
        ("truncate", (Change("pages", all=True),), ""),
    ]
    assert {one.source for _, one in found} == {"/debezium/postgresql/shop"}


@pytest.mark.parametrize("name", BOTH_TABLES)
def test_without_the_old_row_what_is_known_is_applied(name: str) -> None:
    """REPLICA IDENTITY DEFAULT: only templates of the primary key alone are enough."""
    found = [(step, one) for step, one in read(name) if one.changes[-1].namespace in ("plain", "ids")]
    ids = [
        [key for change in one.changes if change.namespace == "ids" for key in change.keys]
        for _, one in found
    ]
    assert ids == [["42"], ["42"], ["42"], ["42"], ["43"], ["43"], []]
    unknown = [step for step, one in found if one.reason]
    assert unknown == ["update", "move", "another id", "delete"]
    assert all("the table needs REPLICA IDENTITY FULL" in one.reason for _, one in found if one.reason)
