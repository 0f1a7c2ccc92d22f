"""`cachesvc topology diff --from`: what it foretells is what the origin then counts."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from cachesvc.app.instance import App
from cachesvc.cli import main
from cachesvc.commands.top.exposition import Exposition
from cachesvc.commands.topology.difference import difference
from cachesvc.commands.topology.forecast import Measured, forecast
from cachesvc.config.service import L1, Server, Service, load_topology
from cachesvc.config.topology import Topology
from cachesvc.model.units import Size
from loadtests.fleet_topology import free_ports
from tests.doubles.servers import RealServer, memcached_server, redis_server

KEYS = 1600
READS = 600
VALUE = b"v" * 4096
PAUSE_SECONDS = 0.4
"""A cell that has met another placement answers nothing for 100 ms."""
LONG_AGO = "2020-01-01T00:00:00Z"
SECONDS = 10.0
"""The time that the reads are said to have taken: what is compared are counts."""


class Origin:
    """Answers every key, and counts."""

    def __init__(self) -> None:
        self.loads = 0
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        runner = web.ServerRunner(web.Server(self._answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield
        await runner.cleanup()

    async def _answer(self, _: web.BaseRequest) -> web.Response:
        self.loads += 1
        return web.Response(body=VALUE)


@pytest.fixture
def redis() -> Iterator[RealServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
def memcached() -> Iterator[RealServer]:
    """It holds a part of the keys, so L3 answers for the others."""
    with memcached_server("-m", "2") as running:
        yield running


class Deployment:
    """One instance at a time, on the same servers."""

    def __init__(self, redis: RealServer, memcached: RealServer, origin: Origin, folder: Path) -> None:
        self._redis, self._memcached, self._origin, self._folder = redis, memcached, origin, folder
        (self.port,) = free_ports(1)

    def document(self, version: int, cells: Sequence[str], **more: Any) -> Path:
        at = f"unix://{self._redis.where}?db="
        budget = {"loads_per_second": 60}
        made = {
            "version": version,
            "regions": {
                "eu": {
                    "queue": f"{at}9",
                    "queue_on_disk": False,
                    "pool": {"m1": {"address": self._memcached.address}},
                    "instances": {"a": f"http://127.0.0.1:{self.port}"},
                }
            },
            "cells": {name: {"region": "eu", "url": f"{at}{name[1:]}"} for name in cells},
            "namespaces": {
                "pages": {
                    "owner": "web",
                    "origin": {"url": f"{self._origin.url}/{{key}}"},
                    "early_refresh": 0,
                    "origin_budget": {**budget, "burst": 100_000},
                }
            },
            **more,
        }
        path = self._folder / f"{version}.yaml"
        path.write_text(yaml.safe_dump(made))
        return path

    @asynccontextmanager
    async def running(self, topology: Topology) -> AsyncIterator["Running"]:
        service = Service(
            region="eu", instance="a", l1=L1(budget=Size(1 << 20)), server=Server(port=self.port)
        )
        app = await asyncio.to_thread(App, service, topology)
        await app.start()
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{self.port}") as http:
                running = Running(http)
                while not await running.is_ready():  # noqa: ASYNC110  over HTTP
                    await asyncio.sleep(0.02)
                yield running
        finally:
            await app.stop()


class Running:
    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def is_ready(self) -> bool:
        async with self._http.get("/readyz") as answer:
            return answer.status == 200

    async def metrics(self) -> Exposition:
        async with self._http.get("/metrics") as answer:
            return Exposition.parse(await answer.text())

    async def read(self, keys: Sequence[str]) -> None:
        waiting = iter(keys)

        async def reader() -> None:
            for key in waiting:
                async with self._http.get(f"/v1/pages/{key}") as answer:
                    assert answer.status == 200
                    await answer.read()

        await asyncio.gather(*(reader() for _ in range(8)))


@pytest.mark.parametrize("is_warm", [True, False])
async def test_the_loads_that_a_new_cell_brings_are_those_that_were_foretold(
    redis: RealServer,
    memcached: RealServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    is_warm: bool,
) -> None:
    """Reads by popularity (Zipf), before and after the third cell has come."""
    rng, origin = random.Random(3), Origin()
    names = [f"{{ws-{nth}}}:page" for nth in range(KEYS)]
    weights = list(accumulate(1 / (nth + 1) ** 0.7 for nth in range(KEYS)))
    reads = [rng.choices(names, cum_weights=weights, k=READS) for _ in range(3)]
    async with origin.running():
        deployment = Deployment(redis, memcached, origin, tmp_path)
        before = await asyncio.to_thread(load_topology, deployment.document(1, ["c1", "c2"]))
        former = {"cells": {"c1": 1.0, "c2": 1.0}} | ({} if is_warm else {"since": LONG_AGO})
        after = await asyncio.to_thread(
            load_topology, deployment.document(2, ["c1", "c2", "c3"], former=former)
        )
        async with deployment.running(before) as running:
            await running.read(names)
            await running.read(reads[0])
            first, calm = await running.metrics(), origin.loads
            await running.read(reads[1])
            seen = Measured(SECONDS, {"a": first}, {"a": await running.metrics()})
            calm = origin.loads - calm
            command = ["topology", "diff", *(str(tmp_path / f"{nth}.yaml") for nth in (1, 2))]
            asked = [*command, "--from", f"http://127.0.0.1:{deployment.port}", "--over", "100ms"]
            assert await asyncio.to_thread(main, asked, {}) == 2
            assert "To expect, by what 1 instance measured in " in capsys.readouterr().out
        found = difference(before, after)
        (said,) = forecast(before, after, found.partitions, found.keys, seen).loads
        async with deployment.running(after) as running:
            await asyncio.sleep(PAUSE_SECONDS)
            counted = origin.loads
            await running.read(reads[2])
            counted = origin.loads - counted
    assert said.now * SECONDS == calm
    assert said.moved * SECONDS > 60
    assert said.extra == (0 if is_warm else said.moved)
    assert said.extra * SECONDS == pytest.approx(counted - calm, abs=0.25 * said.moved * SECONDS)
