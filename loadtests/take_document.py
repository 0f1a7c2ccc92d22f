"""Measures what it costs an instance to take over a changed topology document.

    python -m loadtests.take_document

The instance runs in this process, beside one real Redis server whose databases are its queue and
its cells. Each line is one change: the time from the look at the file until all of it is in force,
the CPU time of this process in it, and the longest turn of the event loop. The turn is told in work
of the loop's thread and by the clock: on a busy machine a thread that waits for a core stands, too.
"""

import argparse
import asyncio
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from cachesvc.app.instance import App
from cachesvc.config.service import Server, Service, load_topology
from loadtests.fleet_servers import redis_server
from loadtests.fleet_topology import free_ports

TICK_SECONDS = 0.001


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.take_document")
    parser.add_argument("--namespaces", type=int, default=1_000)
    parser.add_argument("--cells", type=int, default=200)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        (port,) = free_ports(1)
        server = redis_server("all", port, Path(folder), {"databases": str(options.cells + 1)})
        server.start()
        try:
            document, url = Path(folder, "topology.yaml"), f"redis://127.0.0.1:{port}"
            uvloop.run(_measure(document, url, options.namespaces, options.cells))
        finally:
            server.stop()


async def _measure(path: Path, url: str, namespaces: int, cells: int) -> None:
    first = _document(url, namespaces, cells)
    await asyncio.to_thread(path.write_text, json.dumps(first))
    service = Service(region="eu", instance="a", server=Server(port=0))
    topology = await asyncio.to_thread(load_topology, path)
    app = App(service, topology, topology_file=path)
    await app.start()
    await asyncio.sleep(2)
    print(f"{namespaces} namespaces, {cells} cells")
    print("                                    ms    CPU ms    longest turn: ms of work, by the clock")
    try:
        quiet = {"version": 1}
        for name, changed in (
            ("nothing, for 3 s", quiet),
            ("the TTL of one namespace", _document(url, namespaces, cells, one="1m")),
            ("the TTLs of all namespaces", _document(url, namespaces, cells, ttl="2m")),
            ("half of the namespaces go", _document(url, namespaces // 2, cells, ttl="2m")),
            ("half of the namespaces come", _document(url, namespaces, cells, ttl="2m")),
        ):
            await _change(app, path, name, changed)
    finally:
        await app.stop()


async def _change(app: App, path: Path, name: str, document: dict[str, Any]) -> None:
    """Prints what it costs to take this document over."""
    assert app._read_again is not None
    await asyncio.sleep(1.5)
    if len(document) > 1:
        await asyncio.to_thread(path.write_text, json.dumps(document))
    gaps = asyncio.create_task(_longest_gaps(ends := asyncio.Event()))
    await asyncio.sleep(0.05)
    began, cpu = time.perf_counter(), time.process_time()
    if len(document) > 1:
        await app._read_again.look()
    else:
        await asyncio.sleep(3)
    took, busy = time.perf_counter() - began, time.process_time() - cpu
    await asyncio.sleep(0.05)
    ends.set()
    figures = "".join(f"{1e3 * one:18.1f}" for one in await gaps)
    print(f"{name:28} {took * 1e3:9.0f} {busy * 1e3:9.0f} {figures}")


async def _longest_gaps(ends: asyncio.Event) -> tuple[float, float]:
    """Returns the longest turn of the loop, s: in work of its thread, and by the clock."""
    work = wall = 0.0
    while not ends.is_set():
        began, spent = time.perf_counter(), time.thread_time()
        await asyncio.sleep(TICK_SECONDS)
        wall = max(wall, time.perf_counter() - began - TICK_SECONDS)
        work = max(work, time.thread_time() - spent)
    return work, wall


def _document(url: str, namespaces: int, cells: int, ttl: str = "5m", one: str = "") -> dict[str, Any]:
    origin = {"url": "http://127.0.0.1:1/{key}"}
    declared = {
        f"space-{nth}": {"owner": "load tests", "ttl": ttl, "origin": origin} for nth in range(namespaces)
    }
    if one:
        declared["space-0"] = declared["space-0"] | {"ttl": one}
    return {
        "version": 1,
        "regions": {
            "eu": {"queue": f"{url}/0", "queue_on_disk": False, "instances": {"a": "http://127.0.0.1:1"}}
        },
        "cells": {f"c{nth}": {"region": "eu", "url": f"{url}/{nth + 1}"} for nth in range(cells)},
        "namespaces": declared,
    }


if __name__ == "__main__":
    main()
