"""The workers of a host: the instances that one `cachesvc serve --workers N` runs.

    instance eu-a, 2 workers           the instances eu-a-0 and eu-a-1
    server.port                        both listen on it
    regions.eu.instances.eu-a-0        the URL of the first one, which listens on that port, too

A worker is a whole instance. Its own port lets a client choose it: the SDK's ring sends a key to
one worker, so all L1s of a host together hold a copy once. The shared port is for everybody else.
The same holds for operations ports.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.config.addresses import address
from cachesvc.config.mistakes import Mistakes
from cachesvc.config.service import L1, MOST_WORKERS, Operations, Server, Service
from cachesvc.config.topology import Region, Topology
from cachesvc.model.units import Size


class Worker(Struct, frozen=True):
    """The place of one instance among the workers of its host."""

    host: str
    """The name that the service document gives, or that was made for it."""
    number: int
    """The worker's number, from 0 on."""
    names: Sequence[str]
    """The instance names of all workers of the host, by number."""
    port: int | None = None
    """The port of its own beside `server.port`; None if the topology does not name the worker."""
    operations_port: int | None = None
    """The port of its own beside `server.operations.port`; None if there is none."""
    family: str = ""
    """The word that the workers of one supervisor have in common."""
    restarts: int = 0
    """How often this worker was started again."""

    @property
    def count(self) -> int:
        """The number of workers."""
        return len(self.names)


def count_of(server: Server) -> int:
    """Returns the number of workers; `auto` counts the cores that this process may use."""
    if server.workers != "auto":
        return max(1, server.workers)
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    return min(MOST_WORKERS, usable)


def names_of(service: Service) -> list[str]:
    """Returns the names of the instances: the one of the document, or one for each worker."""
    count = count_of(service.server)
    return [service.instance] if count == 1 else [f"{service.instance}-{one}" for one in range(count)]


def part_of(service: Service) -> Service:
    """Returns the settings of each worker, still under the name of the host.

    What is memory of the host is divided among them.
    """
    count, l1, server = count_of(service.server), service.l1, service.server
    if count == 1:
        return service
    least = max(server.max_answer, server.max_body)
    in_flight = Size(max(least, server.max_bytes_in_flight // count))
    snapshot = replace(l1.snapshot, budget=Size(max(1, l1.snapshot.budget // count)))
    return replace(
        service,
        l1=L1(Size(l1.budget // count), max(1, l1.max_entries // count), snapshot),
        server=replace(server, max_bytes_in_flight=in_flight),
    )


def workers_of(service: Service, topology: Topology) -> list[tuple[Service, Worker]]:
    """Returns the settings and the place of each worker, by number."""
    names, part = names_of(service), part_of(service)
    here = topology.regions[service.region]
    return [
        (
            replace(part, instance=name),
            Worker(
                service.instance,
                number,
                names,
                _port_in(here.instances.get(name)),
                _port_in(here.operations.get(name)) if service.server.operations.port else None,
            ),
        )
        for number, name in enumerate(names)
    ]


def embedded_ports(service: Service) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Returns the URLs of instances, and of their operations ports, that nobody has named.

    Workers have the ports after those of the host.
    """
    server, operations = service.server, service.server.operations
    names = names_of(service)
    if not server.port:
        return {}, {}
    if len(names) == 1:
        ports = [server.port], [operations.port or 0]
    else:
        first = max(server.port, operations.port or 0) + 1
        ports = [*range(first, first + len(names))], [*range(first + len(names), first + 2 * len(names))]
    data, operating = ports
    return (
        {name: url_of(server, port) for name, port in zip(names, data, strict=True)},
        {name: url_of(operations, port) for name, port in zip(names, operating, strict=True)}
        if operations.port
        else {},
    )


def url_of(listener: Server | Operations, port: int) -> str:
    """Returns the base URL of a port of this host."""
    return f"{'https' if listener.tls.cert else 'http'}://{address(listener.host, port)}"


def note_part(service: Service, found: Mistakes) -> None:
    """Notes an L1 that is too small to be divided."""
    count, budget = count_of(service.server), part_of(service).l1.budget
    found.require(
        count == 1 or budget >= 1 << 20,
        "$.l1.budget",
        f"leaves each of {count} workers less than 1MiB: give it more, or run fewer (server.workers)",
        "$.server.workers",
    )


def note_workers(service: Service, topology: Topology, found: Mistakes, shared: Mistakes) -> None:
    """Notes workers that clients and other instances could not find, or not tell apart.

    `found` has the mistakes of the service document, `shared` those of the topology.
    """
    here, names = topology.regions.get(service.region), names_of(service)
    if here is None or len(names) == 1 or not here.instances:
        return
    path, host = f"$.regions.{service.region}.instances", service.instance
    shared.require(
        host not in here.instances,
        f"{path}.{host}",
        f"runs {len(names)} workers (server.workers), which are instances: in its place name"
        f" {names[0]} to {names[-1]}, each with a port of its own in its URL",
    )
    missing = [name for name in names if name not in here.instances]
    shared.require(
        not missing,
        f"{path}.{missing[0] if missing else ''}",
        f"is missing: {host} runs {len(names)} workers (server.workers)",
        path,
    )
    for field, taken in (("instances", service.server.port), ("operations", service.server.operations.port)):
        _note_shared_ports(here, names, field, taken, f"$.regions.{service.region}.{field}", shared)


def _note_shared_ports(
    here: Region, names: Sequence[str], field: str, taken: int | None, path: str, shared: Mistakes
) -> None:
    urls = here.instances if field == "instances" else here.operations
    for name in names:
        shared.require(
            name not in urls or _port_in(urls[name]) != taken,
            f"{path}.{name}",
            f"has the port {taken} that all workers of the host share: give the worker one of its own",
        )


def _port_in(url: str | None) -> int | None:
    return urlsplit(url).port if url is not None else None
