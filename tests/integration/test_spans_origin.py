"""The origin's part of a trace: one client span per GET, and the caller's trace handed on. Real sockets."""

from collections.abc import AsyncIterator

import pytest

from cachesvc.config.topology import Origin
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import OriginError
from cachesvc.model.units import Size
from cachesvc.telemetry.traces.trace import Span, under
from cachesvc.tiers.origin.http import HttpLoader
from tests.doubles.clocks import ManualClock
from tests.doubles.raw_origin import RawOrigin, Then, http, raw_origin
from tests.doubles.spans import Recording, unsampled

KNOWN = Entry(b"known", 1, 2, origin_etag='"v1"')


@pytest.fixture
async def raw() -> AsyncIterator[RawOrigin]:
    async with raw_origin() as origin:
        yield origin


@pytest.fixture
async def loader(raw: RawOrigin) -> AsyncIterator[HttpLoader]:
    origin = Origin(f"{raw.url}/pages/{{key}}", max_body=Size(100), concurrency=4)
    loader = HttpLoader("pages", origin, clock=ManualClock())
    await loader.start()
    yield loader
    await loader.stop()


async def load(
    loader: HttpLoader, span: Span | None, *, known: Entry | None = None, timeout_seconds: float = 5
) -> None:
    with under(span):
        await loader.load(Key.of("pages", "a"), known=known, timeout_seconds=timeout_seconds)


async def test_a_get_is_a_client_span_without_the_key_and_the_origin_is_told_of_it(
    raw: RawOrigin, loader: HttpLoader
) -> None:
    recording = Recording()
    reader = recording.root("cache.load")
    await load(loader, reader)
    (get,) = recording.spans
    assert (get.name, get.kind, get.parent_id, get.error) == ("GET", "client", reader.context.span_id, "")
    assert get.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": int(raw.url.rpartition(":")[2]),
    }
    assert f"traceparent: {get.context}\r\n" in raw.requests[0]


async def test_a_caller_that_is_not_sampled_is_handed_on_as_it_came(
    raw: RawOrigin, loader: HttpLoader
) -> None:
    caller = unsampled()
    await load(loader, caller)
    assert f"traceparent: {caller.context}\r\n" in raw.requests[0]
    assert str(caller.context).endswith("-00")


async def test_without_a_trace_nothing_is_sent_of_one(raw: RawOrigin, loader: HttpLoader) -> None:
    await load(loader, unsampled())
    await load(loader, None)
    assert "traceparent" not in raw.requests[1]


async def test_a_304_that_is_not_about_our_copy_takes_a_second_get_and_shows_both(
    raw: RawOrigin, loader: HttpLoader
) -> None:
    raw.answer = http(304, b"", 'ETag: "v2"', length=False)
    recording = Recording()
    with pytest.raises(OriginError):
        await load(loader, recording.root(), known=KNOWN)
    assert [span.attributes["http.response.status_code"] for span in recording.spans] == [304, 304]
    assert 'If-None-Match: "v1"' in raw.requests[0]
    assert "If-None-Match" not in raw.requests[1]


@pytest.mark.parametrize(
    ("answer", "then", "error"),
    [
        (http(503), Then.KEEP, "503"),
        (http(302), Then.KEEP, "302"),
        (http(200, b"x" * 101), Then.KEEP, "OriginError"),
        (b"", Then.CLOSE, "ServerDisconnectedError"),
        (b"", Then.HANG, "timeout"),
    ],
)
async def test_what_went_wrong_is_named(
    raw: RawOrigin, loader: HttpLoader, answer: bytes, then: Then, error: str
) -> None:
    raw.answer, raw.then = answer, then
    recording = Recording()
    with pytest.raises(OriginError):
        await load(loader, recording.root(), timeout_seconds=0.2)
    assert [span.error for span in recording.spans] == [error]


async def test_absence_is_an_answer(raw: RawOrigin, loader: HttpLoader) -> None:
    raw.answer = http(404)
    recording = Recording()
    await load(loader, recording.root())
    assert [span.error for span in recording.spans] == [""]
