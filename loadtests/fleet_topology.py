"""The topology document of a fleet: its ports, and the same document on free ports."""

import contextlib
import random
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from cachesvc.app.embedded.server_process import ServerStartError
from cachesvc.config.service import load_topology
from cachesvc.config.topology import Topology

PORTS = (10_000, 30_000)
_LOOPBACK = re.compile(r"(?<![\w.])(127\.0\.0\.1|localhost):(\d+)")


def one_region(instances: Iterable[str], **contract: object) -> dict[str, Any]:
    """Returns the document of one region `eu` with a server of each kind and these instances.

    `contract`: what the document says of the only namespace, `pages`, beside its owner.
    """
    return {
        "version": 1,
        "regions": {
            "eu": {
                "queue": "redis://127.0.0.1:26100/0",
                "pool": {"m1": {"address": "127.0.0.1:21101"}},
                "instances": {name: f"http://127.0.0.1:{8101 + nth}" for nth, name in enumerate(instances)},
            }
        },
        "cells": {"c1": {"region": "eu", "url": "redis://127.0.0.1:26101/0"}},
        "namespaces": {"pages": {"owner": "load tests", **contract}},
    }


def on_free_ports(text: str) -> str:
    """The document with every loopback port replaced by a free one; equal ports stay equal.

    Another process can still take such a port before the fleet does. Then the start of that server
    fails with a message that says so.
    """
    found = sorted({match[2] for match in _LOOPBACK.finditer(text)}, key=int)
    free = dict(zip(found, free_ports(len(found)), strict=True))
    return _LOOPBACK.sub(lambda match: f"{match[1]}:{free[match[2]]}", text)


def free_ports(count: int) -> list[int]:
    """Different ports that are free now. All of them are held until the last one is found.

    The ports lie below the range that the kernel gives to outgoing connections. In that range, a
    client that tries to reach a killed server can be given the server's own port, connect to itself,
    and so keep the server from coming back.
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
    """Writes the document that the fleet runs with, and reads it as an instance would.

    `namespaces` are added to it; with `free`, its ports are replaced by free ones.
    """
    text = source.read_text()
    document = yaml.safe_load(on_free_ports(text) if free else text)
    document["namespaces"].update(namespaces)
    target.write_text(yaml.safe_dump(document, sort_keys=False))
    return load_topology(target)


def write_detoured(source: Path, target: Path, ports: Mapping[int, int]) -> None:
    """Writes the document for an instance that reaches some servers at other ports.

    `ports` maps the document's port to the other one. Names stay the same, and so does placement.
    """
    text = source.read_text()
    target.write_text(_LOOPBACK.sub(lambda match: f"{match[1]}:{ports.get(int(match[2]), match[2])}", text))


def refuse_taken_ports(topology: Topology) -> None:
    """Raises `ServerStartError` if a port of the topology is in use.

    A server that finds its port taken would end, but the other server's answer at that port would
    look like its own.
    """
    for what, port in ports_of(topology):
        with socket.socket() as probe:
            # Without this option a port that was just closed counts as taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise ServerStartError(
                    f"port {port} ({what}) is in use: is another fleet running?"
                ) from error


def ports_of(topology: Topology) -> Iterator[tuple[str, int]]:
    """Yields every port that the fleet's own servers listen on, with its owner's name first."""
    for name, region in topology.regions.items():
        yield f"queue of {name}", port_of(region.queue)
        yield from ((f"memcached {server}", port_of(at.address)) for server, at in region.pool.items())
        yield from ((f"instance {instance}", port_of(url)) for instance, url in region.instances.items())
    yield from ((f"cell {name}", port_of(cell.url)) for name, cell in topology.cells.items())


def port_of(address: str) -> int:
    """The port of a URL or a `host:port`.

    Raises `ValueError` for an address that is not on loopback: a fleet runs on one machine.
    """
    match = _LOOPBACK.search(address)
    if match is None:
        raise ValueError(f"{address} is not on 127.0.0.1 with a port")
    return int(match[2])
