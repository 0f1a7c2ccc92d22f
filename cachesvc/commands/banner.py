"""The banner of `serve`: the servers, which of them are stand-ins, and one call to try."""

from collections.abc import Sequence
from importlib.metadata import version

from cachesvc.config.service import Service
from cachesvc.config.topology import Namespace, Topology
from cachesvc.config.workers import names_of


def banner(
    service: Service, topology: Topology, url: str, embedded: Sequence[str], *, operations: str = ""
) -> str:
    """The banner's text.

    `embedded`: a line for each server that was started for this instance; empty if a topology was
    given. `operations`: the URL of the operations port, if there is one.
    """
    namespaces = ", ".join(_named(name, namespace) for name, namespace in topology.namespaces.items())
    instances = topology.regions[service.region].instances
    names = names_of(service)
    workers = [f"  worker {name}{f': {instances[name]}' if name in instances else ''}" for name in names]
    who = (
        f"instance {service.instance}" if len(names) == 1 else f"{service.instance} with {len(names)} workers"
    )
    lines = [
        f"cachesvc {version('cachesvc')} serves {url} (region {service.region}, {who})",
        *([f"  operations: {operations}"] if operations else []),
        *(workers if len(names) > 1 else []),
        f"  L1: {service.l1.budget >> 20} MiB {'in this process' if len(names) == 1 else 'in all workers'}",
        *(f"  {line}" for line in embedded or _given(service, topology)),
        f"  namespaces: {namespaces}",
    ]
    if embedded:
        lines.append("  Embedded servers keep nothing when they stop. Ctrl-C stops all of them.")
    return "\n".join([*lines, *_to_try(topology, url)])


def _given(service: Service, topology: Topology) -> list[str]:
    region = topology.regions[service.region]
    pool = ", ".join(f"{name} {server.address}" for name, server in region.pool.items()) or "none"
    cells = ", ".join(f"{name} ({cell.region})" for name, cell in topology.cells.items())
    return [f"L2: {pool}", f"L3 cells: {cells}"]


def _named(name: str, namespace: Namespace) -> str:
    return f"{name} ({'read-through' if namespace.origin else 'look-aside'})"


def _to_try(topology: Topology, url: str) -> list[str]:
    """A call to try: store and read for a look-aside namespace, where a read alone would be a
    miss; else a read."""
    for name, namespace in topology.namespaces.items():
        at = f"{url}/v1/{name}/hello"
        store = "" if namespace.origin else f"curl -X PUT -d 'hello, world' {at} && "
        return ["Try:", f"  {store}curl -i {at}"]
    return []
