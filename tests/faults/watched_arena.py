"""A deployment whose first cell and whose queue are watched by real sentinels.

One region of two instances and two cells. A server that sentinels have replaced is no replica again
for ten seconds and more, so a drill may break as many masters of one name as it has replicas.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from cachesvc.app.embedded.server_process import ServerProcess
from cachesvc.config.service import load_topology
from loadtests.fleet import Fleet
from loadtests.fleet_topology import free_ports
from tests.doubles.sentinels import OPTIONS, Watched, watched
from tests.doubles.servers import RealServer
from tests.faults.arena import SETTINGS, Arena, namespaces_of
from tests.faults.links import Links

CELL = "c1"
REPLICAS = 3
DOCUMENT = {
    "version": 1,
    "regions": {
        "eu": {
            "queue": "redis://127.0.0.1:1/0",
            "pool": {"m1": {"address": "127.0.0.1:2"}},
            "instances": {"eu-a": "http://127.0.0.1:3", "eu-b": "http://127.0.0.1:4"},
        }
    },
    "cells": {
        CELL: {"region": "eu", "url": "redis://127.0.0.1:5/0"},
        "c2": {"region": "eu", "url": "redis://127.0.0.1:6/0"},
    },
}
GUARD = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2")


class WatchedArena(Arena):
    """The arena of this deployment, with the groups of servers that sentinels watch."""

    def __init__(self, fleet: Fleet, origin_port: int, cell: Watched, queue: Watched) -> None:
        super().__init__(fleet, Links({}, fleet.run_dir), origin_port)
        self.cell = cell
        self.queue = queue


@contextmanager
def watched_arena(run_dir: Path) -> Iterator[WatchedArena]:
    """The arena; its processes run while the block runs."""
    (origin,) = free_ports(1)
    document = run_dir / "document.yaml"
    document.write_text(yaml.safe_dump({**DOCUMENT, "namespaces": {}}))
    fleet = Fleet(document, run_dir / "run", environ=SETTINGS, namespaces=namespaces_of(origin))
    instances = list(fleet.instances.values())
    backends = [server for server in fleet.servers() if server not in instances]
    with ExitStack() as running:
        running.callback(fleet.stop)
        for server in backends:
            server.start()
        cell, queue = fleet.cells[CELL], fleet.queues["eu"]
        groups = [
            running.enter_context(
                watched(REPLICAS, *GUARD, *options, master=_master(server, fleet.port(server.name)))
            )
            for server, options in (
                (cell, ("--maxmemory-policy", "volatile-lru")),
                (queue, ("--maxmemory-policy", "noeviction")),
            )
        ]
        text = fleet.topology_path.read_text()
        for server, group in zip((cell, queue), groups, strict=True):
            text = text.replace(f"redis://127.0.0.1:{fleet.port(server.name)}/0", group.url())
        fleet.topology_path.write_text(text)
        fleet.topology = load_topology(fleet.topology_path)
        for instance in instances:
            instance.spawn()
        for instance in instances:
            instance.wait_ready()
        yield WatchedArena(fleet, origin, *groups)


def _master(process: ServerProcess, port: int) -> RealServer:
    process.command = [*process.command, *OPTIONS, *GUARD]
    process.restart()
    return RealServer(process, ("127.0.0.1", port))
