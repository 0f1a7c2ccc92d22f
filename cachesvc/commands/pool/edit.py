"""Changes one memcached server in the text of a topology document, and raises its version.

All other text stays as it is, comments and order too: pieces are put in and taken out at the places
that the YAML parser names. The result is parsed again, and must say exactly what was meant. A text
for which it does not (anchors that stand for several places) is left to people.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import yaml
from msgspec import Struct

from cachesvc.config.document import parse_text
from cachesvc.model.errors import ConfigError

Splice: TypeAlias = tuple[int, int, str]
"""The text from the first place to the second is replaced."""


class PoolEdit(Struct, frozen=True):
    """One server of a region's pool or gutter that is added, replaced or removed."""

    region: str
    field: str
    """`pool` or `gutter`."""
    name: str
    server: Mapping[str, Any] | None
    """The fields of the server that is added, or that are replaced; None: it is removed."""


def edited(text: str, edit: PoolEdit, name: str) -> str:
    """Returns the document with the change. `name` stands in the messages of errors.

    Raises `ConfigError` if the text is no document, or cannot be changed by this function.
    """
    wanted = _meant(parse_text(text, name=name), edit)
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)  # noqa: S101  it was parsed as a document
    try:
        splices = [*_of_version(root, wanted["version"]), *_of_server(text, root, edit)]
        for start, end, piece in sorted(splices, reverse=True):
            text = f"{text[:start]}{piece}{text[end:]}"
        is_meant = parse_text(text, name=name) == wanted
    except (KeyError, ConfigError):
        is_meant = False
    if not is_meant:
        raise ConfigError(name, "is written in a way that this command cannot change: change it by hand")
    return text


def _meant(document: Any, edit: PoolEdit) -> dict[str, Any]:
    """Returns what the document is to say. It has the region."""
    region = document["regions"][edit.region]
    servers = dict(region.get(edit.field) or {})
    if edit.server is None:
        del servers[edit.name]
    else:
        servers[edit.name] = {**servers.get(edit.name, {}), **edit.server}
    regions = {**document["regions"], edit.region: {**region, edit.field: servers}}
    return {**document, "version": document.get("version", 1) + 1, "regions": regions}


def _of_version(root: yaml.MappingNode, version: int) -> list[Splice]:
    pair = _pair(root, "version")
    if pair is None:
        start = root.start_mark.index
        return [(start, start, f"version: {version}\n")]
    return [(*_span(pair[1]), str(version))]


def _of_server(text: str, root: yaml.MappingNode, edit: PoolEdit) -> list[Splice]:
    region = _value(_value(root, "regions"), edit.region)
    pair = _pair(region, edit.field)
    if pair is None or not isinstance(pair[1], yaml.MappingNode):
        assert edit.server is not None  # noqa: S101  what is removed is there
        servers = f"{{{edit.name}: {_flow(edit.server)}}}"
        return [_added(text, region, edit.field, servers)] if pair is None else [(*_span(pair[1]), servers)]
    servers_node = pair[1]
    if edit.server is None:
        return [_removed(text, servers_node, edit.name)]
    if _pair(servers_node, edit.name) is None:
        return [_added(text, servers_node, edit.name, _flow(edit.server))]
    server = _value(servers_node, edit.name)
    return [
        (*_span(found[1]), _plain(value))
        if (found := _pair(server, field)) is not None
        else _added(text, server, field, _plain(value))
        for field, value in edit.server.items()
    ]


def _added(text: str, mapping: yaml.MappingNode, key: str, value: str) -> Splice:
    """Returns the piece that adds a field at the end of a mapping."""
    if not mapping.value:
        inside = mapping.start_mark.index + 1
        return inside, inside, f"{_name(key)}: {value}"
    end = _end(mapping.value[-1][1])
    if mapping.flow_style:
        return end, end, f", {_name(key)}: {value}"
    end_of_line = text.find("\n", end)
    end_of_line = len(text) if end_of_line < 0 else end_of_line
    indent = " " * mapping.value[0][0].start_mark.column
    return end_of_line, end_of_line, f"\n{indent}{_name(key)}: {value}"


def _removed(text: str, mapping: yaml.MappingNode, key: str) -> Splice:
    """Returns the piece that takes a field out of a mapping."""
    keys = [node.value for node, _ in mapping.value]
    place = keys.index(key)
    start, end = mapping.value[place][0].start_mark.index, _end(mapping.value[place][1])
    if mapping.flow_style:
        if place + 1 < len(keys):
            return start, mapping.value[place + 1][0].start_mark.index, ""
        return (_end(mapping.value[place - 1][1]) if place else start), end, ""
    if len(keys) == 1:
        return start, end, "{}"
    end_of_line = text.find("\n", end)
    return text.rfind("\n", 0, start) + 1, len(text) if end_of_line < 0 else end_of_line + 1, ""


def _pair(mapping: yaml.Node, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    pairs = mapping.value if isinstance(mapping, yaml.MappingNode) else ()
    return next((pair for pair in pairs if pair[0].value == key), None)


def _value(mapping: yaml.Node, key: str) -> yaml.MappingNode:
    """Returns the mapping that is the field's value. Raises `KeyError`."""
    pair = _pair(mapping, key)
    if pair is None or not isinstance(pair[1], yaml.MappingNode):
        raise KeyError(key)
    return pair[1]


def _span(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.index, _end(node)


def _end(node: yaml.Node) -> int:
    """Returns the place behind the last character of a node.

    That of a block is where the next one begins, to the parser, comments between them included.
    """
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    index: int = node.end_mark.index
    return index


def _flow(server: Mapping[str, Any]) -> str:
    return f"{{{', '.join(f'{field}: {_plain(value)}' for field, value in server.items())}}}"


def _plain(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _name(key: str) -> str:
    return key if yaml.safe_load(key) == key else _plain(key)
