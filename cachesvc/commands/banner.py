"""What `serve` says when it is ready: what runs where, what is real and what is stood in, and one call to try."""

from collections.abc import Sequence
from importlib.metadata import version

from cachesvc.config.service import Service
from cachesvc.config.topology import Namespace, Topology


def banner(service: Service, topology: Topology, url: str, embedded: Sequence[str]) -> str:
    """`embedded` describes the servers that were started for this instance; empty when a topology was given."""
    lines = [
        f"cachesvc {version('cachesvc')} serves {url} (region {service.region}, instance {service.instance})",
        f"  L1: {service.l1.budget >> 20} MiB in this process",
        *(f"  {line}" for line in embedded or _given(service, topology)),
        f"  namespaces: {', '.join(_named(name, namespace) for name, namespace in topology.namespaces.items())}",
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
    """A stored value for a look-aside namespace, since a miss is a poor first impression; else a read through."""
    for name, namespace in topology.namespaces.items():
        at = f"{url}/v1/{name}/hello"
        store = "" if namespace.origin else f"curl -X PUT -d 'hello, world' {at} && "
        return ["Try:", f"  {store}curl -i {at}"]
    return []
