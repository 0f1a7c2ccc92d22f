"""`cachesvc check`: puts load on a deployment from outside and judges its answers.

With `--watch` it measures the deployment without end instead. Exit codes: 0 if every check holds;
1 if one is violated, or if the check could not run or saw too little to tell; 2 if the command
line or the topology document is wrong. Ctrl-C ends the load, and what was recorded until then is
judged.
"""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import uvloop
from msgspec.structs import replace

from cachesvc.commands.access import add_access, reach_of
from cachesvc.commands.arguments import add_topology, duration, fail, tell_mistakes
from cachesvc.commands.check.history import HistoryWriter
from cachesvc.commands.check.judge import judge
from cachesvc.commands.check.progress import Progress
from cachesvc.commands.check.report import as_json, plain
from cachesvc.commands.check.run import CheckError, check
from cachesvc.commands.check.settings import CheckSettings, address_of, deployment_of
from cachesvc.commands.check.verdicts import Verdict
from cachesvc.commands.check.watch.metrics import WatchMetrics
from cachesvc.commands.check.watch.watch import watch
from cachesvc.commands.credential import add_token, credential_of
from cachesvc.commands.documents import given_topology
from cachesvc.model.errors import ConfigError
from cachesvc.model.units import Duration

MUST_BE_SEEN = ("C0", "C2", "C3", "C7")
"""The checks that every run can judge. If one of these was not observed, the run has shown
nothing."""
READ_SHARE_OF_A_CACHE = 0.9
"""The least share of reads among the operations for which C9 (it is still a cache) is
judged."""
LEAST_SHARE = 0.8
MOST = 100_000
"""The most keys, clients, and operations per second: more than one process can do or hold."""


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    default = CheckSettings(instances={})
    add = parser.add_argument
    add_topology(parser, environ, "It names the instances, the queues and the namespaces.")
    add_token(parser, environ)
    add("--namespace", default="check", help="A namespace that only the checker uses (default: %(default)s).")
    add(
        "--origin-listen",
        default=f"{default.origin_host}:{default.origin_port}",
        metavar="HOST:PORT",
        help="Where the checker's own origin listens (default: %(default)s).",
    )
    add(
        "--duration",
        type=duration,
        default=Duration.parse("60s"),
        metavar="DURATION",
        help="How long the load lasts (default: 60s).",
    )
    add(
        "--seed",
        type=int,
        default=default.seed,
        help="The seed of all random choices (default: %(default)s).",
    )
    add("--keys", type=int, default=default.keys, help="How many hot keys there are (default: %(default)s).")
    add(
        "--clients",
        type=int,
        default=default.clients,
        help="How many callers run at once (default: %(default)s).",
    )
    add(
        "--rate",
        type=float,
        default=default.rate,
        help="Operations per second of all callers together (default: %(default)s).",
    )
    add(
        "--read-share",
        type=float,
        default=default.read_share,
        metavar="SHARE",
        help="The share of reads in the operations, 0 to 1 (default: %(default)s).",
    )
    add(
        "--heartbeat",
        type=duration,
        default=Duration(default.heartbeat_us),
        metavar="DURATION",
        help="The instances' coherence.heartbeat (default: 500ms).",
    )
    add(
        "--skew",
        type=duration,
        default=Duration(default.skew_us),
        metavar="DURATION",
        help="The instances' coherence.max_clock_skew (default: 100ms).",
    )
    add(
        "--no-events",
        action="store_true",
        help="Announces changes through the API only, for queues that cannot be reached from here.",
    )
    add(
        "--history",
        type=Path,
        metavar="FILE",
        help="Writes every operation to this file, a JSON object per line.",
    )
    add("--json", type=Path, metavar="FILE", help="Writes the verdict to this file, as JSON.")
    add(
        "--watch",
        action="store_true",
        help="Measures until Ctrl-C instead: a few canary writes, the merges of real invalidations,"
        " and metrics.",
    )
    add(
        "--metrics-listen",
        default="127.0.0.1:9108",
        metavar="HOST:PORT",
        help="Where /metrics is served with --watch (default: %(default)s).",
    )
    add(
        "--sample",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="The share of real invalidations that --watch measures, 0 to 1 (default: %(default)s).",
    )
    add(
        "--canary-every",
        type=duration,
        default=Duration.parse("2s"),
        metavar="DURATION",
        help="The pause between two canary writes with --watch (default: 2s).",
    )
    add_access(parser, environ)


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    try:
        settings = settings_of(options)
        return _watch(settings, options) if options.watch else _check(settings, options)
    except ConfigError as error:
        return tell_mistakes(error)
    except CheckError as error:
        return fail(1, str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        return fail(1, f"{error.filename or options.metrics_listen}: {error.strerror}")


def settings_of(options: argparse.Namespace) -> CheckSettings:
    """The settings of a run, from the command line and the topology document. Raises
    `ConfigError`."""
    if options.topology is None:
        raise ConfigError(
            "--topology",
            "is not given: the document says which instances there are (or set CACHESVC_TOPOLOGY)",
        )
    for name in ("duration", "keys", "clients", "rate", "canary_every"):
        if not getattr(options, name) > 0:
            raise ConfigError(f"--{name.replace('_', '-')}", "must be above 0")
    for name in ("keys", "clients", "rate"):
        if getattr(options, name) > MOST:
            raise ConfigError(f"--{name}", f"must be at most {MOST}")
    for name in ("read_share", "sample"):
        if not 0 <= getattr(options, name) <= 1:
            raise ConfigError(f"--{name.replace('_', '-')}", "is a share: 0 to 1")
    deployment = deployment_of(given_topology(options.topology), options.namespace, options.origin_listen)
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
        credential=credential_of(options),
        reach=reach_of(options),
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
    """1 if a check is violated or one of `MUST_BE_SEEN` was not observed, else 0."""
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
            f"cachesvc: watching {len(settings.instances)} instances;"
            f" http://{options.metrics_listen}/metrics",
            file=sys.stderr,
        )
        _run(watch(settings, metrics, sample=options.sample, pause_seconds=options.canary_every.seconds))
    return 0


def _run(work: Coroutine[Any, Any, None]) -> bool:
    """Runs the work to its end. False if a signal ended it."""
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)
    except KeyboardInterrupt:
        return False
    return True


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    """Does what Ctrl-C does: within a `Runner`, that cancels the work.

    A handler that raises is not enough: an exception in a callback of uvloop's sockets closes the
    socket, and nothing else.
    """
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    (on_ctrl_c if callable(on_ctrl_c) else signal.default_int_handler)(number, frame)
