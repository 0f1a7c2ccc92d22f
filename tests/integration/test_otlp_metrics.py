"""The whole service's numbers: scraped, received by OTLP, and not multiplied by those who try."""

import asyncio
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from yarl import URL

from cachesvc.app.instance import App
from cachesvc.config.service import Server, Service, Telemetry
from cachesvc.config.topology import Cell, MemcachedServer, Namespace, Origin, Region, Topology
from cachesvc.model.units import Duration
from cachesvc.telemetry.metrics.table import TABLE, Metric
from tests.doubles.otlp import OtlpReceiver, ReceivedPoint
from tests.doubles.servers import RealServer

UNITS = {"s": "_seconds", "By": "_bytes", "1": "_ratio", "": ""}


Series: TypeAlias = tuple[str, frozenset[tuple[str, str]]]
"""A name and labels, as exposed."""


@dataclass
class Site:
    url: str
    http: aiohttp.ClientSession
    receiver: OtlpReceiver

    async def ask(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> int:
        address = URL(self.url + target, encoded=True)
        async with self.http.request(method, address, headers=headers, data=body or None) as answer:
            await answer.read()
            return answer.status

    async def families(self) -> dict[str, Family]:
        """As Prometheus would read them."""
        async with self.http.get(
            f"{self.url}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
        ) as answer:
            families = parse_openmetrics(await answer.text())  # type: ignore[no-untyped-call]  # it has no types here
            return {family.name: family for family in families}

    async def scrape(self) -> dict[Series, float]:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in (await self.families()).values()
            for sample in family.samples
        }

    async def used(self) -> dict[Series, float]:
        """Everything once: loads, hits, a write, an invalidation that has come back by the feed, and servers that were asked."""
        key = uuid4().hex  # the servers are shared with the other tests
        for _ in range(3):
            assert await self.ask("GET", f"/v1/docs/{key}") == 200
        assert await self.ask("PUT", "/v1/aside/a", body=b"value") == 204
        assert await self.ask("DELETE", f"/v1/docs/{key}") == 200
        assert await self.ask("GET", f"/v1/docs/{key}") == 200
        merged = series("cachesvc_change_lag_seconds_count", stage="merged")
        items = series("cachesvc_server_items", server="m1")
        async with asyncio.timeout(15):
            found = await self.scrape()
            while found[merged] < 2 or items not in found:
                await asyncio.sleep(0.02)
                found = await self.scrape()
        return found


def series(name: str, **labels: str) -> Series:
    return name, frozenset(labels.items())


@pytest.fixture
async def site(memcached: RealServer, redis: RealServer) -> AsyncIterator[Site]:
    origin = web.Application()
    origin.router.add_get("/{key}", answer)
    async with AsyncExitStack() as stack:
        receiver = stack.enter_context(OtlpReceiver())
        server = await stack.enter_async_context(TestServer(origin))
        namespaces = {
            "docs": Namespace("tests", early_refresh=0.0, origin=Origin(str(server.make_url("/")) + "{key}")),
            "aside": Namespace("tests"),
        }
        regions = {"here": Region(redis.redis_url, {"m1": MemcachedServer(memcached.address)})}
        cells = {"c1": Cell("here", redis.redis_url.replace("db=0", "db=1"))}
        telemetry = Telemetry(otlp=receiver.url, trace_ratio=0.0, metrics_interval=Duration.parse("200ms"))
        service = Service("here", "one", Server(port=0), telemetry=telemetry)
        app = await asyncio.to_thread(
            App, service, Topology(1, regions, cells, namespaces)
        )  # reads its version from a file
        port = await app.start()
        stack.push_async_callback(app.stop)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        site = Site(f"http://127.0.0.1:{port}", http, receiver)
        async with asyncio.timeout(15):
            while await site.ask("GET", "/readyz") != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        yield site


async def answer(_: web.Request) -> web.Response:
    return web.Response(body=b"value", headers={"Cache-Control": "max-age=300"})


async def test_every_metric_of_the_table_is_exposed_with_its_kind_and_unit(site: Site) -> None:
    families = await site.families()
    for row in TABLE:
        if row.source == "workers" or row.name.startswith("cdc_"):
            continue  # this is no worker of several (test_workers.py), and reads no database (test_cdc.py)
        family = families[f"cachesvc_{row.name}{'_' + row.unit if row.unit else ''}"]
        assert (family.type, family.unit) == (row.kind, row.unit), row.name


