"""Probes, metrics, topology and the description of the API."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from cachesvc.coherence.fences import FenceStatistics
from cachesvc.paths.tally import Tally
from cachesvc.telemetry.metrics.histogram import DURATIONS
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.telemetry.metrics.table import TABLE
from cachesvc.web.handlers.openapi import document
from cachesvc.web.routing import Kind
from tests.wire.conftest import LIMITS, Site, running_site


async def test_livez_says_that_the_loop_turns(site: Site) -> None:
    site.ready = False
    assert (await site.ask("GET", "/livez")).status == 200


async def test_readyz_is_503_until_ready_and_says_why_if_asked(site: Site) -> None:
    assert (await site.ask("GET", "/readyz")).body == b"ready\n"
    site.ready, site.reasons = False, {"feeds": {"eu": "not read yet"}}
    assert (await site.ask("GET", "/readyz")).status == 503
    verbose = await site.ask("GET", "/readyz?verbose")
    assert (verbose.status, json.loads(verbose.body)) == (
        503,
        {"ready": False, "feeds": {"eu": "not read yet"}},
    )


@pytest.mark.parametrize(
    "target", ["/livez", "/readyz", "/metrics", "/openapi.json", "/v1/topology", "/v1/fences"]
)
async def test_head_is_answered_wherever_get_is(site: Site, target: str) -> None:
    assert (await site.ask("HEAD", target)).status == 200


async def test_the_topology_is_shown_without_any_secret(site: Site) -> None:
    body = (await site.ask("GET", "/v1/topology")).body
    assert b"secret" not in body
    shown = json.loads(body)
    assert shown["version"] == 3
    assert shown["regions"]["eu"]["queue"] == "redis://***@queue:6379/0"
    assert shown["regions"]["eu"]["instances"] == {"a": "http://a:8080"}
    assert shown["cells"]["c1"]["url"] == "redis://***@c1:6379/0?password=***&db=1"
    users = shown["namespaces"]["users"]
    assert (users["ttl"], users["max_value"], users["owner"]) == ("1500ms", "1MiB", "id")
    assert users["origin"]["url"] == "https://***@o/{key}?api_key=***"
    assert users["origin"]["headers"] == {"Authorization": "***"}
    assert users["l1"] == {"guaranteed": "0B", "at_most": "100%"}


async def test_the_topology_says_whose_region_it_was_asked_in(site: Site) -> None:
    shown = json.loads((await site.ask("GET", "/v1/topology")).body)
    assert shown["here"] == {"region": "local", "instance": "a"}


def samples(text: str, parse: Any = parse_text) -> dict[tuple[str, tuple[str, ...]], float]:
    return {(s.name, tuple(s.labels.values())): s.value for family in parse(text) for s in family.samples}


async def test_requests_are_counted_by_namespace_operation_and_outcome(site: Site) -> None:
    site.hold("k")
    for method, target in (
        ("GET", "k"),
        ("GET", "k"),
        ("HEAD", "k"),
        ("GET", "missing"),
        ("PUT", "new"),
        ("DELETE", "k"),
        ("PUT", "%00"),
    ):
        await site.ask(method, f"/v1/pages/{target}")
    found = samples((await site.ask("GET", "/metrics")).body.decode())
    name = "cachesvc_requests_total"
    assert {labels: value for (one, labels), value in found.items() if one == name} == {
        ("pages", "get", "hit"): 2,
        ("pages", "head", "hit"): 1,
        ("pages", "get", "miss"): 1,
        ("pages", "put", "stored"): 1,
        ("pages", "delete", "applied"): 1,
        ("", "", "refused"): 1,
    }
    assert found["cachesvc_request_duration_seconds_count", ("get",)] == 3


async def test_openmetrics_is_given_to_those_who_accept_it(site: Site) -> None:
    await site.ask("GET", "/livez")
    response = await site.ask("GET", "/metrics", {"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert (
        samples(response.body.decode(), parse_openmetrics)["cachesvc_requests_total", ("", "livez", "ok")]
        == 1
    )
    assert response.body.count(b"# EOF\n") == 1


async def test_a_latency_stands_in_every_bucket_from_its_bound_up() -> None:
    metrics = Metrics()
    for seconds in (0.0, DURATIONS[0], 0.0003, 99.0):
        metrics.counts.request("", "get", "hit", seconds)
    found = samples((await metrics.exposition(""))[0].decode())
    buckets = [
        value for (name, _), value in found.items() if name == "cachesvc_request_duration_seconds_bucket"
    ]
    assert buckets == [2, 2, *[3] * 15, 4]
    assert found["cachesvc_request_duration_seconds_sum", ("get",)] == pytest.approx(99.0004)


async def test_the_counters_of_other_parts_are_read_when_scraped() -> None:
    tally, metrics = Tally.zero(), Metrics()
    metrics.watch("paths", lambda: tally)
    metrics.watch("tiers", lambda: {("l1",): tally.l1, ("l2",): tally.l2})
    metrics.watch("fences", lambda: FenceStatistics(1, 2, 3, 4, 5, 6, 7, 8, 9, 1_500_000, 0.25, 32, 2))
    tally.l2.refused, tally.loads = 7, 9
    found = samples((await metrics.exposition(""))[0].decode())
    assert found["cachesvc_lookups_total", ("refused", "l2")] == 7
    assert found["cachesvc_loads_begun_total", ()] == 9
    assert found["cachesvc_staleness_bound_seconds", ()] == 1.5
    assert found["cachesvc_sketch_false_refusal_ratio", ()] == 0.25
    assert found["cachesvc_floor_raises_total", ()] == 2


async def test_the_loop_turns_while_a_scrape_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachesvc.telemetry.metrics.metrics.TURN_SECONDS", 0)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    metrics = Metrics()
    for name in ("paths", "tiers"):
        metrics.watch(name, dict)
    counting = asyncio.create_task(count())
    await metrics.exposition("")
    counting.cancel()
    assert turns >= 10


def test_a_source_that_no_metric_is_read_from_is_refused() -> None:
    with pytest.raises(ValueError, match="no metric is read from 'pathes': the table has"):
        Metrics().watch("pathes", lambda: None)


def test_every_metric_stands_in_the_table_once() -> None:
    names = [(row.name, row.unit) for row in TABLE]
    assert len(names) == len(set(names))


PATHS = {
    Kind.KEY: "/v1/{namespace}/{key}",
    Kind.EXPLAIN: "/v1/{namespace}/{key}:explain",
    Kind.GET_MANY: "/v1/{namespace}:get",
    Kind.PUT_MANY: "/v1/{namespace}:put",
    Kind.INVALIDATIONS: "/v1/invalidations",
    Kind.RECEIPT: "/v1/invalidations/{id}",
    Kind.FENCES: "/v1/fences",
    Kind.TOPOLOGY: "/v1/topology",
    Kind.HOT_KEYS: "/v1/hotkeys",
    Kind.AUDIT: "/v1/audit",
    Kind.RELAY: "/v1/relay",
    Kind.LIVEZ: "/livez",
    Kind.READYZ: "/readyz",
    Kind.METRICS: "/metrics",
    Kind.OPENAPI: "/openapi.json",
}


async def test_the_description_has_every_call_and_no_other(site: Site) -> None:
    described = json.loads((await site.ask("GET", "/openapi.json")).body)
    assert described["openapi"] == "3.1.0"
    assert set(described["paths"]) == set(PATHS.values())
    for path in PATHS.values():
        target = path.replace("{namespace}", "pages").replace("{key}", "k").replace("{id}", "eu:1-0")
        allowed = (await site.ask("PATCH", target)).headers["allow"].lower().split(", ")
        methods = set(described["paths"][path]) - {"parameters"}
        assert methods | ({"head"} if "get" in methods else set()) == set(allowed), path


def test_schemas_are_those_of_the_structs() -> None:
    schemas: Any = document()["components"]
    assert schemas["schemas"]["GetMany"]["additionalProperties"] is False
    assert schemas["schemas"]["GetMany"]["required"] == ["keys"]
    assert schemas["schemas"]["Got"]["properties"]["outcome"]["enum"] == [
        "absent",
        "error",
        "hit",
        "loaded",
        "miss",
        "stale",
    ]


@pytest.fixture
async def inspected() -> AsyncIterator[Site]:
    async with running_site(limits=replace(LIMITS, max_inspections=20)) as running:
        yield running


async def test_what_people_look_at_is_bounded_per_second(
    inspected: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = inspected
    monkeypatch.setattr(site.web.inspections, "_now", lambda: 7.5)
    answers = [await site.ask("GET", "/v1/pages/k:explain") for _ in range(19)]
    dry_run = json.dumps({"namespace": "pages", "keys": ["k"], "dry_run": True}).encode()
    asked = [
        await site.ask("POST", "/v1/invalidations", {"Content-Type": "application/json"}, dry_run)
        for _ in range(2)
    ]
    assert [one.status for one in (*answers, *asked)] == [200] * 20 + [503]
    refused = await site.ask("GET", "/v1/pages/k:explain?scope=instance")
    assert (refused.status, b"max_inspections" in refused.body) == (503, True)
    assert site.web.inspections.refused == 2
    monkeypatch.setattr(site.web.inspections, "_now", lambda: 8.0)
    assert (await site.ask("GET", "/v1/pages/k:explain")).status == 200
