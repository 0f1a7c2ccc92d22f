"""The HTTP loader against an origin that answers well, badly, or with anything but HTTP. Real sockets."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from cachesvc.config.topology import Origin
from cachesvc.model.clock import SECONDS
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import ConfigError, OriginError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.units import Size
from cachesvc.model.use import Use
from cachesvc.tiers.origin.contract import Loaded
from cachesvc.tiers.origin.http import HttpLoader
from tests.doubles.clocks import ManualClock
from tests.doubles.raw_origin import RawOrigin, Then, http, raw_origin

KNOWN = Entry(b"known", 1, 2, content_type="text/known", tags=("old",), origin_etag='"v1"')


@pytest.fixture
async def raw() -> AsyncIterator[RawOrigin]:
    async with raw_origin() as origin:
        yield origin


@asynccontextmanager
async def loader_of(
    url: str, *, session: aiohttp.ClientSession | None = None, **origin: Any
) -> AsyncIterator[HttpLoader]:
    settings = {"max_body": Size(1000), "concurrency": 4} | origin
    loader = HttpLoader("pages", Origin(url, **settings), clock=ManualClock(), tags_max=3, session=session)
    await loader.start()
    try:
        yield loader
    finally:
        await loader.stop()


@pytest.fixture
async def loader(raw: RawOrigin) -> AsyncIterator[HttpLoader]:
    async with loader_of(f"{raw.url}/pages/{{key}}") as loader:
        yield loader


async def load(
    loader: HttpLoader, text: str = "a", *, known: Entry | None = None, timeout_seconds: float = 5
) -> Loaded:
    return await loader.load(Key.of("pages", text), known=known, timeout_seconds=timeout_seconds)


async def failure(loader: HttpLoader, *, timeout_seconds: float = 5) -> OriginError:
    with pytest.raises(OriginError) as raised:
        await load(loader, timeout_seconds=timeout_seconds)
    return raised.value


TAKEN_OUT = (
    ".",
    "..",
    "../secret",
    "a/../b",
    "a/./b",
    "a/..",
    "a/.",
    "/a",
    "a//b",
    "//evil.example",
    "a/\\b",
    "\\..\\x",
    "a\\..",
    "%2e%2e%2f",
    "%2E.%5csecret",
    "a%252f%252e%252e",
    "%%32%65%%32%65/secret",
    "..;/secret",
    "a/.;b=c",
    "a/;b/c",
    "..?a",
    "a/..#b",
    "%2525252525252e",
)
"""Keys whose encoded path is that of something else once a proxy has normalised it."""


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("a-b_c~d.e", "/pages/a-b_c~d.e"),
        ("a/b", "/pages/a%2Fb"),
        ("...", "/pages/..."),
        (".a/b.", "/pages/.a%2Fb."),
        ("a/", "/pages/a%2F"),
        ("a?b=c&d#e", "/pages/a%3Fb%3Dc%26d%23e"),
        ("%2e%2ea%2f", "/pages/%252e%252ea%252f"),
        ("https%3A%2F%2Fa%2Fb", "/pages/https%253A%252F%252Fa%252Fb"),
        ("100% off;b", "/pages/100%25%20off%3Bb"),
        ("@evil.example:80", "/pages/%40evil.example%3A80"),
        ("a\\b", "/pages/a%5Cb"),
        ("{key} é", "/pages/%7Bkey%7D%20%C3%A9"),
    ],
)
async def test_a_key_stays_inside_its_segment(
    raw: RawOrigin, loader: HttpLoader, text: str, target: str
) -> None:
    await load(loader, text)
    assert raw.targets == [target]


@pytest.mark.parametrize("text", TAKEN_OUT)
async def test_a_key_whose_path_a_proxy_would_change_is_refused(
    raw: RawOrigin, loader: HttpLoader, text: str
) -> None:
    with pytest.raises(OriginError) as refused:
        await load(loader, text)
    assert (refused.value.kind, refused.value.is_answer, refused.value.allows_stale) == (
        ProblemKind.BAD_KEY,
        True,
        False,
    )
    assert (raw.targets, loader.loads, loader.failures) == ([], 0, 0)


@pytest.mark.parametrize("text", TAKEN_OUT)
async def test_such_a_key_may_stand_in_the_query(raw: RawOrigin, text: str) -> None:
    async with loader_of(f"{raw.url}/find?id={{key}}") as loader:
        await load(loader, text)
    assert raw.targets == [f"/find?id={quote(text, safe='')}"]


@pytest.mark.parametrize(("template", "text"), [("/a/{key}/b", "c/"), ("/a/x/{key}/", "..")])
async def test_a_key_is_refused_with_what_stands_around_it(raw: RawOrigin, template: str, text: str) -> None:
    async with loader_of(f"{raw.url}{template}") as loader:
        with pytest.raises(OriginError):
            await load(loader, text)


async def test_what_stands_around_a_key_may_save_it(raw: RawOrigin) -> None:
    async with loader_of(f"{raw.url}/a/x{{key}}") as loader:
        await load(loader, "../b")
    assert raw.targets == ["/a/x..%2Fb"]


async def test_the_key_may_stand_in_the_query_and_cannot_add_to_it(raw: RawOrigin) -> None:
    async with loader_of(f"{raw.url}/find?id={{key}}&x=1") as loader:
        await load(loader, "a&x=2")
    assert raw.targets == ["/find?id=a%26x%3D2&x=1"]


@pytest.mark.parametrize(
    "url",
    [
        "http://h/pages",
        "http://h/{key}/{key}",
        "http://{key}/x",
        "http://h:{key}/",
        "http://h{key}",
        "{key}://h/",
        "ftp://h/{key}",
        "http:///{key}",
        "http://h:99999/{key}",
        "http://h/#{key}",
        "http://h/{key}#x",
        "http://h/ü/{key}",
        "http://h/a b/{key}",
        "http://h/%zz/{key}",
        "http://h/.{key}",
        "http://h/{key}./x",
        "http://h/%2e{key}",
    ],
)
def test_a_template_that_cannot_hold_a_key_safely_is_refused_when_the_loader_is_built(url: str) -> None:
    with pytest.raises(ConfigError, match=r"\$\.namespaces\.pages\.origin\.url: "):
        HttpLoader("pages", Origin(url), clock=ManualClock())


@pytest.mark.parametrize("headers", [{"bad name": "x"}, {"X": "a\r\nY: b"}, {"": "x"}])
def test_a_header_that_cannot_be_sent_is_refused_when_the_loader_is_built(headers: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"origin\.headers"):
        HttpLoader("pages", Origin("http://h/{key}", headers=headers), clock=ManualClock())


async def test_configured_headers_are_sent_and_replace_ours(raw: RawOrigin) -> None:
    async with loader_of(
        f"{raw.url}/{{key}}", headers={"Authorization": "Bearer x", "accept-encoding": "gzip"}
    ) as loader:
        await load(loader)
    assert "Authorization: Bearer x\r\n" in raw.requests[0]
    assert raw.requests[0].lower().count("accept-encoding") == 1
    assert "identity" not in raw.requests[0]


async def test_a_value_comes_with_its_type_lifetimes_tags_age_and_validator(
    raw: RawOrigin, loader: HttpLoader
) -> None:
    raw.answer = http(
        200,
        b"hello",
        "Content-Type: text/plain; charset=utf-8",
        "Cache-Control: max-age=60",
        "cache-control: stale-while-revalidate=5, stale-if-error=7",
        "Age: 10",
        'Cache-Groups: "a"',
        'Cache-Groups: "b";x',
        'ETag: W/"v1"',
        "Set-Cookie: a=b",
    )
    assert await load(loader) == Loaded(
        b"hello",
        "text/plain; charset=utf-8",
        50 * SECONDS,
        5 * SECONDS,
        7 * SECONDS,
        ("a", "b"),
        10 * SECONDS,
        etag='W/"v1"',
    )
    await load(loader)
    assert "cookie" not in raw.requests[1].lower()
    assert raw.connections == 1


async def test_an_origin_that_says_nothing_leaves_everything_to_the_namespace(
    raw: RawOrigin, loader: HttpLoader
) -> None:
    raw.answer = http(203, b"x")
    assert await load(loader) == Loaded(b"x", "application/octet-stream", None, None, None, (), 0, status=203)


async def test_no_content_is_a_value_of_no_bytes(raw: RawOrigin, loader: HttpLoader) -> None:
    raw.answer = http(204, b"", "Cache-Control: max-age=9", length=False)
    loaded = await load(loader)
    assert (loaded.value, loaded.absent, loaded.status, loaded.ttl_us) == (b"", False, 204, 9 * SECONDS)
    raw.answer = http(200, b"next")
    assert (await load(loader)).value == b"next", "the connection is still in step"


@pytest.mark.parametrize("status", [404, 410])
async def test_absence_is_an_answer_with_lifetimes_and_tags_of_its_own(
    raw: RawOrigin, loader: HttpLoader, status: int
) -> None:
    raw.answer = http(status, b"no such page", "Cache-Control: max-age=3", 'Cache-Groups: "a"')
    loaded = await load(loader)
    assert (loaded.absent, loaded.value, loaded.ttl_us, loaded.tags) == (True, b"", 3 * SECONDS, ("a",))
    assert loader.failures == 0


async def test_an_origin_that_is_down_is_one_line_and_a_key_that_is_refused_is_none(
    raw: RawOrigin, loader: HttpLoader, caplog: pytest.LogCaptureFixture
) -> None:
    for status in (403, 503, 503, 429, 503):
        raw.answer = http(status, b"")
        await failure(loader)
    assert (loader.failures, loader.refusals) == (3, 2)
    assert [record.getMessage() for record in caplog.records] == [
        "loading 'pages' fails: origin of 'pages': answered 503"
    ]


@pytest.mark.parametrize(
    ("kind", "statuses", "is_answer", "allows_stale"),
    [
        (ProblemKind.ORIGIN_FAILED, (500, 502, 503, 504, 599), False, True),
        (ProblemKind.ORIGIN_LIMITED, (408, 425, 429), True, True),
        (ProblemKind.ORIGIN_REFUSED, (206, 301, 302, 304, 307, 400, 401, 403, 405, 451), True, False),
    ],
)
async def test_other_statuses_bring_no_value_and_say_whose_fault_it_is(
    raw: RawOrigin,
    loader: HttpLoader,
    kind: ProblemKind,
    statuses: tuple[int, ...],
    is_answer: bool,
    allows_stale: bool,
) -> None:
    for status in statuses:
        raw.answer = http(status, b"", "Location: /elsewhere", "Retry-After: 7", length=status != 304)
        error = await failure(loader)
        assert (error.kind, error.is_answer, error.allows_stale) == (kind, is_answer, allows_stale)
        assert str(status) in str(error)
        assert (error.origin_status, error.retry_after) == (
            status if status != 304 else 0,
            7 if kind is not ProblemKind.ORIGIN_REFUSED else None,
        )
    assert set(raw.targets) == {"/pages/a"}
    assert loader.refusals == (len(statuses) if is_answer else 0)
    assert loader.failures == (0 if is_answer else len(statuses))


async def test_a_redirect_is_explained_and_not_followed(raw: RawOrigin, loader: HttpLoader) -> None:
    raw.answer = http(301, b"", "Location: http://169.254.169.254/")
    assert "redirects are not followed" in str(await failure(loader))


async def test_a_known_copy_is_revalidated_with_the_validator_of_its_origin(
    raw: RawOrigin, loader: HttpLoader
) -> None:
    raw.answer = http(304, b"", 'ETag: W/"v1"', "Cache-Control: max-age=9", length=False)
    loaded = await load(loader, known=KNOWN)
    assert 'If-None-Match: "v1"\r\n' in raw.requests[0]
    assert loaded == Loaded(
        b"known",
        "text/known",
        9 * SECONDS,
        None,
        None,
        ("old",),
        0,
        not_modified=True,
        etag='W/"v1"',
        status=304,
    )
    assert loader.revalidations == 1


async def test_a_304_may_bring_other_tags(raw: RawOrigin, loader: HttpLoader) -> None:
    raw.answer = http(304, b"", 'Cache-Groups: "new"', length=False)
    assert (await load(loader, known=KNOWN)).tags == ("new",)


async def test_a_copy_without_a_validator_is_loaded_without_a_condition(
    raw: RawOrigin, loader: HttpLoader
) -> None:
    await load(loader, known=Entry(b"known", 1, 2))
    assert "If-None-Match" not in raw.requests[0]


async def test_a_304_about_other_bytes_than_ours_is_not_believed(raw: RawOrigin, loader: HttpLoader) -> None:
    raw.answer = http(304, b"", 'ETag: "v2"', length=False)
    with pytest.raises(OriginError, match="304 to a request without a condition"):
        await load(loader, known=KNOWN)
    assert ["If-None-Match" in request for request in raw.requests] == [True, False]


@pytest.mark.parametrize("etag", ["v1", '"a b"', '"' + "x" * 300 + '"', "W/v1"])
async def test_a_validator_that_is_none_is_not_kept(raw: RawOrigin, loader: HttpLoader, etag: str) -> None:
    raw.answer = http(200, b"x", f"ETag: {etag}")
    assert (await load(loader)).etag is None


@pytest.mark.parametrize("groups", ['"a', '"a", "b", "c", "d"', "a", '"' + "x" * 257 + '"'])
async def test_an_answer_whose_tags_are_not_understood_is_answered_and_not_kept(
    raw: RawOrigin, loader: HttpLoader, groups: str
) -> None:
    raw.answer = http(200, b"x", f"Cache-Groups: {groups}")
    loaded = await load(loader)
    assert (loaded.value, loaded.use, loaded.tags) == (
        b"x",
        Use(keep=False, share=False, directives="no-store"),
        (),
    )
    assert (loaded.ttl_us, loaded.stale_for_us, loaded.error_for_us) == (0, 0, 0)
    assert loader.untaggable == 1


@pytest.mark.parametrize(
    ("header", "directives"),
    [
        ("Cache-Control: max-age=60, no-store", "no-store"),
        ("Cache-Control: max-age=60, private", "private, max-age=0"),
        ("Cache-Control: no-store, private", "no-store, private"),
        ("Vary: *", "no-store"),
    ],
)
@pytest.mark.parametrize("status", [200, 203, 204, 404, 410])
async def test_what_must_not_be_kept_is_answered_without_any_lifetime(
    raw: RawOrigin, loader: HttpLoader, header: str, directives: str, status: int
) -> None:
    raw.answer = http(status, b"", header, length=status != 204)
    loaded = await load(loader)
    assert (loaded.use.keep, loaded.use.share, loaded.use.directives) == (False, False, directives)
    assert loaded.use.varies == (header == "Vary: *")
    assert (loaded.ttl_us, loaded.stale_for_us, loaded.error_for_us) == (0, 0, 0)


async def test_a_304_may_forbid_to_keep_what_it_validated(raw: RawOrigin, loader: HttpLoader) -> None:
    raw.answer = http(304, b"", "Cache-Control: no-store", length=False)
    loaded = await load(loader, known=KNOWN)
    assert (loaded.value, loaded.not_modified, loaded.use.keep) == (b"known", True, False)


CHUNKED = http(200, b"", "Transfer-Encoding: chunked", length=False)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
        CHUNKED + b"5\r\n12345\r\n",
        CHUNKED + b"zz\r\n12345\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n1234567890",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x16\x03\x01\x00\x00\xff\xfe" * 50,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        http(200, b"not gzip at all", "Content-Encoding: gzip"),
        http(200, gzip.compress(b"hello")[:-9], "Content-Encoding: gzip"),
        http(200, gzip.compress(b"hello") + b"more", "Content-Encoding: gzip"),
    ],
    ids=lambda answer: repr(answer[:60]),
)
async def test_what_is_cut_short_or_is_no_http_is_a_retryable_failure(
    raw: RawOrigin, loader: HttpLoader, answer: bytes
) -> None:
    raw.answer, raw.then = answer, Then.CLOSE
    error = await failure(loader)
    assert (error.status, error.retryable) == (502, True)
    assert error.__cause__ is not None
    raw.answer = http(200, b"well again")
    assert (await load(loader)).value == b"well again"


async def test_an_origin_that_is_not_there_is_a_retryable_failure() -> None:
    async with raw_origin() as gone:
        url = gone.url
    async with loader_of(f"{url}/{{key}}") as loader:
        error = await failure(loader)
    assert (error.status, error.retryable) == (502, True)
    assert "cannot be reached" in str(error)


async def one_byte_at_a_time() -> AsyncIterator[bytes]:
    while True:
        await asyncio.sleep(0.005)
        yield b"x"


@pytest.mark.parametrize(
    "answer", [b"", http(200, b"", "Content-Length: 900", length=False)], ids=["head", "body"]
)
async def test_an_origin_that_hangs_costs_the_timeout_and_its_connection(
    raw: RawOrigin, loader: HttpLoader, answer: bytes
) -> None:
    raw.answer, raw.then = answer, Then.HANG
    error = await failure(loader, timeout_seconds=0.05)
    assert (error.status, error.retryable, loader.timeouts, loader.failures) == (504, True, 1, 1)
    await raw.until(lambda: raw.open == 0)


async def test_an_origin_that_drips_cannot_outrun_the_timeout(raw: RawOrigin, loader: HttpLoader) -> None:
    raw.answer, raw.stream = http(200, b"", "Content-Length: 900", length=False), one_byte_at_a_time
    assert (await failure(loader, timeout_seconds=0.1)).status == 504
    await raw.until(lambda: raw.open == 0)


async def without_end() -> AsyncIterator[bytes]:
    while True:
        yield b"400\r\n" + b"x" * 1024 + b"\r\n"


async def test_a_body_beyond_the_limit_is_refused_by_its_length_before_it_is_read(
    raw: RawOrigin, loader: HttpLoader
) -> None:
    raw.answer, raw.then = http(200, b"", "Content-Length: 1001", length=False), Then.HANG
    error = await failure(loader)
    assert (error.status, error.retryable) == (502, False)
    assert "max_body" in str(error)


async def test_a_body_without_a_length_is_read_up_to_the_limit_and_the_connection_closed(
    raw: RawOrigin, loader: HttpLoader
) -> None:
    raw.answer, raw.stream = CHUNKED, without_end
    assert "max_body" in str(await failure(loader))
    await raw.until(lambda: raw.open == 0)


async def test_a_body_of_exactly_the_limit_is_loaded(raw: RawOrigin, loader: HttpLoader) -> None:
    raw.answer = http(200, b"x" * 1000)
    assert len((await load(loader)).value) == 1000


@pytest.mark.parametrize(
    ("encoding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("Identity", bytes)]
)
async def test_an_encoded_body_is_decoded(
    raw: RawOrigin, loader: HttpLoader, encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    raw.answer = http(200, encode(b"hello"), f"Content-Encoding: {encoding}")
    assert (await load(loader)).value == b"hello"


async def test_the_body_limit_counts_decoded_bytes(raw: RawOrigin) -> None:
    raw.answer = http(200, gzip.compress(bytes(20_000_000)), "Content-Encoding: gzip")
    async with loader_of(f"{raw.url}/{{key}}", max_body=Size.parse("1MiB")) as loader:
        assert "max_body" in str(await failure(loader))


async def test_an_encoding_that_is_not_understood_is_a_failure_not_a_value(
    raw: RawOrigin, loader: HttpLoader
) -> None:
    raw.answer = http(200, b"x", "Content-Encoding: aes128gcm")
    assert "aes128gcm" in str(await failure(loader))


async def test_a_cancelled_load_closes_its_connection_and_the_next_one_works(
    raw: RawOrigin, loader: HttpLoader
) -> None:
    raw.answer, raw.then = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123", Then.HANG
    task = asyncio.create_task(load(loader))
    await raw.until(lambda: len(raw.requests) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await raw.until(lambda: raw.open == 0)
    raw.answer, raw.then = http(200, b"next"), Then.KEEP
    assert (await load(loader)).value == b"next"
    assert loader.failures == 0


async def test_no_more_connections_than_the_concurrency_are_opened(
    raw: RawOrigin, loader: HttpLoader
) -> None:
    raw.answer = http(200, b"x")
    await asyncio.gather(*(load(loader, f"k{i}") for i in range(40)))
    assert len(raw.requests) == 40
    assert raw.connections <= 4


async def test_a_session_that_was_passed_in_stays_open_and_an_own_one_is_closed(raw: RawOrigin) -> None:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        async with loader_of(f"{raw.url}/{{key}}", session=session) as loader:
            await load(loader)
        assert not session.closed
    async with loader_of(f"{raw.url}/{{key}}") as loader:
        await load(loader)
        assert raw.open == 1
    await raw.until(lambda: raw.open == 0)


async def test_a_session_that_decompresses_by_itself_is_refused() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ValueError, match="auto_decompress"):
            HttpLoader("pages", Origin("http://h/{key}"), clock=ManualClock(), session=session)


async def test_a_load_before_the_start_is_the_callers_mistake() -> None:
    loader = HttpLoader("pages", Origin("http://h/{key}"), clock=ManualClock())
    with pytest.raises(RuntimeError, match="before start"):
        await load(loader)
