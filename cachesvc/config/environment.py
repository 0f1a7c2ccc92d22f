"""Settings from the environment: `CACHESVC_SERVER_PORT=9000` overrides `server.port` of the service document.

A variable's name is the field's path in capitals. A name with the prefix that is neither a field nor in `NOT_SETTINGS` is
refused: a misspelt override that is silently ignored is found in an incident.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from cachesvc.config.document import as_mapping, read_leaf
from cachesvc.model.did_you_mean import did_you_mean
from cachesvc.model.errors import ConfigError

PREFIX = "CACHESVC_"

NOT_SETTINGS = {
    "CACHESVC_ENV": "`production` refuses the embedded servers; any other value says nothing",
    "CACHESVC_CONFIG": "path of the service document, when `--config` is not given",
    "CACHESVC_TOPOLOGY": "path of the topology document, when `--topology` is not given",
    "CACHESVC_RUN_DIR": "directory for the sockets and pid files of embedded servers",
}
"""Every other variable that cachesvc reads, and what it is for."""


def overridden(document: Any, kind: type[msgspec.Struct], environ: Mapping[str, str]) -> dict[str, Any]:
    """The document with the environment's settings in place of its own. Raises `ConfigError` with the variable's name."""
    fields = dict(settings(kind))
    merged = dict(as_mapping(document, "$"))
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        if name not in fields:
            raise ConfigError(name, f"no such setting{did_you_mean(name, [*fields, *NOT_SETTINGS])}")
        path, leaf_kind = fields[name]
        _put(merged, path, read_leaf(environ[name], leaf_kind, name, strict=False))
    return merged


def settings(
    kind: type[msgspec.Struct], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, tuple[tuple[str, ...], Any]]]:
    """Every field of the document that is not itself a section: variable name, path, type."""
    for field in msgspec.structs.fields(kind):
        here = (*path, field.encode_name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from settings(field.type, here)
        else:
            yield PREFIX + "_".join(here).upper(), (here, field.type)


def _put(document: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *sections, leaf = path
    here = "$"
    for section in sections:
        here = f"{here}.{section}"
        document[section] = dict(as_mapping(document.get(section), here))
        document = document[section]
    document[leaf] = value
