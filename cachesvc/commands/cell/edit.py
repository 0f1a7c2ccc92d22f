"""The next topology document of a move: its homes, its `former`, and its text.

`former` says where partitions were. It is written here and nowhere by hand: with the cells that
were active, the pins and the prefixes of the document before, and the time.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import yaml

from cachesvc.config.topology import Topology
from cachesvc.model.errors import ConfigError

Document = dict[str, Any]
"""A topology document as plain values, as YAML has them."""


def added(document: Document, name: str, fields: Mapping[str, Any]) -> Document:
    """Returns the document with one more cell."""
    return {**document, "cells": {**document["cells"], name: dict(fields)}}


def drained(document: Document, name: str) -> Document:
    """Returns the document with a cell that no partition has its home in; its pins go."""
    cell = {**document["cells"][name], "active": False}
    pins = {what: where for what, where in (document.get("pins") or {}).items() if where != name}
    return _with_pins({**document, "cells": {**document["cells"], name: cell}}, pins)


def moved(document: Document, partition: str, name: str) -> Document:
    """Returns the document with a partition that is pinned to a cell."""
    return _with_pins(document, {**(document.get("pins") or {}), partition: name})


def settled(document: Document, topology: Topology) -> Document:
    """Returns the document without `former`, and without the cells that only `former` needs."""
    before = topology.former.cells if topology.former is not None else {}
    pinned = set(topology.pins.values()) | set(topology.former.pins.values() if topology.former else ())
    gone = {
        name
        for name, cell in topology.cells.items()
        if not cell.active and name not in topology.pins.values() and (name in before or name in pinned)
    }
    cells = {name: fields for name, fields in document["cells"].items() if name not in gone}
    return {**{name: part for name, part in document.items() if name != "former"}, "cells": cells}


def former_of(topology: Topology, now: datetime) -> Document:
    """Returns what `former` is to say of the places that partitions have now."""
    found: Document = {"cells": {name: cell.weight for name, cell in topology.cells.items() if cell.active}}
    if topology.pins:
        found["pins"] = dict(topology.pins)
    if prefixes := {name: list(one.partitions) for name, one in topology.regions.items() if one.partitions}:
        found["partitions"] = prefixes
    return {**found, "since": now.astimezone(UTC).replace(microsecond=0)}


def rewritten(text: str, before: Document, after: Document, name: str) -> str:
    """Returns the text of `before` with the sections that differ in `after`; all others stay.

    Comments in a section that differs are lost. Raises `ConfigError`, which names the document, if the
    text is written in a way that does not allow this.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    pieces = []
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if before.get(key.value) != after.get(key.value) or key.value not in after:
            piece = _section(key.value, after[key.value]) if key.value in after else ""
            pieces.append((key.start_mark.index, _end(value), piece))
    new = text
    for start, end, piece in reversed(pieces):
        end_of_line = new.find("\n", end) + 1 or len(new)
        new = new[:start] + piece + new[end_of_line:]
    for section in [section for section in after if section not in before]:
        new = f"{new.rstrip()}\n{_section(section, after[section])}"
    try:
        is_meant = yaml.safe_load(new) == after
    except yaml.YAMLError:
        is_meant = False
    if not is_meant:
        raise ConfigError(name, "is written in a way that this command cannot change: change it by hand")
    return new


def _with_pins(document: Document, pins: Document) -> Document:
    rest = {name: part for name, part in document.items() if name != "pins"}
    return {**rest, "pins": pins} if pins else rest


def _section(name: str, value: Any) -> str:
    """Returns the lines of one section, with a line for each of its fields."""
    text: str = yaml.safe_dump(
        {name: value},
        default_flow_style=None if isinstance(value, dict) else False,
        sort_keys=False,
        allow_unicode=True,
        width=100_000,
    )
    return text.replace("+00:00", "Z") if name == "former" else text


def _end(node: yaml.Node) -> int:
    """Returns the place behind the last character of a node.

    The parser's end of a block is where the next one begins, comments between them included.
    """
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    index: int = node.end_mark.index
    return index
