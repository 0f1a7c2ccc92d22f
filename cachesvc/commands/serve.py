"""`cachesvc serve`: runs one instance or several workers, on given or embedded servers."""

import argparse
import asyncio
import errno
import logging
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import uvloop
from msgspec.structs import replace

from cachesvc.app import instance as app
from cachesvc.app.embedded.set_up import Embedded, embedded
from cachesvc.app.supervisor import BEAT_SECONDS, Supervisor
from cachesvc.app.topology_store import Started, at_start
from cachesvc.commands import documents
from cachesvc.commands.arguments import fail
from cachesvc.commands.banner import banner
from cachesvc.commands.documents import passed_over, read_documents
from cachesvc.config.addresses import address, is_wildcard
from cachesvc.config.namespaces import with_namespaces
from cachesvc.config.service import Service, check_together, tokens_in_clear_text
from cachesvc.config.tls import ListenerTls
from cachesvc.config.topology import Topology
from cachesvc.config.workers import Worker, count_of, names_of, part_of, workers_of
from cachesvc.telemetry.logs import logs

log = logging.getLogger(__name__)

StartEmbedded = Callable[[], Coroutine[Any, Any, Embedded]]
"""Starts the embedded servers, as `embedded` does."""

STOP_SECONDS = 20.0
"""How long workers may take to end beyond `server.drain` and `server.shutdown_timeout`."""


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """Adds the documents, and `--workers`."""
    documents.add_arguments(parser, environ)
    parser.add_argument(
        "--workers",
        metavar="N",
        help="The processes that serve here, or `auto` for one on each core; before `server.workers`.",
    )


