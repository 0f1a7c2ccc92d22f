"""Heads, idle connections and streams have limits with names, settings, counters and clear answers."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families as parsed

from cachesvc.config.service import Server, Service, check_service
from cachesvc.model.clock import SECONDS
from cachesvc.model.errors import ConfigError
from cachesvc.model.units import Duration, Size
from cachesvc.web import connections
from tests.wire.conftest import LIMITS, Site, read_response, running_site, until

HURRIED = replace(
    LIMITS, head_timeout=Duration(SECONDS // 20), max_header_bytes=Size(16_384), max_header_lines=32
)


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.01)
    async with running_site(limits=HURRIED) as running:
        yield running


async def counted(site: Site, metric: str) -> dict[str, float]:
    """The samples of a metric by the value of its last label; those that are not 0."""
    text = (await site.ask("GET", "/metrics")).body.decode()
    return {
        list(sample.labels.values())[-1]: sample.value
        for family in parsed(text)
        for sample in family.samples
        if sample.name == metric and sample.value
    }


@pytest.mark.parametrize(
    "begun", [b"G", b"GET /livez HTTP/1.1\r\n", b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 8000]
)
async def test_a_head_that_does_not_end_is_answered_and_its_connection_is_closed(
    site: Site, begun: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(begun)
    answer = await read_response(reader, "GET")
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert json.loads(answer.body)["type"].endswith("/head-timeout")
    assert await reader.read() == b""
    writer.close()
    assert site.web.data.connections.slow_heads == 1
    assert await counted(site, "cachesvc_requests_refused_total") == {"head-timeout": 1}
    await until(lambda: site.web.in_flight.held == 0)


async def test_a_head_that_trickles_has_no_more_time_than_one_that_stops(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)

    async def trickle() -> None:
        for byte in b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 1000:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.002)

    trickling = asyncio.create_task(trickle())
    assert (await read_response(reader, "GET")).status == 408
    trickling.cancel()
    writer.close()


async def test_a_head_in_pieces_that_ends_in_time_is_answered_and_so_is_the_next(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    for _ in range(3):
        for piece in (b"GET /livez HT", b"TP/1.1\r\nHo", b"st: x\r\n\r\n"):
            writer.write(piece)
            await asyncio.sleep(0.005)
        assert (await read_response(reader, "GET")).status == 200
    await asyncio.sleep(0.1)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await read_response(reader, "GET")).status == 200, "nor is a connection without a head late"
    writer.close()
    assert site.web.data.connections.slow_heads == 0


async def test_a_head_behind_a_request_that_runs_is_not_late(site: Site) -> None:
    site.reader.hangs = asyncio.Event()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /v1/pages/k HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HT")
    await site.reader.asked.wait()
    await asyncio.sleep(0.15)
    site.reader.hangs.set()
    assert (await read_response(reader, "GET")).status == 404
    writer.write(b"TP/1.1\r\nHost: x\r\n\r\n")
    assert (await read_response(reader, "GET")).status == 200
    writer.close()


async def test_header_lines_and_their_bytes_are_bounded_as_the_settings_say(site: Site) -> None:
    many = {f"X-{number}": "a" for number in range(40)}
    large = {f"X-{number}": "a" * 6000 for number in range(3)}
    for headers in (many, large):
        refused = await site.ask("GET", "/livez", headers)
        assert (refused.status, json.loads(refused.body)["type"].rpartition("/")[2]) == (
            431,
            "head-too-large",
        )
    assert (await counted(site, "cachesvc_requests_refused_total")) == {"head-too-large": 2}
    assert (await site.ask("GET", "/livez", dict(list(many.items())[:20]))).status == 200


async def test_what_is_no_request_is_counted_too(site: Site) -> None:
    await site.exchange(b"NOT HTTP\r\n\r\n", "GET")
    assert await counted(site, "cachesvc_requests_refused_total") == {"bad-request": 1}


async def test_a_connection_without_a_request_is_closed_after_a_while_and_counted() -> None:
    async with running_site(limits=replace(LIMITS, idle_timeout=Duration(SECONDS // 10))) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await read_response(reader, "GET")).status == 200
        assert await reader.read() == b""
        writer.close()
        assert site.web.data.connections.idled == 2


@pytest.mark.parametrize(
    "wrong",
    [
        Server(idle_timeout=Duration(999_999)),
        Server(head_timeout=Duration(0)),
        Server(max_header_bytes=Size(16_383)),
        Server(max_header_lines=31),
        Server(least_read_rate=Size(1023)),
        Server(max_streams=0),
    ],
    ids=[
        "idle_timeout",
        "head_timeout",
        "max_header_bytes",
        "max_header_lines",
        "least_read_rate",
        "max_streams",
    ],
)
def test_a_limit_with_which_nobody_could_be_served_is_refused(
    wrong: Server, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(ConfigError, match=rf"\$\.server\.{request.node.callspec.id}: must be"):
        check_service(Service(server=wrong))
