"""The document of `serve --namespaces`: contracts alone, for embedded servers.

    namespaces:
      pages:
        owner: web
        origin: {url: "http://127.0.0.1:9000/pages/{key}"}

It is the part `namespaces` of a topology document, word for word. The regions, cells and servers
are those of the embedded set-up.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.config.document import parse, parse_text, read_struct
from cachesvc.config.mistakes import Mistakes
from cachesvc.config.topology import Namespace, Topology
from cachesvc.config.topology_rules import check_namespaces
from cachesvc.model.errors import ConfigError


class Namespaces(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole document."""

    namespaces: dict[str, Namespace]


def read_namespaces(path: Path, found: Mistakes) -> Mapping[str, Namespace]:
    """Returns the contracts at `path`, as far as they can be read; notes mistakes."""
    try:
        return _checked(parse(path, found), found)
    except ConfigError as error:
        found.note_all("$", error)
        return {}


def with_namespaces(servers: Topology) -> Callable[[str, str], Topology]:
    """Returns a reader of such a document: text and name → the contracts on these servers.

    It raises `ConfigError` with every mistake.
    """

    def read(text: str, name: str) -> Topology:
        found = Mistakes()
        namespaces = _checked(parse_text(text, name=name, found=found), found)
        found.end()
        return replace(servers, namespaces=dict(namespaces))

    return read


def _checked(document: Any, found: Mistakes) -> Mapping[str, Namespace]:
    if isinstance(document, dict):
        beside = [name for name in Topology.__struct_fields__ if name in document and name != "namespaces"]
        for name in beside:
            found.note(
                f"$.{name}",
                "belongs to a topology document: give the file with --topology and not --namespaces, or leave"
                " this out and run on embedded servers",
            )
        document = {name: value for name, value in document.items() if name not in beside}
    namespaces = read_struct(document, Namespaces, found=found).namespaces
    check_namespaces(namespaces, found)
    return namespaces
