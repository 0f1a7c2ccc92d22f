"""`cachesvc serve`: runs one instance, on given servers or on embedded ones."""

import argparse
import asyncio
import errno
import logging
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import uvloop

from cachesvc.app import instance as app
from cachesvc.app.embedded.set_up import embedded
from cachesvc.commands.arguments import fail
from cachesvc.commands.banner import banner
from cachesvc.commands.documents import passed_over, read_documents
from cachesvc.config.addresses import address, is_wildcard
from cachesvc.config.service import Service, check_together, tokens_in_clear_text
from cachesvc.config.tls import ListenerTls
from cachesvc.config.topology import Topology
from cachesvc.telemetry.logs import logs

log = logging.getLogger(__name__)


def serve(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Serves until SIGINT or SIGTERM, and returns the exit code.

    Raises `ConfigError`, `TierError` and, for an embedded server, `ServerStartError`.
    """
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
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(service, documents.topology, options.topology, environ))
    except KeyboardInterrupt:  # before the service handles the signal itself
        return 0
    except BrokenPipeError:
        raise
    except OSError as error:
        at = error.filename or f"{service.server.host}:{service.server.port}"
        operations = service.server.operations
        is_data = operations.port is None or at != address(operations.host, operations.port)
        variable = "CACHESVC_SERVER_PORT" if is_data else "CACHESVC_SERVER_OPERATIONS_PORT"
        if error.errno == errno.EADDRINUSE:
            return fail(1, f"{at} is in use: stop what listens there, or choose another ({variable})")
        return fail(
            1,
            f"{at} cannot be served: {error.strerror or error}; choose another address"
            f" ({variable.replace('PORT', 'HOST')}, {variable})",
        )
    return 0


async def _serve(
    service: Service, topology: Topology | None, topology_file: Path | None, environ: Mapping[str, str]
) -> None:
    if topology is not None:
        await _announce_and_serve(service, topology, [], topology_file)
        return
    started = await embedded(service, environ)
    try:
        check_together(service, started.topology)
        await _announce_and_serve(service, started.topology, started.lines)
    finally:
        await started.stop()


async def _announce_and_serve(
    service: Service, topology: Topology, lines: Sequence[str], topology_file: Path | None = None
) -> None:
    def ready(port: int, operations: str = "") -> None:
        server = service.server
        url = f"{_scheme(server.tls)}://{address(_host_to_ask(server.host), port)}"
        if operations:
            host, _, number = operations.rpartition(":")
            operations = address(_host_to_ask(host.strip("[]")), int(number))
            operations = f"{_scheme(server.operations.tls)}://{operations}"
        print(banner(service, topology, url, lines, operations=operations), flush=True)

    await app.serve(service, topology, topology_file=topology_file, ready=ready)


def _host_to_ask(host: str) -> str:
    """Returns a host to ask on this machine; `host` may stand for all its addresses."""
    return "localhost" if is_wildcard(host) else host


def _scheme(tls: ListenerTls) -> str:
    return "https" if tls.cert else "http"
