"""`cachesvc check`: load a deployment from outside and judge what it answered; with `--watch`, measure it for ever.

Exit codes: 0 every check holds; 1 one is violated, or it could not run or see enough to tell; 2 the command line or the topology
document is wrong. Ctrl-C ends the load, and what there is by then is judged.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import uvloop
from msgspec.structs import replace

from cachesvc.commands.check.history import HistoryWriter
from cachesvc.commands.check.judge import judge
from cachesvc.commands.check.progress import Progress
from cachesvc.commands.check.report import as_json, plain
from cachesvc.commands.check.run import CheckError, check
from cachesvc.commands.check.settings import CheckSettings, address_of, deployment_of
from cachesvc.commands.check.verdicts import Verdict
from cachesvc.commands.check.watch.metrics import WatchMetrics
from cachesvc.commands.check.watch.watch import watch
from cachesvc.config.service import load_topology
from cachesvc.model.errors import ConfigError
from cachesvc.model.units import Duration

MUST_BE_SEEN = ("C0", "C2", "C3", "C7")
"""Checks that every run has something to say about. If one of these was not observed, nothing was shown."""
READ_SHARE_OF_A_CACHE = 0.9
"""With fewer reads than this among the operations, C9 (it is still a cache) is not asked."""
LEAST_SHARE = 0.8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = CheckSettings(instances={})
    add = parser.add_argument
    add(
        "--topology",
        type=Path,
        default=os.environ.get("CACHESVC_TOPOLOGY"),
        help="of the deployment: instances, queues, namespaces",
    )
    add("--namespace", default="check", help="declared for the checker alone (%(default)s)")
    add(
        "--origin-listen",
        default=f"{default.origin_host}:{default.origin_port}",
        help="of its own origin (%(default)s)",
    )
    add("--duration", type=_duration, default=Duration.parse("60s"), help="of the load, such as 60s")
    add("--seed", type=int, default=default.seed, help="of all random choices (%(default)s)")
    add("--keys", type=int, default=default.keys, help="hot keys (%(default)s)")
    add("--clients", type=int, default=default.clients, help="callers at once (%(default)s)")
    add("--rate", type=float, default=default.rate, help="operations a second, of all callers (%(default)s)")
    add("--read-share", type=float, default=default.read_share, help="of the operations (%(default)s)")
    add(
        "--heartbeat",
        type=_duration,
        default=Duration(default.heartbeat_us),
        help="coherence.heartbeat, if not 500ms",
    )
    add(
        "--skew",
        type=_duration,
        default=Duration(default.skew_us),
        help="coherence.max_clock_skew, if not 100ms",
    )
    add(
        "--no-events",
        action="store_true",
        help="announce through the API only: the queues are out of reach from here",
    )
    add("--history", type=Path, help="write all that happened to this file, a JSON object a line")
    add("--json", type=Path, help="write the verdict to this file")
    add(
        "--watch",
        action="store_true",
        help="for ever: a few canary writes, the merges of real ones, and metrics",
    )
    add("--metrics-listen", default="127.0.0.1:9108", help="with --watch: where /metrics is (%(default)s)")
    add(
        "--sample",
        type=float,
        default=0.01,
        help="with --watch: share of real invalidations that are measured (%(default)s)",
    )
    add(
        "--canary-every",
        type=_duration,
        default=Duration.parse("2s"),
        help="with --watch: pause between canary writes",
    )


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    try:
        settings = settings_of(options)
        return _watch(settings, options) if options.watch else _check(settings, options)
    except ConfigError as error:
        return _fail(2, str(error))
    except CheckError as error:
        return _fail(1, str(error))
    except OSError as error:
        return _fail(1, f"{error.filename or options.metrics_listen}: {error.strerror}")


def settings_of(options: argparse.Namespace) -> CheckSettings:
    """Raises `ConfigError`."""
    if options.topology is None:
        raise ConfigError(
            "--topology",
            "is not given: the document says which instances there are (or set CACHESVC_TOPOLOGY)",
        )
    for name in ("duration", "keys", "clients", "rate", "canary_every"):
        if getattr(options, name) <= 0:
            raise ConfigError(f"--{name.replace('_', '-')}", "must be above 0")
    for name in ("read_share", "sample"):
        if not 0 <= getattr(options, name) <= 1:
            raise ConfigError(f"--{name.replace('_', '-')}", "is a share: 0 to 1")
    deployment = deployment_of(load_topology(options.topology), options.namespace, options.origin_listen)
    if not deployment.instances:
        raise ConfigError(f"{options.topology}: $.regions", "name no instances: there is nobody to ask")
    return replace(
        deployment,
        queues={} if options.no_events else deployment.queues,
        duration_seconds=options.duration.seconds,
        seed=options.seed,
        keys=options.keys,
        clients=options.clients,
        rate=options.rate,
        read_share=options.read_share,
        heartbeat_us=int(options.heartbeat),
        skew_us=int(options.skew),
    )


def _check(settings: CheckSettings, options: argparse.Namespace) -> int:
    history = HistoryWriter(options.history)
    try:
        if not _run(_with_progress(settings, history)):
            print("cachesvc: interrupted; judging what there is", file=sys.stderr)
    finally:
        history.close()
    verdict = judge(
        history.records, least_share=LEAST_SHARE if settings.read_share >= READ_SHARE_OF_A_CACHE else 0.0
    )
    print(plain(verdict), end="")
    if options.json:
        options.json.write_bytes(as_json(verdict))
    return exit_code(verdict)


def exit_code(verdict: Verdict) -> int:
    return 1 if verdict.broken or any(check in MUST_BE_SEEN for check in verdict.unobserved) else 0


async def _with_progress(settings: CheckSettings, history: HistoryWriter) -> None:
    progress = asyncio.create_task(Progress(history.records, settings.duration_seconds, sys.stderr).show())
    try:
        await check(settings, history)
    finally:
        progress.cancel()
        await asyncio.wait([progress])


def _watch(settings: CheckSettings, options: argparse.Namespace) -> int:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    metrics = WatchMetrics()
    with metrics.served(*address_of(options.metrics_listen, "--metrics-listen")):
        print(
            f"cachesvc: watching {len(settings.instances)} instances; http://{options.metrics_listen}/metrics",
            file=sys.stderr,
        )
        _run(watch(settings, metrics, sample=options.sample, pause_seconds=options.canary_every.seconds))
    return 0


def _run(work: Coroutine[Any, Any, None]) -> bool:
    """Whether it came to its end; False: a signal ended it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)
    except KeyboardInterrupt:
        return False
    return True


def _duration(text: str) -> Duration:
    try:
        return Duration.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _fail(code: int, message: str) -> int:
    print(f"cachesvc: {message}", file=sys.stderr)
    return code
