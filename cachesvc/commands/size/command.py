"""`cachesvc size`: memory, connections and network of every server, from rates.

Exit codes: 0 if it is computed; 2 if the command line or a document is wrong.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from cachesvc.commands.arguments import add_topology, path_in
from cachesvc.commands.size.load import EXAMPLE, load_of
from cachesvc.commands.size.needs import Need, needs_of
from cachesvc.commands.top.units import size
from cachesvc.config.service import load_service, load_topology
from cachesvc.model.errors import ConfigError

WIDTH = 140
"""Columns of output to a pipe or a file."""
ROOM = 1.25
"""The memory to give a server, by what it needs.

The rest is gaps between allocations, and pages that are copied at a save."""


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    parser.add_argument(
        "load", type=Path, nargs="?", metavar="LOAD", help="The load document: see `--example`."
    )
    parser.add_argument("--example", action="store_true", help="Prints a load document to begin with.")
    add_topology(parser, environ, "It names the servers.")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=path_in(environ, "CACHESVC_CONFIG"),
        help="The service document of the instances. Default: the file that CACHESVC_CONFIG names.",
    )
    parser.add_argument("--json", action="store_true", help="Prints the needs in JSON, with all their parts.")


def run(options: argparse.Namespace) -> int:
    """Prints the needs and returns the exit code. Raises `ConfigError`."""
    if options.example:
        sys.stdout.write(EXAMPLE)
        return 0
    if options.load is None or options.topology is None:
        missing = "the load document (`cachesvc size --example` prints one)"
        raise ConfigError(missing if options.load is None else "--topology FILE", "must be given")
    topology = load_topology(options.topology)
    service = load_service(options.config, {})
    needs = list(needs_of(topology, service, load_of(options.load, topology)))
    if options.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(needs)).decode() + "\n")
    else:
        _print(needs)
    return 0


def _print(needs: Sequence[Need]) -> None:
    table = Table(box=None, pad_edge=False, header_style="")
    for head in ("server", "memory", "give it", "of which", "connections", "received/s", "sent/s"):
        table.add_column(head, no_wrap=head != "of which", justify="left")
    for need in needs:
        parts = sorted(need.memory.items(), key=lambda part: -part[1])
        table.add_row(
            f"{need.kind} {need.name}",
            size(need.bytes),
            size(need.bytes * ROOM),
            ", ".join(f"{what} {size(part)}" for what, part in parts if part >= need.bytes / 100),
            str(need.connections),
            size(need.network.received) if need.kind != "instance" else "",
            size(need.network.sent) if need.kind != "instance" else "",
        )
    Console(width=None if os.isatty(1) else WIDTH).print(table)
