"""`cachesvc explain NAMESPACE KEY`: why a value is old, or missing.

The command asks the first instance that answers; that instance asks all others. Exit codes: 0 if
the key is explained; 1 if no instance answers; 2 if the command line or the topology document is
wrong, or there is no such namespace.
"""

import argparse
import asyncio
import sys
from collections.abc import Mapping
from urllib.parse import quote

import aiohttp
import msgspec
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from yarl import URL

from cachesvc.commands.access import Reach, add_access, reach_of
from cachesvc.commands.arguments import add_topology, header_value, instance_url, utf8
from cachesvc.commands.credential import Credential, add_token, credential_of, session
from cachesvc.commands.documents import given_topology
from cachesvc.commands.explain_page import Table, copies, facts, fences, instances
from cachesvc.explain.answer import Explanation
from cachesvc.model.did_you_mean import did_you_mean
from cachesvc.model.errors import ConfigError, TierUnavailableError
from cachesvc.model.key_text import check_key
from cachesvc.model.printable import printable, printable_in

NEARBY = "http://127.0.0.1:8080"
ANSWER_SECONDS = 2.0
"""The time for one instance's answer (0.1 s is usual nearby); then the next is asked."""
PAGE_WIDTH = 220
"""Columns of output to a pipe or a file: wide, so that a line stays whole for a search."""


class _Problem(msgspec.Struct):
    """The part of a problem (RFC 9457) that is shown."""

    detail: str = ""


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    add = parser.add_argument
    add("namespace", type=utf8, help="The namespace of the key.")
    add("key", type=utf8, help="The key as callers write it, not percent-encoded. Put it in quotes.")
    add_topology(parser, environ, "It names the instances; the first that answers is asked.")
    add(
        "--url",
        default="",
        help=f"The URL of the instance to ask (default, without --topology: {NEARBY}).",
    )
    add("--token", default="", type=header_value, help="Explains a read that sends this Cachesvc-Token.")
    add_token(parser, environ)
    add("--json", action="store_true", help="Prints the instance's answer as it is, in JSON.")
    add_access(parser, environ)


def run(options: argparse.Namespace) -> int:
    """Prints the explanation and returns the exit code.

    Raises `ConfigError` for a mistake of the caller, `TierUnavailableError` if no instance answers.
    """
    try:
        check_key(options.key)
    except ValueError as error:
        raise ConfigError("KEY", str(error)) from None
    body = asyncio.run(_ask_any(_addresses(options), options, credential_of(options), reach_of(options)))
    if options.json:
        print(printable(body.decode(errors="backslashreplace"), keep="\n\t"))
    else:
        width = None if sys.stdout.isatty() else PAGE_WIDTH
        show(_decoded(body), Console(width=width, highlight=False, markup=False, emoji=False))
    return 0


def _decoded(body: bytes) -> Explanation:
    try:
        return msgspec.convert(printable_in(msgspec.json.decode(body)), Explanation)
    except (msgspec.DecodeError, RecursionError) as error:
        raise TierUnavailableError("its answer is not understood, try --json", str(error)) from error


def _addresses(options: argparse.Namespace) -> Mapping[str, str]:
    """The base URL of each instance by its name. Raises `ConfigError`."""
    if options.url:
        url = instance_url(options.url)
        return {url: url}
    if options.topology is None:
        return {NEARBY: NEARBY}
    topology = given_topology(options.topology)
    if options.namespace not in topology.namespaces:
        raise ConfigError(
            "NAMESPACE",
            f"no namespace {options.namespace!r}{did_you_mean(options.namespace, topology.namespaces)}",
        )
    named = {
        f"{region}/{name}": here.operations_of(name)
        for region, here in topology.regions.items()
        for name in here.instances
    }
    if not named:
        raise ConfigError(str(options.topology), "names no instances: give one with --url")
    return named


async def _ask_any(
    addresses: Mapping[str, str], options: argparse.Namespace, credential: Credential, reach: Reach
) -> bytes:
    """The first answer, as JSON. Raises `TierUnavailableError` if no instance answers."""
    path = f"/v1/{quote(options.namespace, safe='')}/{quote(options.key, safe='')}:explain"
    headers = {"Cachesvc-Token": options.token} if options.token else {}
    silent = []
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with session(credential, ssl=reach.https, timeout=timeout) as http:
        for name, url in addresses.items():
            try:
                asked = URL(url.rstrip("/") + path, encoded=True)
                async with http.get(asked, headers=headers, allow_redirects=False) as answer:
                    return _accepted(answer.status, await answer.read())
            except TimeoutError:
                silent.append(f"{name}: no answer within {ANSWER_SECONDS:g} s")
            except (aiohttp.ClientError, OSError, TierUnavailableError) as error:
                silent.append(f"{name}: {error}")
    raise TierUnavailableError("no instance answers", "; ".join(silent))


def _accepted(status: int, body: bytes) -> bytes:
    if status == 200:
        return body
    try:
        why = msgspec.json.decode(body, type=_Problem).detail
    except (msgspec.DecodeError, RecursionError):
        why = ""
    if not why:  # every problem of an instance says why
        raise TierUnavailableError("not understood", f"it answered {status}: is it an instance of cachesvc?")
    if 400 <= status < 500:
        raise ConfigError("refused", why)
    raise TierUnavailableError("failed", why)


def show(found: Explanation, console: Console) -> None:
    """Prints an explanation as a page for people."""
    console.print(found.verdict, style="bold")
    console.print()
    width = max(len(label) for label, _ in facts(found))
    for label, text in facts(found):
        console.print(f"{label:{width}}  {text}")
    for table in (copies(found), fences(found), instances(found)):
        if table.rows:
            console.print()
            console.print(table.title, style="bold")
            console.print(Padding(_grid(table), (0, 0, 0, 2), expand=False))


def _grid(table: Table) -> RichTable:
    grid = RichTable(*table.columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for row in table.rows:
        grid.add_row(*row)
    return grid
