"""`cachesvc top`: one deployment on a terminal, with a verdict in words.

With `--once` the command looks twice, prints what happened in between, and exits with 0 if the
verdict is healthy, else with 1. Without, it looks again and again until Ctrl-C. Exit code 2: the
command line or the topology document is wrong.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from typing import NoReturn, Protocol

from msgspec import Struct
from rich.console import Console, RenderableType
from rich.live import Live

from cachesvc.commands.access import Reach, add_access, reach_of
from cachesvc.commands.arguments import duration, header_value
from cachesvc.commands.credential import Credential, add_token, credential_of, session
from cachesvc.commands.top.audit import AuditLog
from cachesvc.commands.top.between import Look
from cachesvc.commands.top.deployment import (
    Deployment,
    add_deployment,
    ask_for_deployment,
    declared_in,
    urls_in,
)
from cachesvc.commands.top.picture import picture_of
from cachesvc.commands.top.scrape import Asker
from cachesvc.commands.top.sources import source_troubles
from cachesvc.commands.top.verdict import troubles
from cachesvc.commands.top.view import view
from cachesvc.model.errors import ConfigError
from cachesvc.model.units import Duration

WIDTH = 130
"""Columns of output to a pipe or a file: enough for every table."""


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    add = parser.add_argument
    add_deployment(parser, environ, "It names the instances and the queues.")
    add_token(parser, environ)
    add("--once", action="store_true", help="Prints one view and exits with 0 if all is well, else with 1.")
    add(
        "--interval",
        type=duration,
        default=Duration.parse("1s"),
        metavar="DURATION",
        help="The time between two looks (default: 1s).",
    )
    add(
        "--debug-token",
        type=header_value,
        default=environ.get("CACHESVC_DEBUG_TOKEN", ""),
        metavar="TOKEN",
        help="The instances' telemetry.debug_token. With it, hot keys are shown as text instead of digests."
        " Default: CACHESVC_DEBUG_TOKEN.",
    )
    add_access(parser, environ)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code. Raises `ConfigError`."""
    if options.interval <= 0:
        raise ConfigError("--interval", "must be above 0")
    urls, declared = urls_in(options), declared_in(options)
    try:
        return asyncio.run(_run(options, urls, declared, credential_of(options), reach_of(options)))
    except KeyboardInterrupt:
        return 0


async def _run(
    options: argparse.Namespace,
    urls: Sequence[str],
    declared: Deployment | None,
    credential: Credential,
    reach: Reach,
) -> int:
    async with session(credential, ssl=reach.https) as http:
        asker = Asker(http, options.debug_token)
        deployment = declared or await ask_for_deployment(asker, urls)
        async with AuditLog(deployment.queues, reach.queues) as audit:
            watch = Watch(asker, deployment, audit, options.interval.seconds)
            console = Console(width=None if os.isatty(1) else WIDTH)
            return await (once if options.once else for_ever)(watch, console)


class Asking(Protocol):
    """The part of `Asker` that a watch uses."""

    async def all(self, addresses: Mapping[str, str], /) -> Look: ...


class Watch(Struct, frozen=True):
    """A deployment, and the means to look at it."""

    asker: Asking
    deployment: Deployment
    audit: AuditLog
    seconds: float

    async def look(self) -> Look:
        return await self.asker.all(self.deployment.instances)

    async def drawn(self, before: Look, after: Look) -> tuple[RenderableType, bool]:
        """The view of the time between two looks, and whether all is well."""
        picture = picture_of(before, after)
        found = [
            *troubles(picture),
            *source_troubles(await self.audit.notes(), time.time_ns() // 1000),
        ]
        return view(picture, found, await self.audit.last()), not found


async def once(watch: Watch, console: Console) -> int:
    """Prints one view. Returns 0 if all is well, else 1."""
    before = await watch.look()
    await asyncio.sleep(watch.seconds)
    drawn, is_healthy = await watch.drawn(before, await watch.look())
    # On a terminal the prompt takes the last line; what does not fit would push the verdict away.
    console.print(drawn, height=console.height - 1 if console.is_terminal else None)
    return 0 if is_healthy else 1


async def for_ever(watch: Watch, console: Console) -> NoReturn:
    """Shows view after view until it is cancelled."""
    before = await watch.look()
    if not console.is_terminal:  # a `Live` would print nothing before its end
        while True:
            await asyncio.sleep(watch.seconds)
            after = await watch.look()
            drawn, _ = await watch.drawn(before, after)
            console.print(drawn)
            before = after
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            after = await watch.look()
            drawn, _ = await watch.drawn(before, after)
            live.update(drawn, refresh=True)
            before = after
            await asyncio.sleep(watch.seconds)