async def test_promtool_finds_nothing_against_the_names(site: Site) -> None:
    await site.used()
    async with site.http.get(f"{site.url}/metrics") as answer:
        text = await answer.read()
    checking = await asyncio.create_subprocess_exec(
        "promtool", "check", "metrics", stdin=PIPE, stdout=PIPE, stderr=STDOUT
    )
    said, _ = await checking.communicate(text)
    assert (checking.returncode, said.decode()) == (0, "")


async def test_what_was_done_is_counted_where_it_was_done(site: Site) -> None:
    found = await site.used()
    assert found[series("cachesvc_origin_load_duration_seconds_count", namespace="docs")] == 2
    assert (
        found[series("cachesvc_change_lag_seconds_count", stage="published")] == 2
    )  # the put's and the delete's
    for server, operations in (
        ("m1", ("gets", "sets", "deletes")),
        ("c1", ("reads", "fills", "puts", "fences")),
    ):
        for operation in operations:
            for name in ("cachesvc_exchange_duration_seconds_count", "cachesvc_batch_size_count"):
                assert found[series(name, server=server, operation=operation)] > 0, (name, operation)
    assert found[series("cachesvc_l1_namespace_items", namespace="docs")] == 1
    assert found[series("cachesvc_server_limit_bytes", server="m1")] > 0
    assert found[series("cachesvc_cell_memory_bytes", cell="c1")] > 0
    assert found[series("cachesvc_breaker_open", kind="memcached", server="m1")] == 0
    assert found[series("cachesvc_max_lag_seconds", namespace="docs")] == 2
    assert found[series("cachesvc_ready")] == 1


async def test_the_receiver_gets_the_numbers_that_a_scrape_says(site: Site) -> None:
    """Those that stand still from one scrape to the next, with an export in between."""
    await site.used()
    before = await site.scrape()
    so_far = len(site.receiver.bodies)
    await site.receiver.until(lambda receiver: len(receiver.bodies) >= so_far + 2)
    received = {
        one: value
        for row in TABLE
        for point in site.receiver.latest(f"cachesvc_{row.name}")
        for one, value in exposed(row, point)
    }
    after = await site.scrape()
    still = {
        one: value for one, value in before.items() if after[one] == value and one[0].startswith("cachesvc_")
    }
    assert len(still) > 300
    assert {one: received.get(one) for one in still} == pytest.approx(still)


def exposed(row: Metric, point: ReceivedPoint) -> Iterator[tuple[Series, float]]:
    """A data point as the series of an exposition."""
    name = point.name + UNITS[point.unit]
    labels = {label: str(value) for label, value in point.attributes.items()}
    if row.kind == "histogram":
        yield series(f"{name}_count", **labels), point.value
        yield series(f"{name}_sum", **labels), point.total
        for bound, count in zip((*map(str, point.bounds), "+Inf"), accumulate(point.buckets), strict=True):
            yield series(f"{name}_bucket", **labels, le=bound), count
    else:
        assert point.kind == ("sum" if row.kind == "counter" else "gauge")
        yield series(name + ("_total" if row.kind == "counter" else ""), **labels), point.value


async def test_no_caller_makes_series(site: Site) -> None:
    """Whatever is asked for in whatever way: what is counted under is declared."""
    await site.used()
    for name in ("one", "two"):  # what the first of them loads is a hit to the second
        await hostile(site, name)
    known = (await site.scrape()).keys()
    for name in ("three", "four"):
        await hostile(site, name)
    assert (await site.scrape()).keys() - known == set()
    assert not [one for one in known if "hostile" in str(one)]


async def hostile(site: Site, name: str) -> None:
    """Every kind of nonsense, under names that were never used before."""
    word = f"hostile-{name}"
    for target in (
        f"/v1/{word}/k",
        f"/v1/docs/{word}",
        f"/{word}",
        f"/v1/{word}:get",
        f"/v1/docs/%00{word}",
        f"/v1/docs/k:{word}",
    ):
        for method in ("GET", "HEAD", "PUT", "DELETE", "POST", "PATCH", word.upper()):
            await site.ask(
                method,
                target,
                {"Cachesvc-Caller": word, "Cache-Control": word, "Cachesvc-Token": word},
                word.encode(),
            )
    for body in (
        f'{{"namespace": "{word}", "keys": ["k"]}}',
        f'{{"namespace": "docs", "tags": ["{word}"]}}',
        f"{{{word}",
    ):
        await site.ask("POST", "/v1/invalidations", {"Content-Type": "application/json"}, body.encode())
    for body in (f'{{"keys": ["{word}", "a"]}}', word):
        await site.ask("POST", "/v1/docs:get", {"Content-Type": "application/json"}, body.encode())
    await site.ask("GET", f"/v1/invalidations/{word}")
