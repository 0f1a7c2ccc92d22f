"""`cachesvc topology`: what a document changes, and its versions in a store.

Exit codes: 0 if nothing changes; 1 if the document must not be rolled out, or is wrong; 2 if it
changes something.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from cachesvc.commands.access import add_access, reach_of
from cachesvc.commands.arguments import duration, instance_url, tell_mistakes
from cachesvc.commands.credential import add_token, credential_of
from cachesvc.commands.topology import versions
from cachesvc.commands.topology.difference import Difference, difference
from cachesvc.commands.topology.forecast import forecast
from cachesvc.commands.topology.measuring import measured
from cachesvc.commands.topology.page import page
from cachesvc.config.service import load_topology
from cachesvc.model.entry import Key
from cachesvc.model.errors import ConfigError
from cachesvc.model.units import Duration

NOTHING, REFUSED, CHANGES = 0, 1, 2


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """Adds `diff`, and the commands of `versions.py`."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="what")
    purpose = "Says what NEW changes. It changes nothing."
    _add_diff(commands.add_parser("diff", help=purpose, description=purpose), environ)
    versions.add_commands(commands, environ)


def _add_diff(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    parser.add_argument("old", type=Path, metavar="OLD", help="The topology document that is in force.")
    parser.add_argument("new", type=Path, metavar="NEW", help="The one that is to come.")
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="FILE",
        help="Keys, a line each as `namespace/key`, such as hot ones: says exactly which of them move.",
    )
    parser.add_argument(
        "--from",
        action="append",
        default=[],
        dest="urls",
        metavar="URL",
        help="The URL of a running instance, which names the others: all are asked what they measure, for"
        " the loads and bytes that the move brings. Repeatable: the first that answers is used.",
    )
    parser.add_argument(
        "--over",
        type=duration,
        default=Duration.parse("10s"),
        metavar="DURATION",
        help="The time between the two looks at these instances (default: 10s).",
    )
    add_token(parser, environ)
    add_access(parser, environ)
    parser.add_argument("--json", action="store_true", help="Prints the difference in JSON.")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Runs one of the commands and returns the exit code. Raises `TierError`."""
    try:
        if options.what in versions.COMMANDS:
            return versions.run(options, environ)
        found = _difference(options)
    except ConfigError as error:
        tell_mistakes(error)
        return REFUSED
    if options.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
    elif text := page(found):
        print(text.strip("\n"))
    else:
        print("nothing changes")
    if found.refused:
        return REFUSED
    is_same = not (found.changes or found.steps) and found.version[0] == found.version[1]
    return NOTHING if is_same else CHANGES


def _difference(options: argparse.Namespace) -> Difference:
    before, after = load_topology(options.old), load_topology(options.new)
    keys = list(_keys(options.keys)) if options.keys is not None else ()
    found = difference(before, after, keys)
    if not options.urls or not (found.partitions or found.keys):
        return found
    urls = [instance_url(url, "--from") for url in options.urls]
    seen = asyncio.run(measured(urls, options.over.seconds, credential_of(options), reach_of(options)))
    return replace(found, expected=forecast(before, after, found.partitions, found.keys, seen))


def _keys(path: Path) -> Iterator[Key]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError("--keys", f"{path} cannot be read: {why}") from None
    for number, line in enumerate(lines, 1):
        namespace, slash, text = line.partition("/")
        if line and not (slash and namespace and text):
            raise ConfigError("--keys", f"line {number} of {path} is no `namespace/key`")
        if line:
            yield Key.of(namespace, text)
