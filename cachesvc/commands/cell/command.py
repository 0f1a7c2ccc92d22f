"""`cachesvc cell add | drain | move | settle`: writes the next document of a move.

    add NAME URL       a cell comes, and takes its share of the partitions
    drain NAME         all partitions leave a cell
    move PARTITION NAME  one partition goes to a cell, and stays there
    settle             the move is over: `former` goes, and the cells that nothing is left in

What changes is shown as by `cachesvc topology diff`, then the document is written in one step.
"""

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime

import yaml

from cachesvc.commands.arguments import add_topology, duration
from cachesvc.commands.cell.edit import Document, added, drained, former_of, moved, rewritten, settled
from cachesvc.commands.topology.edits import edit_file
from cachesvc.config.service import L3, topology_of
from cachesvc.config.topology import Topology
from cachesvc.model.did_you_mean import did_you_mean
from cachesvc.model.errors import ConfigError
from cachesvc.model.units import Duration
from cachesvc.tiers.l3.placement import Placement

KEPT = L3().retention
"""How long a move takes by default."""


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    what = parser.add_subparsers(dest="what", required=True, metavar="what")
    add = what.add_parser("add", help="Adds a cell, which takes its share of the partitions.")
    add.add_argument("cell", metavar="NAME", help="The name of the cell.")
    add.add_argument("url", metavar="URL", help="The address of its Redis.")
    add.add_argument("--region", default="", help="The cell's region. Needed if there are several.")
    add.add_argument("--weight", type=float, help="Its share, relative to the other cells.")
    drain = what.add_parser("drain", help="Has all partitions leave a cell.")
    drain.add_argument("cell", metavar="NAME", help="The cell.")
    move = what.add_parser("move", help="Moves one partition to a cell, and pins it there.")
    move.add_argument("partition", metavar="PARTITION", help="The partition, without its braces.")
    move.add_argument("cell", metavar="NAME", help="The cell.")
    settle = what.add_parser("settle", help="Ends a move: writes the document without `former`.")
    settle.add_argument(
        "--after",
        type=duration,
        default=KEPT,
        metavar="TIME",
        help="How long a move takes: `l3.retention` of the instances. Default: 1h.",
    )
    for one in (add, drain, move, settle):
        add_topology(one, environ, "It is changed and written.")
        one.add_argument("--yes", action="store_true", help="Does not ask.")


def run(options: argparse.Namespace) -> int:
    """Changes the document and returns the exit code. Raises `ConfigError` and `OSError`."""
    return edit_file(
        options.topology, lambda text, before: _changed(options, text, before), is_wanted=options.yes
    )


def _changed(options: argparse.Namespace, text: str, before: Topology) -> str:
    """Returns the text of the next document, with `former` if homes change.

    Raises `ConfigError`.
    """
    name, document, now = str(options.topology), yaml.safe_load(text), datetime.now(UTC)
    after = {**_next(options, document, before, now), "version": before.version + 1}
    changed = rewritten(text, document, after, name)
    if options.what != "settle" and Placement(topology_of(changed, name)).id != Placement(before).id:
        after["former"] = former_of(before, now)
        changed = rewritten(text, document, after, name)
    return changed


def _next(options: argparse.Namespace, document: Document, topology: Topology, now: datetime) -> Document:
    """Returns the document that the arguments ask for. Raises `ConfigError`."""
    if options.what == "settle":
        _check_is_over(topology, options.after, now)
        return settled(document, topology)
    if topology.former is not None:
        why = "has a `former`: a move is under way, end it first by `cachesvc cell settle`"
        raise ConfigError(str(options.topology), why)
    if options.what == "add":
        return _with_added(options, document, topology)
    if options.cell not in topology.cells:
        raise ConfigError("NAME", f"no cell {options.cell!r}{did_you_mean(options.cell, topology.cells)}")
    if options.what == "move":
        if topology.pins.get(options.partition) == options.cell:
            raise ConfigError("PARTITION", f"{options.partition} is pinned to {options.cell} already")
        return moved(document, options.partition, options.cell)
    if options.cell not in Placement(topology).cells:
        raise ConfigError("NAME", f"{options.cell} is home to nothing already")
    return drained(document, options.cell)


def _with_added(options: argparse.Namespace, document: Document, topology: Topology) -> Document:
    if options.cell in topology.cells:
        raise ConfigError("NAME", f"{options.cell} is a cell already: name another")
    region = options.region or (next(iter(topology.regions)) if len(topology.regions) == 1 else "")
    if not region:
        raise ConfigError("--region", f"is missing: one of {', '.join(topology.regions)}")
    fields = {"region": region, "url": options.url}
    weight = {} if options.weight is None else {"weight": options.weight}
    return added(document, options.cell, {**fields, **weight})


def _check_is_over(topology: Topology, after: Duration, now: datetime) -> None:
    """Raises `ConfigError` if no move is under way, or not for long enough to be over."""
    if (former := topology.former) is None:
        raise ConfigError("$.former", "is not there: no move is under way")
    if former.since is None:
        if after:
            why = "does not say `since` when the move is under way: once it is over, write --after 0s"
            raise ConfigError("$.former", why)
        return
    left = after.seconds - (now - former.since).total_seconds()
    if left > 0:
        raise ConfigError(
            "$.former", f"is needed for {left:.0f} s more: copies of before may be left until then"
        )