def serve(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Serves until SIGINT or SIGTERM, and returns the exit code.

    Raises `ConfigError`, `TierError` and, for an embedded server, `ServerStartError`.
    """
    if options.workers is not None:
        environ = {**environ, "CACHESVC_SERVER_WORKERS": options.workers}
    documents = read_documents(options, environ)
    documents.end()
    service = documents.service
    logs.set_up(service)
    if said := passed_over(environ):
        log.warning(said)
    for doubt in documents.doubts:
        log.warning("%s", doubt)
    if documents.topology is not None:
        for said in tokens_in_clear_text(service.server, documents.topology):
            log.warning("%s", said)
    # Until the service handles SIGTERM itself, the signal must raise: embedded servers are stopped in a
    # `finally`, which the default handling of SIGTERM would skip.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A terminal that closes, or a log rotation that asks every service to read its settings again, must
    # not kill an instance: the default handling of SIGHUP would.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    start = partial(embedded, service, environ, documents.namespaces)
    started = None
    if documents.topology is not None:
        try:
            # Its loop ends before the first worker is made, which would have it as a copy.
            started = asyncio.run(at_start(service, documents.topology, options.topology))
        except KeyboardInterrupt:
            return 0
    if count_of(service.server) > 1:
        return _serve_with_workers(service, started, start, options.namespaces)
    return _run(service, _serve(service, started, start, options.namespaces))


def _run(service: Service, serving: Coroutine[Any, Any, None]) -> int:
    """Runs an instance to its end, and returns the exit code."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serving)
    except KeyboardInterrupt:  # before the service handles the signal itself
        return 0
    except BrokenPipeError:
        raise
    except OSError as error:
        return _refused(service, error)
    return 0


def _refused(service: Service, error: OSError) -> int:
    """Tells that a port cannot be listened on, and returns the exit code."""
    server, operations = service.server, service.server.operations
    at = error.filename or f"{server.host}:{server.port}"
    is_data = operations.port is None or at != address(operations.host, operations.port)
    variable = "CACHESVC_SERVER_PORT" if is_data else "CACHESVC_SERVER_OPERATIONS_PORT"
    if is_data and at != address(server.host, server.port) and error.errno == errno.EADDRINUSE:
        return fail(1, f"{at}, the port of worker {service.instance} in the topology, is in use")
    if error.errno == errno.EADDRINUSE:
        return fail(1, f"{at} is in use: stop what listens there, or choose another ({variable})")
    return fail(
        1,
        f"{at} cannot be served: {error.strerror or error}; choose another address"
        f" ({variable.replace('PORT', 'HOST')}, {variable})",
    )


async def _serve(
    service: Service, started: Started | None, start: StartEmbedded, namespaces: Path | None
) -> None:
    if started is not None:
        await _announce_and_serve(service, started, [])
        return
    servers = await start()
    try:
        check_together(service, servers.topology)
        await _announce_and_serve(service, _started(servers, namespaces), servers.lines)
    finally:
        await servers.stop()


def _started(servers: Embedded, namespaces: Path | None) -> Started:
    """Returns the document that instances on embedded servers start with, and follow."""
    return Started(servers.topology, namespaces, read=with_namespaces(servers.topology))


async def _announce_and_serve(service: Service, started: Started, lines: Sequence[str]) -> None:
    def ready(port: int, operations: str = "") -> None:
        at = address(_host_to_ask(service.server.host), port)
        if operations:
            host, _, number = operations.rpartition(":")
            operations = address(_host_to_ask(host.strip("[]")), int(number))
        _announce(service, started.topology, lines, at, operations)

    await app.serve(service, started, ready=ready)


# several workers -----------------------------------------------------------------------------------


def _serve_with_workers(
    service: Service, started: Started | None, start: StartEmbedded, namespaces: Path | None
) -> int:
    """Serves as the supervisor of the workers, which share embedded servers if there are any."""
    if started is not None:
        return _supervise(service, started, [])
    try:
        # Its loop ends before the first worker is made, which would have it as a copy.
        servers = asyncio.run(start())
    except KeyboardInterrupt:
        return 0
    try:
        check_together(part_of(service), servers.topology)
        return _supervise(service, _started(servers, namespaces), servers.lines)
    except KeyboardInterrupt:
        return 0
    finally:
        asyncio.run(servers.stop())


def _supervise(service: Service, started: Started, lines: Sequence[str]) -> int:
    server, operations = service.server, service.server.operations
    try:
        _refuse_taken(server.host, server.port)
        if operations.port is not None:
            _refuse_taken(operations.host, operations.port)
    except OSError as error:
        return _refused(service, error)
    family, workers = secrets.token_hex(8), workers_of(service, started.topology)

    def work(number: int, restarts: int, serves: Callable[[], None]) -> int:
        own, worker = workers[number]
        logs.set_up(own)
        worker = replace(worker, family=family, restarts=restarts)
        return _run(own, _serve_as(own, started, worker, serves))

    def serving() -> None:
        at = address(_host_to_ask(operations.host), operations.port) if operations.port else ""
        _announce(service, started.topology, lines, address(_host_to_ask(server.host), server.port), at)

    stop_seconds = server.drain.seconds + server.shutdown_timeout.seconds + STOP_SECONDS
    if service.l1.snapshot.directory:
        stop_seconds += service.l1.snapshot.timeout.seconds
    return Supervisor(
        names_of(service),
        work,
        serving=serving,
        stop_seconds=stop_seconds,
        hung_seconds=server.worker_hung_after.seconds or inf,
    ).run()


async def _serve_as(service: Service, started: Started, worker: Worker, serves: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def beat() -> None:
        serves()
        loop.call_later(BEAT_SECONDS, beat)

    def ready(_: int, __: str) -> None:
        beat()

    await app.serve(service, started, worker=worker, ready=ready)


def _refuse_taken(host: str, port: int) -> None:
    """Raises `OSError`, whose `filename` is the address, if another process listens there.

    Workers share their port, so they would share it with another program of the same user, too.
    """
    for family, *_, at in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
        try:
            socket.create_server(at[:2], family=family).close()
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue  # an address that this machine does not have
            error.filename = address(host, port)
            raise


def _announce(
    service: Service, topology: Topology, lines: Sequence[str], at: str, operations: str = ""
) -> None:
    """Prints the banner of what serves `at` an address: an instance, or several workers."""
    server = service.server
    url = f"{_scheme(server.tls)}://{at}"
    if operations:
        operations = f"{_scheme(server.operations.tls)}://{operations}"
    print(banner(service, topology, url, lines, operations=operations), flush=True)


def _host_to_ask(host: str) -> str:
    """Returns a host to ask on this machine; `host` may stand for all its addresses."""
    return "localhost" if is_wildcard(host) else host


def _scheme(tls: ListenerTls) -> str:
    return "https" if tls.cert else "http"
