"""`cachesvc audit`: what callers changed and were refused, at all instances.

The command asks every instance that the topology names, or that the instance at `--url` names, and
merges what they answer. Exit codes: 0 if an instance answered; 1 if none did; 2 if the command line
or the topology document is wrong, or if an instance refused.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

import aiohttp
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from cachesvc.changes.audit_trail import AuditRecord
from cachesvc.commands.access import Reach, add_access, reach_of
from cachesvc.commands.arguments import duration, fail, utf8
from cachesvc.commands.credential import Credential, add_token, credential_of, session
from cachesvc.commands.top.deployment import add_deployment, ask_for_deployment, declared_in, urls_in
from cachesvc.commands.top.scrape import Asker
from cachesvc.model.errors import ConfigError
from cachesvc.model.printable import printable, printable_in
from cachesvc.model.units import Duration

ANSWER_SECONDS = 2.0
"""The time for one instance's answer."""
FOLLOW_SECONDS = 1.0
"""The pause between two looks with `--follow`."""
FOLLOWED_BACK = Duration.parse("10s")
"""The time back to which each look with `--follow` asks, for instances that were late."""
MOST = 1000
PAGE_WIDTH = 220
"""Columns of output to a pipe or a file."""
_COLUMNS = ("time", "instance", "what", "identity", "address", "says", "namespace", "of", "outcome")


class Page(Struct, frozen=True):
    """The answer of `GET /v1/audit`."""

    region: str
    instance: str
    records: Sequence[AuditRecord]
    dropped: int = 0
    left_out: int = 0


class Line(NamedTuple):
    """A record and the instance that has it; in order of time."""

    at: int
    instance: str
    record: AuditRecord


class Silence(NamedTuple):
    """An instance that gave no answer."""

    why: str
    is_refusal: bool = False


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    add = parser.add_argument
    add_deployment(parser, environ, "It names the instances; all are asked.")
    add_token(parser, environ)
    add_access(parser, environ)
    add("--namespace", default="", type=utf8, help="Only records of this namespace.")
    add("--identity", default="", type=utf8, help="Only records of this proved identity.")
    add("--since", type=duration, metavar="DURATION", help="Only records that are not older, such as 5m.")
    add(
        "--limit",
        type=int,
        default=50,
        help="The most records, the newest ones, of all instances together (default: %(default)s).",
    )
    add("--json", action="store_true", help="Prints a JSON object per record, with its instance.")
    add("--follow", action="store_true", help="Goes on with new records until Ctrl-C.")


def run(options: argparse.Namespace) -> int:
    """Prints the records, the newest last, and returns the exit code. Raises `ConfigError`."""
    if not 1 <= options.limit <= MOST:
        raise ConfigError("--limit", f"must be 1 to {MOST}")
    if options.since is not None and options.since <= 0:
        raise ConfigError("--since", "must be above 0")
    try:
        return asyncio.run(_run(options, credential_of(options), reach_of(options)))
    except KeyboardInterrupt:
        return 0


async def _run(options: argparse.Namespace, credential: Credential, reach: Reach) -> int:
    async with session(credential, ssl=reach.https) as http:
        addresses = await _addresses(options, http)
        query = {
            name: value
            for name, value in (
                ("namespace", options.namespace),
                ("identity", options.identity),
                ("since", "" if options.since is None else f"{int(options.since)}us"),
                ("limit", str(options.limit)),
            )
            if value
        }
        found = await _pages(http, addresses, query)
        lines = _merged(page for page in found.values() if isinstance(page, Page))[-options.limit :]
        show = _json if options.json else _Printer(Console(width=_width(), highlight=False)).show
        show(lines)
        exit_code = _tell_silent(found)
        if options.follow and exit_code != 2:
            await _follow(http, addresses, {**query, "since": f"{int(FOLLOWED_BACK)}us"}, lines, show)
        return exit_code


async def _addresses(options: argparse.Namespace, http: aiohttp.ClientSession) -> Mapping[str, str]:
    """The base URL of each instance's operations by its name. Raises `ConfigError`."""
    declared = declared_in(options)
    return (declared or await ask_for_deployment(Asker(http), urls_in(options))).instances


