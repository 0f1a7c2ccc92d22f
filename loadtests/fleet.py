"""A whole topology on this machine with real servers, each a process of its own.

    python -m loadtests.fleet config/two-regions.yaml --origin

The servers are memcached, Redis and service instances. The command runs them in the foreground
until Ctrl-C. As a library (`Fleet`) this is where tests and drills break things: every process is
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
    """The processes of one topology document.

    A context manager: inside, all processes are ready; outside, none runs. All calls block. Use it
    from one thread, best the main one (see `server_process`). `run_dir` takes the document as it is
    run, the logs, and what the servers write; what another fleet left there is removed.
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
        """Writes the document and prepares the processes; nothing is started.

        - `ports`: with `free`, every port of the document is replaced by a free one.
        - `environ`: settings of every instance, such as `{"CACHESVC_L1_BUDGET": "16MiB"}`.
        - `namespaces`: added to the document, as plain mappings.
        - `with_instances`: if false, only the servers behind the instances run.
        - `with_origin`: also runs the reference origin, at the one address that namespaces load from.
        - `detours`: for an instance, the servers (`cell-eu-1`) that it reaches at another port, where a
          proxy listens.

        Raises `ServerStartError` if a fixed port is taken, or if `run_dir` holds other files.
        """
        if ports == "fixed":
            # Checked before the files of a fleet that runs are removed.
            refuse_taken_ports(load_topology(topology_path))
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
        """The memcached servers by name of the server in its pool."""
        self.cells = {
            name: cell_server(name, port_of(cell.url), self.run_dir)
            for name, cell in self.topology.cells.items()
        }
        """The Redis servers of the cells, by cell."""
        self.queues = {
            name: queue_server(name, port_of(region.queue), self.run_dir) for name, region in regions.items()
        }
        """The Redis servers of the queues, by region."""
        self.origin = origin_server(self._origin_port(), self.run_dir) if with_origin else None
        self._documents = dict(self._detoured(detours or {}))
        self.instances = dict(self._instances(environ or {})) if with_instances else {}
        """The service instances by name."""

    def start(self) -> None:
        """Starts every process and waits until all are ready.

        Raises `ServerStartError`; then no process runs.
        """
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
        """Stops the instances, then the servers behind them; skips what does not run."""
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
        """The port of a server behind the instances, by the name of its process (`cell-eu-1`)."""
        return next(port_of(_place(one)) for one in self._backends() if one.name == server)

    @property
    def documents(self) -> list[Path]:
        """The documents that instances read: one for each with detours, else that of the fleet."""
        own = [self._documents.get(instance, self.topology_path) for instance in self.instances]
        return list(dict.fromkeys(own))

    def launch_with(self, instance: str, launcher: Sequence[str]) -> None:
        """Sets the module that runs the instance from its next start on.

        `launcher` is the module and its arguments before `serve …`, as in `SERVICE`.
        """
        document = self._documents.get(instance, self.topology_path)
        self.instances[instance].command = [*RUN_MODULE, *instance_words(document, launcher)]

    def servers(self) -> list[ServerProcess]:
        """Every process, in the order of starting."""
        return [*self._backends(), *self.instances.values()]

    def table(self) -> str:
        """Text that says which process runs where, one line for each."""
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
        """Writes documents for the instances with detours; yields the instance and the path."""
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
    """Makes `path` an empty directory that is marked as a fleet's.

    Raises `ServerStartError` if the directory holds files and has no such mark.
    """
    mark = path / ".fleet"
    if path.exists() and any(path.iterdir()) and not mark.exists():
        raise ServerStartError(f"{path} holds something else: name another directory, it is emptied first")
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    mark.touch()
    return path.absolute()


def _place(server: ServerProcess) -> str:
    """The address of a server, from the port that stands after its option in the command."""
    option = next(word for word in ("-p", "--port") if word in server.command)
    return f"127.0.0.1:{server.command[server.command.index(option) + 1]}"


def main() -> int:
    """Runs a topology until SIGINT or SIGTERM; the process's exit code."""
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
    # SIGINT too: a shell starts background jobs with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
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
