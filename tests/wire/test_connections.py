"""HTTP itself: keep-alive, pipelining, versions, bodies, what is not HTTP, deadlines, and stopping."""

import asyncio
import json
import logging

import pytest

from cachesvc.changes.broadcast.broadcast import Broadcast
from cachesvc.config.service import Server, Service
from cachesvc.model.errors import RequestError
from cachesvc.model.units import Duration
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.telemetry.traces.trace import SpanContext, new_span_id, new_trace_id, traceparent
from cachesvc.web.deadlines import Deadlines, within
from cachesvc.web.listener import Listener
from cachesvc.web.replies.reply import Reply
from cachesvc.web.server import Web
from tests.doubles.clocks import ManualClock
from tests.doubles.paths import FakePaths
from tests.wire.conftest import LIMITS, SKEW_US, TOPOLOGY, Site, read_response


async def test_a_connection_is_kept_for_the_next_request(site: Site) -> None:
    site.hold("k")
    request = b"GET /v1/pages/k HTTP/1.1\r\nHost: x\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    for _ in range(3):
        writer.write(request)
        response = await read_response(reader, "GET")
        assert (response.status, response.headers.get("connection")) == (200, None)
    writer.close()


async def test_pipelined_requests_are_answered_in_order(site: Site) -> None:
    site.hold("k", b"K")
    one = "{} /v1/pages/{} HTTP/1.1\r\nHost: x\r\n{}\r\n{}"
    sent = [
        one.format("GET", "k", "", ""),
        one.format("HEAD", "k", "", ""),
        one.format("PUT", "new", "Content-Length: 3\r\n", "NEW"),
        one.format("GET", "k", "If-None-Match: *\r\n", ""),
        one.format("GET", "missing", "", ""),
        one.format("GET", "new", "Connection: close\r\n", ""),
    ]
    responses = await site.exchange("".join(sent).encode(), "GET", "HEAD", "PUT", "GET", "GET", "GET")
    assert [(response.status, response.body[:3]) for response in responses] == [
        (200, b"K"), (200, b""), (204, b""), (304, b""), (404, b'{"t'), (200, b"NEW"),
    ]  # fmt: skip


async def is_closed(reader: asyncio.StreamReader) -> bool:
    return await reader.read() == b""


@pytest.mark.parametrize(
    ("version", "header", "said", "closes"),
    [
        ("1.0", "", "close", True),
        ("1.0", "Connection: keep-alive\r\n", "keep-alive", False),
        ("1.1", "Connection: close\r\n", "close", True),
        ("1.1", "", None, False),
    ],
)
@pytest.mark.parametrize("key", ["held", "missing"])
async def test_the_connection_is_kept_or_closed_as_the_version_and_header_say(
    site: Site, version: str, header: str, said: str | None, closes: bool, key: str
) -> None:
    site.hold("held")
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    request = f"GET /v1/pages/{key} HTTP/{version}\r\nHost: x\r\n{header}\r\n".encode()
    writer.write(request)
    response = await read_response(reader, "GET")
    assert (response.version, response.headers.get("connection")) == ("HTTP/1.1", said)
    if closes:
        assert await is_closed(reader)
    else:
        writer.write(request)
        assert (await read_response(reader, "GET")).body[:3] == response.body[:3]
    writer.close()


async def test_a_value_larger_than_the_socket_buffers_arrives_whole_at_a_slow_reader(site: Site) -> None:
    value = bytes(range(256)) * 40_000
    site.hold("k", value)
    assert (await site.ask("GET", "/v1/pages/k")).body == value


async def test_a_chunked_body_is_stored(site: Site) -> None:
    body = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert (await site.ask("PUT", "/v1/pages/k", {"Transfer-Encoding": "chunked"}, body)).status == 204
    assert site.writer.saw[0][1].value == b"abcde"


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_above_the_limit_is_refused_with_413(site: Site, declared: bool) -> None:
    headers = {} if declared else {"Transfer-Encoding": "chunked"}
    body = b"x" * 4001 if declared else b"fa1\r\n" + b"x" * 4001 + b"\r\n0\r\n\r\n"
    response = await site.ask("PUT", "/v1/pages/k", headers, body)
    assert (response.status, json.loads(response.body)["type"].rpartition("/")[2]) == (413, "body-too-large")
    assert site.writer.saw == []


async def test_a_declared_body_above_the_limit_is_refused_before_it_is_sent(site: Site) -> None:
    head = (
        b"PUT /v1/pages/k HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n"
    )
    (response,) = await site.exchange(head, "PUT")
    assert response.status == 413


