"""Outcomes that callers cause themselves: they are no failures of this service."""

import asyncio

import msgspec
import pytest
from msgspec.structs import replace

from cachesvc.model.clock import SECONDS
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Answer, Outcome
from cachesvc.model.units import Duration
from tests.wire.conftest import LIMITS, Site, read_response, running_site, until

LATE = Answer(Outcome.ERROR, error=RequestError(ProblemKind.DEADLINE, "no answer within the deadline"))
MSGPACK = {"Content-Type": "application/msgpack"}


def counted(site: Site, operation: str) -> dict[str, int]:
    return {
        outcome: count
        for (_, one, outcome), count in site.metrics.counts.requests.items()
        if one == operation and count
    }


@pytest.mark.parametrize(
    ("deadline", "outcome"), [("1us", "hurried"), ("249ms", "hurried"), ("2s", "failed")]
)
async def test_a_deadline_that_is_too_short_for_anybody_is_the_callers(
    site: Site, deadline: str, outcome: str
) -> None:
    site.reader.answers["k"] = LATE
    headers = {"Cachesvc-Timeout": deadline}
    assert (await site.ask("GET", "/v1/pages/k", headers)).status == 504
    assert counted(site, "get") == {outcome: 1}
    body = msgspec.msgpack.encode({"keys": ["k", "missing"]})
    await site.ask("POST", "/v1/pages:get", {**MSGPACK, **headers}, body)
    of_key = "hurried" if outcome == "hurried" else "error"
    assert site.metrics.counts.batch_keys["pages", "get_many", of_key] == 1
    assert site.metrics.counts.batch_keys["pages", "get_many", "miss"] == 1


async def test_so_is_that_of_a_write(site: Site) -> None:
    site.writer.hangs = asyncio.Event()
    refused = await site.ask("PUT", "/v1/pages/k", {"Cachesvc-Timeout": "1us"}, b"v")
    assert refused.status == 504
    assert counted(site, "put") == {"hurried": 1}
    assert (await site.ask("PUT", "/v1/pages/k", {"Cachesvc-Timeout": "300ms"}, b"v")).status == 504
    assert counted(site, "put") == {"hurried": 1, "failed": 1}
    site.writer.hangs.set()


@pytest.mark.parametrize("line", ["", "Cachesvc-Timeout: 300ms\r\n"])
async def test_an_upload_that_stops_is_408_in_time(line: str) -> None:
    async with running_site(limits=replace(LIMITS, request_timeout=Duration(SECONDS // 2))) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        head = f"PUT /v1/pages/k HTTP/1.1\r\nHost: x\r\n{line}Content-Length: 100\r\n\r\nabc"
        writer.write(head.encode())
        response = await read_response(reader, "PUT")
        assert (response.status, b"body-timeout" in response.body) == (408, True)
        assert counted(site, "put") == {"stopped": 1}
        assert site.metrics.counts.latency["put"].total < 0.2, "the time of the body is the caller's"
        writer.close()


async def test_an_upload_whose_peer_leaves_has_stopped(site: Site) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"PUT /v1/pages/k HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
    await writer.drain()
    await asyncio.sleep(0.02)
    writer.close()
    await until(lambda: counted(site, "put") == {"stopped": 1})


async def test_the_time_in_which_a_body_comes_is_not_counted(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"PUT /v1/pages/k HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
    for piece in (b"a", b"b", b"c", b"d"):
        await asyncio.sleep(0.1)
        writer.write(piece)
    assert (await read_response(reader, "HEAD")).status == 204
    assert site.metrics.counts.latency["put"].total < 0.3
    writer.close()


async def test_a_failure_that_nobody_waits_for_any_more_is_of_one_who_left(site: Site) -> None:
    site.reader.hangs = asyncio.Event()
    site.reader.answers["k"] = Answer(Outcome.ERROR, error=RequestError(ProblemKind.LOAD_FAILED, "no"))
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /v1/pages/k HTTP/1.1\r\nHost: x\r\n\r\n")
    await site.reader.asked.wait()
    writer.transport.abort()
    await asyncio.sleep(0.05)
    site.reader.hangs.set()
    await until(lambda: counted(site, "get") == {"left": 1})
