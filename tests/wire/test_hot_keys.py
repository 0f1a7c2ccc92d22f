"""`GET /v1/hotkeys`: digests for everybody, key text for the debug token alone."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cachesvc.changes.broadcast.broadcast import Broadcast
from cachesvc.config.service import Service, Telemetry
from cachesvc.model.entry import Key
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.web.server import Web
from tests.doubles.clocks import ManualClock
from tests.doubles.paths import FakePaths
from tests.wire.conftest import SKEW_US, TOPOLOGY, Site

TOKEN = "open sesame"
TARGET = "/v1/hotkeys?namespace=pages"


@asynccontextmanager
async def site_with(token: str) -> AsyncIterator[Site]:
    clock = ManualClock()
    paths, broadcast = FakePaths(clock), Broadcast(clock, SKEW_US, TOPOLOGY.regions)
    metrics = Metrics()
    service = Service(telemetry=Telemetry(debug_token=token))
    web = Web(service, TOPOLOGY, paths, broadcast, lambda: (True, {}), metrics, clock=clock)
    port = await web.start("127.0.0.1", 0)
    try:
        yield Site(web, port, clock, paths, broadcast, metrics)
    finally:
        await web.stop()


def ask_often(site: Site) -> None:
    for text, times in (("user:anna", 3), ("user:otto", 1)):
        for _ in range(times):
            site.paths.hot_keys.read(Key.of("pages", text))
    site.paths.hot_keys.valued(Key.of("pages", "user:otto"), 700)
    site.clock.advance(seconds=16)


async def test_keys_are_named_by_digest(site: Site) -> None:
    ask_often(site)
    response = await site.ask("GET", TARGET)
    digests = [f"{Key.of('pages', text).digest:016x}" for text in ("user:anna", "user:otto")]
    assert b"anna" not in response.body
    assert json.loads(response.body) == {
        "namespace": "pages",
        "window_seconds": 16.0,
        "reads_sampled": 4,
        "sampled_one_in": 64,
        "hot": [
            {"digest": digests[0], "share": 0.75, "error": 0.0, "reads_per_second": 12.0},
            {"digest": digests[1], "share": 0.25, "error": 0.0, "reads_per_second": 4.0},
        ],
        "largest": [{"digest": digests[1], "bytes": 700}],
    }


async def test_who_has_the_debug_token_sees_key_text() -> None:
    async with site_with(TOKEN) as site:
        ask_often(site)
        shown = json.loads((await site.ask("GET", TARGET, {"Cachesvc-Debug": TOKEN})).body)
        assert [hot["key"] for hot in shown["hot"]] == ["user:anna", "user:otto"]
        assert [large["key"] for large in shown["largest"]] == ["user:otto"]


@pytest.mark.parametrize(
    ("configured", "sent", "why"),
    [
        (TOKEN, "open barley", "not the instance's"),
        (TOKEN, "", "not the instance's"),
        ("", "", "set telemetry.debug_token"),
    ],
)
async def test_a_wrong_token_is_refused_and_told_why(configured: str, sent: str, why: str) -> None:
    async with site_with(configured) as site:
        response = await site.ask("GET", TARGET, {"Cachesvc-Debug": sent})
        problem = json.loads(response.body)
        assert (response.status, problem["type"].rpartition("/")[2], problem["field"]) == (
            403,
            "no-debug",
            "Cachesvc-Debug",
        )
        assert why in problem["detail"]


@pytest.mark.parametrize(
    ("query", "status", "kind"),
    [
        ("", 400, "bad-query"),
        ("?namespace=pages&top=3", 400, "bad-query"),
        ("?namespace=pages&namespace=users", 400, "bad-query"),
        ("?namespace=pagse", 404, "no-such-namespace"),
        ("?namespace=%FF", 404, "no-such-namespace"),
    ],
)
async def test_one_declared_namespace_is_asked_for(site: Site, query: str, status: int, kind: str) -> None:
    response = await site.ask("GET", f"/v1/hotkeys{query}")
    assert (response.status, json.loads(response.body)["type"].rpartition("/")[2]) == (status, kind)
