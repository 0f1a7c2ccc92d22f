"""The commands: `serve`, `check-config`, `publish`, `check`, `explain` and `top`.

Exit codes: 0 done, or stopped by a signal; 1 it could not run (a port in use, a server that does not start); 2 the command
line or a configuration document is wrong. Messages go to stderr, and never as a traceback for what a person can set right.
"""

import argparse
import asyncio
import errno
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import uvloop

from cachesvc import app, publish
from cachesvc.banner import banner
from cachesvc.check import command as check
from cachesvc.config import Service, check_together, load_service, load_topology
from cachesvc.embedded.server_process import ServerStartError
from cachesvc.embedded.set_up import embedded
from cachesvc.errors import ConfigError, TierError
from cachesvc.explaining import command as explain
from cachesvc.telemetry import logs
from cachesvc.top import command as top
from cachesvc.topology import Topology


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run a command; its exit code. `arguments` without the program's name."""
    options = _parser(environ).parse_args(arguments)
    try:
        return COMMANDS[options.command].run(options, environ)
    except ConfigError as error:
        return _fail(2, str(error))
    except (ServerStartError, TierError) as error:
        return _fail(1, str(error))
    except KeyboardInterrupt:
        return 0


def check_config(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Read and check both documents, and say what they are."""
    service, topology = _load(options, environ)
    print(f"service: ok, region {service.region}, instance {service.instance}")
    if topology is None:
        print("topology: none given; serve would run the embedded set-up")
    else:
        counts = f"{len(topology.regions)} regions, {len(topology.cells)} cells, {len(topology.namespaces)} namespaces"
        print(f"topology: ok, version {topology.version}, {counts}")
    return 0


def serve(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Serve until SIGINT or SIGTERM."""
    service, topology = _load(options, environ)
    logs.set_up(service)
    # Until the service handles it, SIGTERM too must leave through `finally`, where embedded servers are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(service, topology, environ))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            at = f"{service.server.host}:{service.server.port}"
            return _fail(1, f"{at} is in use: stop what listens there, or choose another (CACHESVC_SERVER_PORT)")
        raise
    return 0


async def _serve(service: Service, topology: Topology | None, environ: Mapping[str, str]) -> None:
    if topology is not None:
        await _announce_and_serve(service, topology, [])
        return
    started = await embedded(service, environ)
    try:
        check_together(service, started.topology)
        await _announce_and_serve(service, started.topology, started.lines)
    finally:
        await started.stop()


async def _announce_and_serve(service: Service, topology: Topology, lines: Sequence[str]) -> None:
    def ready(port: int) -> None:
        print(banner(service, topology, f"http://{service.server.host}:{port}", lines), flush=True)

    await app.serve(service, topology, ready=ready)


def _load(options: argparse.Namespace, environ: Mapping[str, str]) -> tuple[Service, Topology | None]:
    service = _load_service(options.config, environ)
    return service, _load_topology(options.topology, service)


def _load_service(path: Path | None, environ: Mapping[str, str]) -> Service:
    try:
        return load_service(path, environ)
    except ConfigError as error:
        raise _in_document(error, path) from error


def _load_topology(path: Path | None, service: Service) -> Topology | None:
    if path is None:
        return None
    try:
        topology = load_topology(path)
    except ConfigError as error:
        raise _in_document(error, path) from error
    check_together(service, topology)
    return topology


def _in_document(error: ConfigError, path: Path | None) -> ConfigError:
    """With two documents `$.region` alone would not say which file to open."""
    return ConfigError(f"{path}: {error.path}", error.why) if path and error.path.startswith("$") else error


def _fail(code: int, message: str) -> int:
    print(f"cachesvc: {message}", file=sys.stderr)
    return code


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cachesvc", description="A multi-tier cache service.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=command.purpose, description=command.purpose), environ)
    return parser


def _documents(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    parser.add_argument("--config", type=Path, default=_path(environ, "CACHESVC_CONFIG"), help="service document")
    parser.add_argument("--topology", type=Path, default=_path(environ, "CACHESVC_TOPOLOGY"), help="shared document")


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None


class Command(NamedTuple):
    purpose: str
    add_arguments: Callable[[argparse.ArgumentParser, Mapping[str, str]], None]
    run: Callable[[argparse.Namespace, Mapping[str, str]], int]


COMMANDS = {
    "serve": Command("serve until Ctrl-C; without a topology, on embedded servers", _documents, serve),
    "check-config": Command("read and check the documents, and do nothing else", _documents, check_config),
    "publish": Command("announce changes on a region's queue", publish.add_arguments, lambda options, _: publish.run(options)),
    "check": Command(
        "load a deployment from outside and judge what it answers",
        lambda parser, _: check.add_arguments(parser),
        lambda options, _: check.run(options),
    ),
    "explain": Command("say why one key is answered as it is", explain.add_arguments, lambda options, _: explain.run(options)),
    "top": Command("look at a deployment: what is wrong, slow or hot", top.add_arguments, lambda options, _: top.run(options)),
}
