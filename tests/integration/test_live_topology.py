"""A topology document that changes while an instance runs: what is in force, what waits."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cachesvc.app.instance import App
from cachesvc.config.service import L2, Server, Service, load_topology
from cachesvc.model.clock import SECONDS, SystemClock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.units import Duration
from cachesvc.tiers.l1.l1 import NamespaceTotals
from loadtests.fleet_topology import free_ports
from tests.doubles.raw_origin import http, raw_origin
from tests.doubles.servers import RealServer, free_port, memcached_server, valkey_server
from tests.doubles.waiting import until


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with valkey_server() as running:
        yield running


@dataclass
class Running:
    """An instance, its document and its origins."""

    document: Path
    server: RealServer
    port: int
    said: dict[str, Any] = field(default_factory=dict)
    pool: dict[str, str] = field(default_factory=dict)
    l2: L2 = field(default_factory=L2)
    http: aiohttp.ClientSession = field(init=False)
    app: App = field(init=False)

    def write(self, **pages: object) -> None:
        """Writes the document, with these settings of the namespace `pages`."""
        url = f"unix://{self.server.where}"
        pool = {name: {"address": address} for name, address in self.pool.items()}
        here = {"queue": f"{url}?db=0", "queue_on_disk": False, "pool": pool}
        topology = {
            "version": 1,
            "regions": {"eu": {**here, "instances": {"a": f"http://127.0.0.1:{self.port}"}}},
            "cells": {"c1": {"region": "eu", "url": f"{url}?db=1"}},
            "namespaces": {"pages": {"owner": "web", "jitter": 0, "early_refresh": 0, **pages}},
            **self.said,
        }
        new = self.document.with_suffix(".new")
        new.write_text(json.dumps(topology))
        new.replace(self.document)

    async def start(self) -> None:
        self.app = await asyncio.to_thread(self._built)
        await self.app.start()
        await self.until("/readyz", "")

    def _built(self) -> App:
        service = Service(region="eu", instance="a", server=Server(port=self.port), l2=self.l2)
        return App(service, load_topology(self.document), topology_file=self.document)

    async def ask(self, path: str) -> tuple[int, str, str]:
        async with self.http.get(f"http://127.0.0.1:{self.port}{path}") as answer:
            return answer.status, answer.headers.get("Cache-Control", ""), await answer.text()

    async def until(self, path: str, says: str) -> None:
        async with asyncio.timeout(20):
            while (answer := await self.ask(path))[0] != 200 or says not in answer[1] + answer[2]:  # noqa: ASYNC110  over HTTP
                await asyncio.sleep(0.05)


@pytest.fixture
async def running(server: RealServer, tmp_path: Path) -> AsyncIterator[Running]:
    found = Running(tmp_path / "topology.yaml", server, free_ports(1)[0])
    async with aiohttp.ClientSession() as session:
        found.http = session
        yield found
        await found.app.stop()


def max_age(control: str) -> int:
    """The seconds that are left until the copy expires."""
    return int(control.removeprefix("max-age=").partition(",")[0])


async def test_what_is_live_holds_at_once_and_the_rest_is_named(running: Running) -> None:
    async with AsyncExitStack() as origins:
        first, second = [await origins.enter_async_context(raw_origin()) for _ in range(2)]
        first.answer, second.answer = http(200, b"first"), http(200, b"second")
        origin: dict[str, object] = {"url": f"{first.url}/{{key}}", "headers": {"X-Key": "one"}}
        await asyncio.to_thread(running.write, ttl="5m", origin=origin)
        await running.start()
        status, control, value = await running.ask("/v1/pages/a")
        assert (status, value) == (200, "first")
        assert max_age(control) > 60

        origin = {"url": f"{second.url}/{{key}}", "headers": {"X-Key": "two"}, "concurrency": 9}
        running.said = {"version": 2, "cells": {}}
        await asyncio.to_thread(running.write, ttl="1m", origin=origin)
        await running.until("/readyz?verbose", "$.cells: ")  # a document that is wrong changes nothing
        assert max_age((await running.ask("/v1/pages/b"))[1]) > 60

        running.said = {"version": 2}
        await asyncio.to_thread(running.write, ttl="1m", lease_wait="30s", origin=origin)
        await running.until("/readyz?verbose", "namespaces.pages.origin.concurrency")
        said = json.loads((await running.ask("/readyz?verbose"))[2])
        assert said["waits_for_restart"] == ["namespaces.pages.origin.concurrency"]
        assert not any("document" in trouble for trouble in said["troubles"])
        status, control, value = await running.ask("/v1/pages/c")
        assert (status, value) == (200, "second")
        assert max_age(control) <= 60
        assert "X-Key: two" in second.requests[-1]
        assert running.app.paths.fences.longest_load_us > 30_000_000
        metrics = (await running.ask("/metrics"))[2]
        assert "cachesvc_document_waits 1.0" in metrics
        assert "cachesvc_document_outdated 0.0" in metrics


async def test_a_document_that_does_not_suit_the_service_document_changes_nothing(running: Running) -> None:
    await asyncio.to_thread(running.write, ttl="5m")
    await running.start()
    await asyncio.to_thread(running.write, ttl="2d")  # above l3.retention
    await running.until("/readyz?verbose", "the topology document of before is in force")
    await running.until("/metrics", "cachesvc_document_outdated 1.0")


async def test_a_namespace_comes_and_goes_and_comes_back(running: Running) -> None:
    async with raw_origin() as origin:
        origin.answer = http(200, b"value")
        here: dict[str, object] = {"url": f"{origin.url}/{{key}}"}
        await asyncio.to_thread(running.write, origin=here)
        await running.start()
        pages = {"owner": "web", "origin": here}
        shop = {"owner": "shop", "origin": here, "rates": {"reads": {"per_second": 1000}}}
        assert (await running.ask("/v1/shop/a"))[0] == 404
        for turn in range(2):
            running.said = {"version": 2 + turn, "namespaces": {"pages": pages, "shop": shop}}
            await asyncio.to_thread(running.write)
            await running.until("/v1/shop/a", "value")
            await running.until("/v1/shop/a", "value")  # a hit of L1, by the fast lane
            shops = running.app.paths.l1.by_namespace()["shop"]
            assert shops.items == 1
            assert 'name="shop",of="namespace"' in (await running.ask("/metrics"))[2]
            assert "shop" in (await running.ask("/v1/topology"))[2]

            running.said = {"version": 2 + turn, "namespaces": {"pages": pages}}
            await asyncio.to_thread(running.write)
            async with asyncio.timeout(10):
                while (await running.ask("/v1/shop/a"))[0] != 404:  # noqa: ASYNC110  over HTTP
                    await asyncio.sleep(0.05)
            unknown, gone = [(await running.ask(f"/v1/{name}/a"))[2] for name in ("none", "shop")]
            assert gone.split("request_id")[0] == unknown.replace("none", "shop").split("request_id")[0]
            await until("its copies are dropped", partial(is_empty, shops))
            assert 'name="shop",of="namespace"' not in (await running.ask("/metrics"))[2]
        assert (await running.ask("/v1/pages/a"))[0] == 200


@pytest.mark.parametrize("warm_up", ["5m", "0s"])
async def test_memcached_servers_are_added_replaced_and_removed(running: Running, warm_up: str) -> None:
    running.l2 = L2(warm_up=Duration.parse(warm_up))
    is_warm = warm_up != "0s"
    with ExitStack() as servers:
        one, two, three = [
            (await asyncio.to_thread(servers.enter_context, memcached_server(tcp=True))).address
            for _ in range(3)
        ]
        running.pool = {"m1": one}
        await asyncio.to_thread(running.write)
        await running.start()
        pool = running.app._backends.memcached
        keys = [Key.of("pages", f"k{number}") for number in range(200)]
        assert not await pool.l2.set_many([(key, entry(b"0")) for key in keys])

        async def found_with(**servers: str) -> int:
            """Changes the pool, and returns how many of the keys L2 has then."""
            running.pool = servers
            await asyncio.to_thread(running.write)
            await until(
                "the ring is another one",
                lambda: {name: one.address for name, one in pool._servers.items()} == servers,
            )
            found = sum(isinstance(lookup, Entry) for lookup in await pool.l2.get_many(keys))
            copied = pool.warm_up_tally.copied
            assert copied == pool.warm_up_tally.hits
            await until("what was found is copied", lambda: not is_copying())
            return found

        assert is_warm is (await found_with(m1=one, m2=two) == 200)
        assert is_warm is (await found_with(m1=three, m2=two) == 200)
        assert is_warm is (await found_with(m2=two) == 200)
        assert pool.is_warming == is_warm
        assert pool.warm_up_tally.errors == 0
        if is_warm:
            pool._end_warm_up()
            assert sum(isinstance(lookup, Entry) for lookup in await pool.l2.get_many(keys)) == 200
        await until("what left is closed", lambda: threads_of_memcached() == {"memcached m2"})
        said = {name for name in running.app._loops.statistics() if "memcached m" in name[0]}
        assert said == {("thread of memcached m2",)}
        assert 'server="m1"' not in (await running.ask("/metrics"))[2]


async def test_a_memcached_server_that_does_not_answer_holds_up_nobody(running: Running) -> None:
    with memcached_server(tcp=True) as one, memcached_server(tcp=True) as silent:
        running.pool = {"m1": one.address}
        await asyncio.to_thread(running.write)
        await running.start()
        await asyncio.to_thread(silent.pause)
        try:
            running.pool |= {"m2": silent.address, "m3": f"127.0.0.1:{free_port()}"}
            await asyncio.to_thread(running.write, ttl="1m")
            pool = running.app._backends.memcached
            await until("the ring is another one", lambda: {*pool.leaves} == {"m1", "m2", "m3"})
            assert running.app.topology.namespaces["pages"].ttl == Duration.parse("1m")
        finally:
            await asyncio.to_thread(silent.resume)


def is_empty(totals: NamespaceTotals) -> bool:
    return not totals.items


def is_copying() -> bool:
    return any(task.get_name().startswith("copy to") for task in asyncio.all_tasks())


def threads_of_memcached() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("memcached ")}


def entry(value: bytes) -> Entry:
    now = SystemClock().now_us()
    return Entry(value=value, as_of=now, fresh_until=now + 60 * SECONDS)