async def test_expect_100_continue_is_answered_before_the_body(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"PUT /v1/pages/k HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"abc")
    assert (await read_response(reader, "PUT")).status == 204
    writer.close()


async def test_a_body_that_ends_early_stores_nothing(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"PUT /v1/pages/k HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    writer.write_eof()
    await reader.read()
    writer.close()
    assert (await site.ask("GET", "/livez")).status == 200
    assert site.writer.saw == []


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"GET /v1/pages/k HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431),
    ],
)
async def test_what_is_not_http_is_a_problem_that_repeats_nothing_of_it(
    site: Site, sent: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    (response,) = await site.exchange(sent, "GET")
    assert (response.status, response.headers["content-type"]) == (status, "application/problem+json")
    assert "date" in response.headers
    assert b"xxx" not in response.body
    assert b"nonsense" not in response.body
    assert caplog.records == [], "strangers must not be able to fill the log"


@pytest.mark.parametrize("key", ["held", "missing"])
async def test_an_unexpected_failure_is_a_500_without_details_and_logged_once_with_its_id(
    site: Site, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.reader.fails_with = RuntimeError("secret detail")
    response = await site.ask("GET", f"/v1/pages/{key}")
    problem = json.loads(response.body)
    assert (response.status, problem["type"].rpartition("/")[2]) == (500, "internal")
    assert b"secret" not in response.body
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert problem["request_id"] in record.getMessage()
    assert record.exc_info is not None


@pytest.mark.parametrize("key", ["held", "missing"])
async def test_an_unexpected_failure_is_logged_within_the_trace_of_its_request(site: Site, key: str) -> None:
    traces: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            traces.append(traceparent())

    listening = Listening(logging.ERROR)
    logging.getLogger("cachesvc.web.server").addHandler(listening)
    site.reader.fails_with = RuntimeError("secret detail")
    caller = SpanContext(new_trace_id(), new_span_id(), False)
    await site.ask("GET", f"/v1/pages/{key}", {"traceparent": str(caller)})
    logging.getLogger("cachesvc.web.server").removeHandler(listening)
    assert traces == [str(caller)]


async def test_a_request_that_hangs_ends_with_504_within_the_request_timeout() -> None:
    deadlines = Deadlines(0.01)
    with pytest.raises(RequestError, match=r"not done within 0\.01 s") as caught:
        await deadlines.hold(asyncio.Event().wait())
    assert (caught.value.status, caught.value.kind) == (504, "deadline")
    assert repr(deadlines) == "<Deadlines [0 running]>"
    assert (task := asyncio.current_task()) is not None
    assert task.cancelling() == 0
    deadlines.stop()


async def test_the_server_holds_its_requests_to_the_request_timeout() -> None:
    clock = ManualClock()
    paths = FakePaths(clock)
    paths.reader.hangs = asyncio.Event()
    limits = Server(request_timeout=Duration(1_000))
    broadcast = Broadcast(clock, SKEW_US, TOPOLOGY.regions)
    web = Web(
        Service(server=limits),
        TOPOLOGY,
        paths,
        broadcast,
        lambda: (True, {}),
        Metrics(),
    )
    port = await web.start("127.0.0.1", 0)
    client, sending = await asyncio.open_connection("127.0.0.1", port)
    sending.write(b"GET /v1/pages/k HTTP/1.1\r\nHost: x\r\nCache-Control: max-age=9\r\n\r\n")
    assert (await read_response(client, "GET")).status == 504
    sending.close()
    await web.stop()


async def test_one_timer_serves_all_and_ends_with_the_last() -> None:
    deadlines = Deadlines(60)
    gate = asyncio.Event()
    held = [asyncio.create_task(deadlines.hold(gate.wait())) for _ in range(3)]
    await asyncio.sleep(0)
    assert repr(deadlines) == "<Deadlines [3 running]>"
    gate.set()
    assert await asyncio.gather(*held) == [True] * 3
    deadlines.stop()


async def test_a_cancellation_from_elsewhere_passes_through_a_deadline() -> None:
    deadlines = Deadlines(60)
    task = asyncio.create_task(deadlines.hold(asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadlines.stop()


async def test_a_timeout_of_the_work_itself_is_not_mistaken_for_the_callers() -> None:
    async def work() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await within(60, work())


async def test_stop_lets_a_running_request_end_closes_its_connection_and_takes_no_new_ones(
    site: Site,
) -> None:
    site.reader.hangs = asyncio.Event()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /v1/pages/k HTTP/1.1\r\nHost: x\r\n\r\n")
    await site.reader.asked.wait()
    stopping = asyncio.create_task(site.web.stop())
    while True:
        try:
            (await asyncio.open_connection("127.0.0.1", site.port))[1].close()
        except ConnectionError:
            break
    assert not stopping.done()
    site.reader.hangs.set()
    response = await read_response(reader, "GET")
    assert (response.status, response.headers["connection"]) == (404, "close")
    await stopping
    assert await is_closed(reader)
    writer.close()


async def test_the_port_that_is_taken_is_an_error_at_start(site: Site) -> None:
    async def handle(_: object) -> Reply:
        raise AssertionError

    listener = Listener(handle, handle, lambda _: None, site.web.data.connections, LIMITS)
    with pytest.raises(OSError, match="in use"):
        await listener.start("127.0.0.1", site.port)


async def test_a_sweep_that_fails_is_not_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachesvc.web.deadlines.PAUSE_SECONDS", 0.001)
    deadlines = Deadlines(0.01)
    fail_once = iter([ZeroDivisionError("of a defect")])
    sweep = deadlines._cancel_expired

    def failing(now: float) -> None:
        for error in fail_once:
            raise error
        sweep(now)

    monkeypatch.setattr(deadlines, "_cancel_expired", failing)
    with pytest.raises(RequestError, match=r"not done within 0\.01 s"):
        await deadlines.hold(asyncio.Event().wait())
    assert deadlines.loop.failures == 1
    deadlines.stop()
