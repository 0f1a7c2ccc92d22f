"""Eight instances of a region share its limits, on a real queue, cell and origin."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from cachesvc.app.instance import App
from cachesvc.config.limits import OriginBudget, Rate, Rates
from cachesvc.config.service import Coherence, Server, Service
from cachesvc.config.topology import Cell, Namespace, Origin, Region, Topology
from cachesvc.model.units import Duration
from tests.doubles.servers import RealServer, redis_server

INSTANCES = 8
AT_ONCE = 16
PER_SECOND = 200


class CountingOrigin:
    """An origin that takes 30 ms for a value, and notes how many it works on at once."""

    def __init__(self) -> None:
        self.running = self.peak = 0

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await asyncio.sleep(0.03)
        finally:
            self.running -= 1
        return web.Response(body=b"value")


class Fleet:
    """The instances of a region, by their ports, and the origin behind them."""

    def __init__(self, apps: list[App], ports: list[int], origin: CountingOrigin) -> None:
        self.apps, self.ports, self.origin = apps, ports, origin
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def ask(self, instance: int, path: str) -> tuple[int, str]:
        """Returns the status, and the kind of the problem if it is one."""
        async with self.session.get(f"http://127.0.0.1:{self.ports[instance]}{path}") as answer:
            body = await answer.read()
            kind = "" if answer.status == 200 else json.loads(body)["type"].rsplit("/", 1)[-1]
            return answer.status, kind


@asynccontextmanager
async def fleet() -> AsyncIterator[Fleet]:
    origin = CountingOrigin()
    async with AsyncExitStack() as stack:
        servers: list[RealServer] = [
            await asyncio.to_thread(stack.enter_context, redis_server()) for _ in range(2)
        ]
        runner = web.ServerRunner(web.Server(origin.answer))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await (site := web.TCPSite(runner, "127.0.0.1", 0)).start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]  # of asyncio's
        topology = Topology(
            version=1,
            regions={
                "eu": Region(
                    servers[0].redis_url,
                    instances={f"i{i}": f"http://127.0.0.1:{i + 1}" for i in range(INSTANCES)},
                )
            },
            cells={"c1": Cell("eu", servers[1].redis_url)},
            namespaces={
                "pages": Namespace(
                    "web",
                    origin=Origin(f"http://127.0.0.1:{port}/{{key}}"),
                    origin_budget=OriginBudget(concurrency=AT_ONCE),
                ),
                "users": Namespace("id", rates=Rates(reads=Rate(PER_SECOND, burst=PER_SECOND))),
            },
        )
        apps, ports = [], []
        for i in range(INSTANCES):
            service = Service(
                region="eu",
                instance=f"i{i}",
                server=Server(port=0),
                coherence=Coherence(max_clock_skew=Duration(20_000), sketch_slots=1 << 12),
            )
            app = await asyncio.to_thread(App, service, topology)  # it reads files
            ports.append(await app.start())
            stack.push_async_callback(app.stop)
            apps.append(app)
        made = Fleet(apps, ports, origin)
        stack.push_async_callback(made.session.close)
        while not all(app.readiness()[0] for app in apps):  # noqa: ASYNC110  it has no event
            await asyncio.sleep(0.05)
        yield made


@pytest.mark.timeout(60)
async def test_eight_instances_stay_within_the_limits_of_their_region() -> None:
    rng = random.Random(3)
    async with fleet() as running:
        found: Counter[tuple[int, str]] = Counter()

        async def load(number: int) -> None:
            instance = 0 if rng.random() < 0.98 else rng.randrange(INSTANCES)
            found[await running.ask(instance, f"/v1/pages/k{number}")] += 1

        for round_ in range(6):
            await asyncio.gather(*(load(round_ * 100 + i) for i in range(100)))
        assert set(found) <= {(200, ""), (503, "origin-budget")}
        assert found[200, ""] > 100
        assert running.origin.peak <= AT_ONCE
        shares = [app.limits.turns["pages"].shares[0].in_force for app in running.apps]
        assert sum(shares) <= AT_ONCE
        assert shares[0] == max(shares) >= AT_ONCE // 2, "the busy one has most of it"

        loop = asyncio.get_running_loop()
        began, reads = loop.time(), Counter[tuple[int, str]]()
        while loop.time() - began < 2:
            instance = 0 if rng.random() < 0.8 else rng.randrange(INSTANCES)
            answers = await asyncio.gather(*(running.ask(instance, "/v1/users/k") for _ in range(30)))
            reads.update(answers)
        seconds = loop.time() - began
        assert set(reads) == {(404, "cache-miss"), (429, "rate-limited")}
        assert reads[404, "cache-miss"] <= 1.05 * (PER_SECOND * seconds + PER_SECOND)
        assert "reads of namespace users" in str(running.apps[0].readiness()[1]["troubles"])
        async with running.session.get(f"http://127.0.0.1:{running.ports[0]}/metrics") as answer:
            text = await answer.text()
        assert 'cachesvc_limit_refused_total{limit="reads",name="users",of="namespace"}' in text
