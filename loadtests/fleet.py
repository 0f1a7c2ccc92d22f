"""A whole topology on this machine, with real servers: memcached, Redis and service instances, each its own process.

    python -m loadtests.fleet config/two-regions.yaml --origin

runs one in the foreground until Ctrl-C. As a library (`Fleet`) it is what tests and drills break things in: every process is
a handle with `pid`, `kill(signal)`, `stop()`, `start()` and `restart()`.
"""

import argparse
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from cachesvc.app.embedded.server_process import ServerProcess, ServerStartError, stop_all
from cachesvc.config.service import load_topology
from cachesvc.model.errors import ConfigError
from loadtests.fleet_servers import (
    RUN_MODULE,
    cell_server,
    instance_server,
    instance_words,
    memcached_server,
    origin_server,
    queue_server,
)
from loadtests.fleet_topology import port_of, refuse_taken_ports, write_detoured, write_topology


class Fleet:
    """The processes of one topology document. Blocking; used from one thread, best the main one (see `server_process`).

    A context manager: all is ready inside, nothing runs outside. `run_dir` takes the document as it is run, the logs, and
    what the servers write; what another fleet left there is removed.
    """

    def __init__(
        self,
        topology_path: Path,
        run_dir: Path,
        *,
        ports: Literal["fixed", "free"] = "free",
        environ: Mapping[str, str] | None = None,
        namespaces: Mapping[str, Any] | None = None,
        with_instances: bool = True,
        with_origin: bool = False,
        detours: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        """`environ`: settings of every instance (`{"CACHESVC_L1_BUDGET": "16MiB"}`). `namespaces`: added to the document,
        as plain mappings. `with_origin`: also run the reference origin, at the one address that namespaces load from.
        `detours`: for an instance, the servers (`cell-eu-1`) that it is to reach at another port, where a proxy listens.
        """
        if ports == "fixed":
            refuse_taken_ports(
                load_topology(topology_path)
            )  # before the files of a fleet that runs are removed
        self.run_dir = empty_run_dir(run_dir)
        self.topology_path = self.run_dir / "topology.yaml"
        self.topology = write_topology(
            topology_path, self.topology_path, free=ports == "free", namespaces=dict(namespaces or {})
        )
        regions = self.topology.regions
        self.memcached = {
            name: memcached_server(name, port_of(server.address), self.run_dir)
            for region in regions.values()
            for name, server in region.pool.items()
        }
        """By name of the server in its pool."""
        self.cells = {
            name: cell_server(name, port_of(cell.url), self.run_dir)
            for name, cell in self.topology.cells.items()
        }
        """The Redis of each cell, by cell."""
        self.queues = {
            name: queue_server(name, port_of(region.queue), self.run_dir) for name, region in regions.items()
        }
        """The Redis of each queue, by region."""
        self.origin = origin_server(self._origin_port(), self.run_dir) if with_origin else None
        self._documents = dict(self._detoured(detours or {}))
        self.instances = dict(self._instances(environ or {})) if with_instances else {}
        """By name of the instance."""

    def start(self) -> None:
        """Start everything and wait until it is ready. Raises `ServerStartError`, and then nothing runs."""
        try:
            for layer in (self._backends(), list(self.instances.values())):
                for server in layer:
                    server.spawn()
                for server in layer:
                    server.wait_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the instances, then what they stand on. What is not running is passed over."""
        stop_all(list(self.instances.values()))
        stop_all(self._backends())

    def url(self, instance: str) -> str:
        """The base URL of an instance."""
        return next(
            region.instances[instance]
            for region in self.topology.regions.values()
            if instance in region.instances
        )

    def port(self, server: str) -> int:
        """Where a backend listens, by the name of its process (`cell-eu-1`)."""
        return next(port_of(_place(one)) for one in self._backends() if one.name == server)

    def launch_with(self, instance: str, launcher: Sequence[str]) -> None:
        """What the instance is from its next start on: the module (and its words) that takes `serve …` (see `SERVICE`)."""
        document = self._documents.get(instance, self.topology_path)
        self.instances[instance].command = [*RUN_MODULE, *instance_words(document, launcher)]

    def servers(self) -> list[ServerProcess]:
        """Every process, in the order of starting."""
        return [*self._backends(), *self.instances.values()]

    def table(self) -> str:
        """What runs where, a line for each process."""
        places = [f"{server.name:24} pid {server.pid:<8} {_place(server)}" for server in self._backends()]
        instances = [
            f"{server.name:24} pid {server.pid:<8} {self.url(name)}"
            for name, server in self.instances.items()
        ]
        return "\n".join([*places, *instances])

    def __enter__(self) -> "Fleet":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        running = sum(server.is_running for server in self.servers())
        return f"<Fleet [{running} of {len(self.servers())} processes running] in {self.run_dir}>"

    def _backends(self) -> list[ServerProcess]:
        origin = [self.origin] if self.origin else []
        return [*self.memcached.values(), *self.cells.values(), *self.queues.values(), *origin]

    def _origin_port(self) -> int:
        (port,) = {
            port_of(namespace.origin.url)
            for namespace in self.topology.namespaces.values()
            if namespace.origin
        }
        return port

    def _detoured(self, detours: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, Path]]:
        """The documents of the instances that do not use the fleet's own."""
        for instance, servers in detours.items():
            document = self.run_dir / f"topology-{instance}.yaml"
            write_detoured(
                self.topology_path, document, {self.port(server): port for server, port in servers.items()}
            )
            yield instance, document

    def _instances(self, environ: Mapping[str, str]) -> Iterator[tuple[str, ServerProcess]]:
        for region_name, region in self.topology.regions.items():
            for name, url in region.instances.items():
                own = {
                    "CACHESVC_REGION": region_name,
                    "CACHESVC_INSTANCE": name,
                    "CACHESVC_SERVER_PORT": str(port_of(url)),
                }
                document = self._documents.get(name, self.topology_path)
                yield name, instance_server(name, url, document, self.run_dir, {**environ, **own})


def empty_run_dir(path: Path) -> Path:
    """An empty directory that is marked as a fleet's. Raises `ServerStartError` rather than empty one that is not."""
    mark = path / ".fleet"
    if path.exists() and any(path.iterdir()) and not mark.exists():
        raise ServerStartError(f"{path} holds something else: name another directory, it is emptied first")
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    mark.touch()
    return path.absolute()


def _place(server: ServerProcess) -> str:
    """The port that stands after its option in the command."""
    option = next(word for word in ("-p", "--port") if word in server.command)
    return f"127.0.0.1:{server.command[server.command.index(option) + 1]}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.fleet", description="Run a topology on this machine."
    )
    parser.add_argument("topology", type=Path, help="such as config/two-regions.yaml")
    parser.add_argument(
        "--run-dir", type=Path, default=Path(".run/fleet"), help="emptied first; takes logs and data"
    )
    parser.add_argument("--ports", choices=["fixed", "free"], default="fixed")
    parser.add_argument("--origin", action="store_true", help="also run the reference origin")
    arguments = parser.parse_args()
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # SIGINT too: a shell starts background jobs with it ignored
        signal.signal(number, signal.default_int_handler)
    try:
        with Fleet(
            arguments.topology, arguments.run_dir, ports=arguments.ports, with_origin=arguments.origin
        ) as fleet:
            print(fleet.table(), f"\nDocument and logs: {fleet.run_dir}. Ctrl-C stops all of it.", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        return 0
    except (ConfigError, ServerStartError) as error:
        print(f"fleet: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
