"""`cachesvc pool add | replace | remove SERVER`: changes a region's memcached servers.

What changes is shown as by `cachesvc topology diff`, then the document is written in one step.
Exit codes: 0 if it is written; 1 if it was not wanted, or must not be rolled out; 2 if an argument
or the document is wrong.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cachesvc.commands.arguments import add_topology, fail
from cachesvc.commands.pool.edit import PoolEdit, edited
from cachesvc.commands.topology.difference import Difference, difference
from cachesvc.commands.topology.page import page
from cachesvc.config.service import load_topology
from cachesvc.config.topology import Topology
from cachesvc.model.did_you_mean import did_you_mean
from cachesvc.model.errors import ConfigError

WRITTEN, NOT_WRITTEN = 0, 1


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    parser.add_argument(
        "what",
        choices=("add", "replace", "remove"),
        help="`replace` keeps the name, and so the keys; instances read those of the old server for a while.",
    )
    parser.add_argument("server", metavar="SERVER", help="The server's name.")
    parser.add_argument(
        "address", nargs="?", default="", metavar="ADDRESS", help="Where the server is; not with `remove`."
    )
    add_topology(parser, environ, "It is changed and written.")
    parser.add_argument("--region", default="", help="The server's region. Needed if there are several.")
    parser.add_argument("--gutter", action="store_true", help="The server is one of the gutter.")
    parser.add_argument("--weight", type=float, help="Its share of the keys, relative to the others.")
    parser.add_argument("--zone", help="The zone that it is in.")
    parser.add_argument("--yes", action="store_true", help="Does not ask.")


def run(options: argparse.Namespace) -> int:
    """Changes the document and returns the exit code. Raises `ConfigError` and `OSError`."""
    if options.topology is None:
        raise ConfigError("--topology", "is missing: name the topology document")
    path = options.topology.resolve()  # a link stays one
    before = load_topology(path)
    text = path.read_text(encoding="utf-8")
    changed = edited(text, _edit(options, before), str(options.topology))
    draft = _written_beside(path, changed)
    try:
        found = difference(before, load_topology(draft))
        print(page(found).strip("\n"))
        if found.refused:
            return NOT_WRITTEN
        if not (options.yes or _is_wanted(found)):
            return fail(NOT_WRITTEN, "nothing was changed")
        if path.read_text(encoding="utf-8") != text:
            return fail(NOT_WRITTEN, f"{options.topology} has been changed meanwhile: ask again")
        draft.replace(path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
    print(f"\n{options.topology} is version {found.version[1]} now")
    return WRITTEN


def _edit(options: argparse.Namespace, topology: Topology) -> PoolEdit:
    """Returns the change that the arguments name. Raises `ConfigError`."""
    region = options.region or (next(iter(topology.regions)) if len(topology.regions) == 1 else "")
    if not region:
        raise ConfigError("--region", f"is missing: one of {', '.join(topology.regions)}")
    if region not in topology.regions:
        raise ConfigError("--region", f"no region {region!r}{did_you_mean(region, topology.regions)}")
    field = "gutter" if options.gutter else "pool"
    here = topology.regions[region]
    servers = here.gutter if options.gutter else here.pool
    is_there = options.server in servers
    if options.what == "add" and is_there:
        raise ConfigError(
            "SERVER", f"{options.server} is in the {field} already: replace it, or name another"
        )
    if options.what != "add" and not is_there:
        raise ConfigError(
            "SERVER", f"no {options.server!r} in the {field}{did_you_mean(options.server, servers)}"
        )
    if options.what == "remove":
        if options.address:
            raise ConfigError("ADDRESS", "is not taken by `remove`: the name is enough")
        return PoolEdit(region, field, options.server, None)
    if not options.address:
        raise ConfigError("ADDRESS", "is missing: say where the server is, as host:port")
    given: dict[str, Any] = {"weight": options.weight, "zone": options.zone}
    fields = {name: value for name, value in given.items() if value is not None}
    return PoolEdit(region, field, options.server, {"address": options.address, **fields})


def _written_beside(path: Path, text: str) -> Path:
    """Writes the text to a file beside `path`, with the same rights; returns its path."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=path.suffix)
    with open(number, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
        os.fsync(file.fileno())
    return Path(name)


def _is_wanted(found: Difference) -> bool:
    """Asks on the terminal; without one, nothing is wanted."""
    if not sys.stdin.isatty():
        print("\nno terminal to ask: write --yes")
        return False
    return input(f"\nwrite version {found.version[1]}? [y/N] ").strip().lower() in ("y", "yes")