async def _pages(
    http: aiohttp.ClientSession, addresses: Mapping[str, str], query: Mapping[str, str]
) -> Mapping[str, Page | Silence]:
    """Asks all instances at once."""
    asked = (_page(http, f"{url}/v1/audit?{urlencode(query)}") for url in addresses.values())
    return dict(zip(addresses, await asyncio.gather(*asked), strict=True))


async def _page(http: aiohttp.ClientSession, url: str) -> Page | Silence:
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    try:
        async with http.get(url, timeout=timeout, allow_redirects=False) as answer:
            body = await answer.read()
            if answer.status == 200:
                return msgspec.convert(printable_in(msgspec.json.decode(body)), Page)
            return Silence(_why(answer.status, body), is_refusal=400 <= answer.status < 500)
    except TimeoutError:
        return Silence(f"no answer within {ANSWER_SECONDS:g} s")
    except (aiohttp.ClientError, OSError) as error:
        return Silence(printable(str(error)))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return Silence(f"its answer cannot be read: {error}")


def _why(status: int, body: bytes) -> str:
    try:
        problem = printable_in(msgspec.json.decode(body))
        return f"{status}: {problem['detail']}"
    except (msgspec.MsgspecError, RecursionError, LookupError, TypeError):
        return f"it answered {status}: is it an instance of cachesvc?"


def _merged(pages: Iterable[Page]) -> list[Line]:
    """The records of all instances, the oldest first."""
    return sorted(
        Line(record.at, f"{page.region}/{page.instance}", record) for page in pages for record in page.records
    )


async def _follow(
    http: aiohttp.ClientSession,
    addresses: Mapping[str, str],
    query: Mapping[str, str],
    shown: Sequence[Line],
    show: Any,
) -> None:
    """Shows records that were not shown before, until it is cancelled."""
    seen = {(line.instance, line.record.number, line.at) for line in shown}
    while True:
        await asyncio.sleep(FOLLOW_SECONDS)
        pages = await _pages(http, addresses, query)
        lines = _merged(page for page in pages.values() if isinstance(page, Page))
        show([line for line in lines if (line.instance, line.record.number, line.at) not in seen])
        seen = {(line.instance, line.record.number, line.at) for line in lines} or seen


def _tell_silent(found: Mapping[str, Page | Silence]) -> int:
    """Prints which instances gave no answer, and returns the exit code."""
    codes = [0 if isinstance(page, Page) else 2 if page.is_refusal else 1 for page in found.values()]
    for name, page in found.items():
        if isinstance(page, Silence):
            fail(1, f"{name}: {page.why}")
    return min(codes)


def _json(lines: Iterable[Line]) -> None:
    for line in lines:
        document = {"instance": line.instance, **msgspec.to_builtins(line.record)}
        print(msgspec.json.encode(document).decode(), flush=True)


class _Printer:
    """Prints records in a table, whose head stands once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._has_head = False

    def show(self, lines: Sequence[Line]) -> None:
        if not lines:
            return
        table = Table(
            *(Column(name, overflow="fold") for name in _COLUMNS),  # an audit leaves out nothing
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
            header_style="dim",
            show_header=not self._has_head,
        )
        self._has_head = True
        for line in lines:
            table.add_row(*map(Text, _cells(line)))
        self._console.print(table)


def _cells(line: Line) -> Sequence[str]:
    record = line.record
    of = record.operation or " ".join(filter(None, (record.targets, record.how)))
    left_out = f" ({record.left_out} more left out)" if record.left_out else ""
    return (
        datetime.fromtimestamp(line.at / 1e6, UTC).isoformat(sep=" ", timespec="milliseconds")[:-6],
        line.instance,
        record.what,
        record.identity or "anonymous",
        record.address,
        record.says,
        record.namespace,
        of,
        " ".join(filter(None, (record.outcome, record.receipt))) + left_out,
    )


def _width() -> int | None:
    return None if sys.stdout.isatty() else PAGE_WIDTH
