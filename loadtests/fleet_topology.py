"""The topology document of a fleet: which ports it names, and the same document on ports that are free here."""

import contextlib
import random
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from cachesvc.app.embedded.server_process import ServerStartError
from cachesvc.config.service import load_topology
from cachesvc.config.topology import Topology

PORTS = (10_000, 30_000)
_LOOPBACK = re.compile(r"(?<![\w.])(127\.0\.0\.1|localhost):(\d+)")


def on_free_ports(text: str) -> str:
    """The document with every loopback port replaced by a free one; equal ports stay equal.

    Nothing keeps another process from taking such a port before the fleet does; then the server's start fails and says so.
    """
    found = sorted({match[2] for match in _LOOPBACK.finditer(text)}, key=int)
    free = dict(zip(found, free_ports(len(found)), strict=True))
    return _LOOPBACK.sub(lambda match: f"{match[1]}:{free[match[2]]}", text)


def free_ports(count: int) -> list[int]:
    """Different ports: all are held until the last one is found.

    Below the range that the kernel gives to outgoing connections. From within it, a client that knocks at a killed server can
    be given the server's own port, connect to itself, and keep the server from coming back.
    """
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            port = random.randrange(*PORTS)
            with contextlib.suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
    return found


def write_topology(source: Path, target: Path, *, free: bool, namespaces: dict[str, Any]) -> Topology:
    """Write the document that the fleet runs with, more `namespaces` added, and read it as an instance would."""
    text = source.read_text()
    document = yaml.safe_load(on_free_ports(text) if free else text)
    document["namespaces"].update(namespaces)
    target.write_text(yaml.safe_dump(document, sort_keys=False))
    return load_topology(target)


def write_detoured(source: Path, target: Path, ports: Mapping[int, int]) -> None:
    """Write the document as those see it who reach a server at another port: names, and so placement, stay the same."""
    text = source.read_text()
    target.write_text(_LOOPBACK.sub(lambda match: f"{match[1]}:{ports.get(int(match[2]), match[2])}", text))


def refuse_taken_ports(topology: Topology) -> None:
    """Raises `ServerStartError`. A server that finds its port taken ends, but another's answer there looks like its own."""
    for what, port in ports_of(topology):
        with socket.socket() as probe:
            probe.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # else a port that was just left counts as taken
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise ServerStartError(
                    f"port {port} ({what}) is in use: is another fleet running?"
                ) from error


def ports_of(topology: Topology) -> Iterator[tuple[str, int]]:
    """Every port that the fleet's own servers listen on, and whose it is."""
    for name, region in topology.regions.items():
        yield f"queue of {name}", port_of(region.queue)
        yield from ((f"memcached {server}", port_of(at.address)) for server, at in region.pool.items())
        yield from ((f"instance {instance}", port_of(url)) for instance, url in region.instances.items())
    yield from ((f"cell {name}", port_of(cell.url)) for name, cell in topology.cells.items())


def port_of(address: str) -> int:
    """Of a URL or a `host:port`. Raises `ValueError` for what is not on loopback: a fleet runs on one machine."""
    match = _LOOPBACK.search(address)
    if match is None:
        raise ValueError(f"{address} is not on 127.0.0.1 with a port")
    return int(match[2])
