"""`cachesvc pool add | replace | remove SERVER`: changes a region's memcached servers.

What changes is shown as by `cachesvc topology diff`, then the document is written in one step.
Exit codes: 0 if it is written; 1 if it was not wanted, or must not be rolled out; 2 if an argument
or the document is wrong.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from cachesvc.commands.arguments import add_topology
from cachesvc.commands.pool.edit import PoolEdit, edited
from cachesvc.commands.topology.edits import edit_file
from cachesvc.config.topology import Topology
from cachesvc.model.did_you_mean import did_you_mean
from cachesvc.model.errors import ConfigError


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
    return edit_file(
        options.topology,
        lambda text, before: edited(text, _edit(options, before), str(options.topology)),
        is_wanted=options.yes,
    )


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
