"""Measures the loads of the origin while a cell is drained under load, warm and cold.

    python -m loadtests.moving

Servers are real: an instance, two cells, the reference origin; no memcached, and a small L1, so
that most reads go to the cells. Each line has the loads of the origin in a window of the same
length: in calm, and from the moment at which all partitions of a cell begin to move. `cold` is a
move whose `former.since` is so long ago that nobody asks the former home, which is what a move was
without it.
"""

import asyncio
import random
import tempfile
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from cachesvc.commands.cell.edit import Document, drained, former_of, settled
from cachesvc.config.service import load_topology
from loadtests.fleet import Fleet
from loadtests.fleet_topology import one_region

KEYS = 4_000
READS_PER_SECOND = 400
WINDOW_SECONDS = 10.0
TTL_SECONDS = 30
LONG_AGO = timedelta(days=1)


def _document() -> Document:
    origin = {"url": "http://127.0.0.1:29100/docs/{key}", "concurrency": 1_000}
    found = one_region(["eu-a"], origin=origin, jitter=0.5, early_refresh=0)
    found["regions"]["eu"].pop("pool")
    found["cells"]["c2"] = {"region": "eu", "url": "redis://127.0.0.1:26102/0", "active": False}
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "document.yaml")
        source.write_text(yaml.safe_dump(_document()))
        settings = {"CACHESVC_L1_BUDGET": "1MiB"}
        with Fleet(source, Path(folder, "run"), environ=settings, with_origin=True) as fleet:
            asyncio.run(_measure(fleet))


async def _measure(fleet: Fleet) -> None:
    namespace = fleet.topology.namespaces["pages"]
    assert namespace.origin is not None
    origin = namespace.origin.url.partition("/docs/")[0]
    async with aiohttp.ClientSession() as http:
        await _control(http, origin, cache_control=f"max-age={TTL_SECONDS}")
        reading = asyncio.create_task(_read(http, f"{fleet.url('eu-a')}/v1/pages"))
        await asyncio.sleep(TTL_SECONDS * 1.5)
        calm = await _loads(http, origin)
        _write(fleet.topology_path, "c1", timedelta())
        warm = await _loads(http, origin)
        await asyncio.sleep(TTL_SECONDS)
        _settle(fleet.topology_path)
        await asyncio.sleep(3)
        calm_again = await _loads(http, origin)
        _write(fleet.topology_path, "c2", LONG_AGO)
        cold = await _loads(http, origin)
        reading.cancel()
    print(f"loads in {WINDOW_SECONDS:.0f} s   calm    drained   drained/calm")
    print(f"warm            {calm:8,} {warm:10,} {warm / calm:14.2f}")
    print(f"cold            {calm_again:8,} {cold:10,} {cold / calm_again:14.2f}")


def _write(path: Path, leaves: str, ago: timedelta) -> None:
    """Writes the document in which all partitions leave a cell for the other one."""
    before = load_topology(path)
    document: Document = yaml.safe_load(path.read_text())
    other = next(name for name in document["cells"] if name != leaves)
    cells = {**document["cells"], other: {**document["cells"][other], "active": True}}
    after = drained({**document, "cells": cells}, leaves)
    _replace(path, {**after, "former": former_of(before, datetime.now(UTC) - ago)}, before.version + 1)


def _settle(path: Path) -> None:
    """Writes the document after the move; the cell that was left stays, for the next move."""
    topology = load_topology(path)
    document: Document = yaml.safe_load(path.read_text())
    after = {**settled(document, topology), "cells": document["cells"]}
    _replace(path, after, topology.version + 1)


def _replace(path: Path, document: Document, version: int) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(yaml.safe_dump({**document, "version": version}, sort_keys=False))
    draft.replace(path)


async def _read(http: aiohttp.ClientSession, url: str) -> None:
    """Reads keys that are popular by rank (Zipf) until it is cancelled."""
    weights, rng = list(accumulate(1 / (nth + 1) ** 0.7 for nth in range(KEYS))), random.Random(7)
    running: set[asyncio.Task[None]] = set()
    while True:
        for key in rng.choices(range(KEYS), cum_weights=weights, k=READS_PER_SECOND // 20):
            one = asyncio.create_task(_get(http, f"{url}/{{p-{key % 100}}}:{key}"))
            running.add(one)
            one.add_done_callback(running.discard)
        await asyncio.sleep(0.05)


async def _get(http: aiohttp.ClientSession, url: str) -> None:
    async with http.get(url) as answer:
        await answer.read()


async def _loads(http: aiohttp.ClientSession, origin: str) -> int:
    """Returns the loads that the origin gets in a window from now on."""
    await _control(http, origin, reset=True)
    await asyncio.sleep(WINDOW_SECONDS)
    async with http.get(f"{origin}/_stats") as answer:
        found: int = (await answer.json())["loads"]
    return found


async def _control(http: aiohttp.ClientSession, origin: str, **what: Any) -> None:
    async with http.post(f"{origin}/_control", json=what) as answer:
        answer.raise_for_status()


if __name__ == "__main__":
    main()
