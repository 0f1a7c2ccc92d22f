"""`cachesvc report namespaces`: what each namespace gets out of the cache.

Every instance of the deployment is asked for its metrics, and the figures are summed. Exit codes: 0
if every instance answered; 1 if one did not; 2 if the command line or the topology document is
wrong.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from cachesvc.commands.access import Reach, add_access, reach_of
from cachesvc.commands.arguments import fail
from cachesvc.commands.credential import Credential, add_token, credential_of, session
from cachesvc.commands.report.figures import METHOD, Change, NamespaceFigures, figures_of
from cachesvc.commands.top.deployment import (
    Deployment,
    add_deployment,
    ask_for_deployment,
    declared_in,
    urls_in,
)
from cachesvc.commands.top.scrape import Asker, Scrape
from cachesvc.commands.top.units import UNKNOWN, rate, share, size

WIDTH = 160
"""Columns of output to a pipe or a file."""
SHOWN_REFUSALS = 3
"""The reasons that the table has for each namespace."""


class Report(Struct, frozen=True):
    """The report, as `--json` prints it."""

    instances: Sequence[str]
    """Those that answered."""
    silent: Mapping[str, str]
    """Those that did not, and why: their reads are missing in the figures."""
    method: str
    namespaces: Sequence[NamespaceFigures]


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    add = parser.add_argument
    add("what", choices=["namespaces"], help="What the report is about.")
    add_deployment(parser, environ, "It names the instances.")
    add_token(parser, environ)
    add("--json", action="store_true", help="Prints the figures in JSON, with the method of the estimates.")
    add_access(parser, environ)


def run(options: argparse.Namespace) -> int:
    """Prints the report and returns the exit code. Raises `ConfigError`."""
    urls, declared = urls_in(options), declared_in(options)
    report = asyncio.run(_asked(urls, declared, credential_of(options), reach_of(options)))
    if not report.instances:
        return fail(
            1, "no instance answers: " + "; ".join(f"{name}: {why}" for name, why in report.silent.items())
        )
    if options.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")
    else:
        _print(report)
    return 1 if report.silent else 0


async def _asked(
    urls: Sequence[str], declared: Deployment | None, credential: Credential, reach: Reach
) -> Report:
    async with session(credential, ssl=reach.https) as http:
        asker = Asker(http)
        deployment = declared or await ask_for_deployment(asker, urls)
        found = await asker.all(deployment.instances)
    scrapes = {name: one for name, one in found.items() if isinstance(one, Scrape)}
    silent = {name: one.why for name, one in found.items() if not isinstance(one, Scrape)}
    return Report(list(scrapes), silent, METHOD, figures_of([one.metrics for one in scrapes.values()]))


def _print(report: Report) -> None:
    console = Console(width=None if os.isatty(1) else WIDTH)
    for name, why in report.silent.items():
        console.print(f"{name} does not answer ({why}): its reads are missing here", markup=False)
    console.print(_hits(report.namespaces))
    console.print(_ways(report.namespaces))
    console.print(METHOD, style="dim", markup=False)


def _hits(namespaces: Sequence[NamespaceFigures]) -> Table:
    table = Table("namespace", "reads", "hits", "L1", "L2", "L3", "origin", "miss", "in L1", "live (est.)")
    for one in namespaces:
        shares = [share(one.answered_by.get(who)) for who in ("l1", "l2", "l3", "origin", "miss")]
        table.add_row(
            one.namespace,
            rate(one.reads),
            share(one.hit_ratio),
            *shares,
            size(one.l1_bytes),
            size(one.live_bytes),
        )
    return table


def _ways(namespaces: Sequence[NamespaceFigures]) -> Table:
    table = Table(
        "namespace",
        "half the TTL",
        "twice the TTL",
        "never read (est.)",
        "loads",
        "loads avoided",
        "refused copies",
    )
    for one in namespaces:
        refusals = [f"{reason} {rate(count)}" for reason, count in one.refusals.items()]
        table.add_row(
            one.namespace,
            _changed(one.half_ttl),
            _changed(one.twice_ttl),
            share(one.never_read),
            rate(one.loads),
            rate(one.loads_avoided),
            ", ".join(refusals[:SHOWN_REFUSALS]),
        )
    return table


def _changed(change: Change | None) -> str:
    """`+1.2 ± 0.3 points`; unknown if too few keys were followed."""
    if change is None:
        return UNKNOWN
    return f"{100 * change.points:+.1f} ± {100 * change.error:.1f} points"
