"""Mistakes raise errors that name them, at once, and never reach a shared batch."""

import asyncio
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from cachesvc_client import JSON, LAPTOP, MSGPACK, Cache, CodecError, NearSettings, Retries, msgpack_of
from cachesvc_client.sync import Cache as SyncCache
from msgspec.structs import replace
from yarl import URL

from clients.python.tests.fake_service import FakeService


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "is no base URL"),
        ("127.0.0.1:8080", "is no base URL"),
        ("redis://h", "is no base URL"),
        ("http://a,", "url ''"),
        ("http://a?x=1", "no query"),
        (None, "url: is one text"),
        (["http://a"], "with commas between several URLs"),
        (b"http://a", "url: is one text"),
        ("http://a:99999", "Port out of range"),
        ("http://a:b", "port"),
        ("http://a:0", "its port is none of 1 to 65535"),
        ("http://127.0.0.1:-1", "Port out of range"),
        ("http://::1:80", "port"),
        ("http://[::1", "Invalid IPv6"),
        ("http://a b", "'a b' is no name or address of a host"),
        ("http://a..b", "no name or address"),
        ("http://" + "a" * 64, "no name or address"),
        ("http://-a", "no name or address"),
        ("http://%41", "no name or address"),
        ("http://xn--a", "idna"),
        ("http://\ud800", "idna"),
        ("http://a,http://@b", "no user or password"),
    ],
)
def test_a_bad_url_is_refused_by_name(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cache.from_url(url)


@pytest.mark.parametrize(
    "url", ["http://u:secret@a", "http://:secret@a:1", "http://secret@a/x", "ftp://u:secret@a"]
)
def test_a_password_in_a_url_is_in_no_message(url: str) -> None:
    with pytest.raises(ValueError, match="no user or password") as caught:
        Cache.from_url(url)
    assert "secret" not in "".join(traceback.format_exception(caught.value)).replace(repr(url), "")


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1]:1",
        "http://a_b.c-d.:80",
        "https://ü.example",
        "http://[fe80::1%25eth0]:80",
        URL("http://a"),
    ],
)
def test_other_addresses_are_taken(url: Any) -> None:
    Cache.from_url(url)


MISTAKES: list[tuple[Callable[[Any], object], str]] = [
    (lambda at: at.from_url("http://a", profile="LAPTOP"), "profile: 'LAPTOP' is none: LAPTOP"),
    (lambda at: at.from_url("http://a", default_timeout=[]), r"default_timeout: \[\] is not"),
    (lambda at: at.from_url("http://a", default_timeout=True), "default_timeout: True is not"),
    (lambda at: at.from_url("http://a", max_loads_without_cache="3"), "max_loads_without_cache"),
    (lambda at: at.from_url("http://a", caller=5), "caller 5"),
    (lambda at: at.from_url("http://a", traceparent=5), "traceparent: 5 has no __call__"),
    (lambda at: at.from_url("http://a", session=5), "session: 5 has no request"),
    (lambda at: at.from_url("http://a", tracer_provider=5), "tracer_provider: 5 has no get_tracer"),
    (lambda _: replace(LAPTOP, timeout="1s"), "profile: timeout is a number of seconds, not '1s'"),
    (lambda _: replace(LAPTOP, lease_wait=None), "profile: lease_wait is a number"),
    (lambda _: replace(LAPTOP, max_connections=2.5), "profile: max_connections"),
    (lambda _: replace(LAPTOP, retries=2), "profile: retries are Retries"),
    (lambda _: replace(Retries(), most="2"), "retries: most is a number from 0 up, not '2'"),
    (lambda _: Retries(share=-1), "retries: share"),
    (lambda _: replace(NearSettings(), max_entries="5"), "max_entries: '5' is no whole number"),
    (lambda _: NearSettings(max_lag=timedelta(0)), "max_lag: must be longer than 0"),
    (lambda at: at.from_url("http://a").namespace(5), "namespace 5"),
    (lambda at: at.from_url("http://a").namespace("a", near=True), r"near: NearSettings\(\), not True"),
    (lambda at: at.from_url("http://a").namespace("a", version="2"), "version: '2' is no whole number"),
    (lambda at: at.from_url("http://a").namespace("a", version=1.5), "version: 1.5 is no whole number"),
    (
        lambda at: at.from_url("http://a").namespace("a", codec=Page),
        "codec: .*Page.* has no encode and decode",
    ),
    (
        lambda at: at.from_url("http://a").namespace("a", codec="json"),
        "codec: 'json' has no encode and decode",
    ),
    (lambda at: at.from_url("http://a").namespace("a", type="Page"), "type: 'Page' is no type"),
    (lambda at: at.from_url("http://a").namespace("a", type=Page("x")), "type: .* is no type"),
    (
        lambda at: at.from_url("http://a").namespace("a", type=list[Opaque]),
        "type: Opaque is unsupported",
    ),
    (lambda at: at.from_url("http://a").namespace("a", type=Holder), "type: Opaque is unsupported"),
    (lambda _: msgpack_of(dict[str, Opaque]), "type: Opaque is unsupported"),
    (lambda at: at.from_url("http://a").with_token(None), "token: is a text, not NoneType"),
    (lambda at: at.from_url("http://a").on_commit().invalidate("pages", ["a"]), "namespace: what"),
    (lambda at: at.from_url("http://a").namespace("a").cached(None), "a template is a text"),
    (lambda at: at.from_url("http://a").namespace("a").cached(print)(print), "a template is a text"),
    (lambda at: at.from_url("http://a").namespace("a").cached("k")(5), "what is cached is a function, not 5"),
]


class Opaque:
    """A class that no codec knows."""


@dataclass
class Holder:
    inner: Opaque | None = None


@pytest.mark.parametrize("at", [Cache, SyncCache])
@pytest.mark.parametrize(("mistake", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_in_a_declaration_is_named(at: Any, mistake: Callable[[Any], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mistake(at)


CALLS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda ns: ns.get(7), "key 7: is int, and a key is a text"),
    (lambda ns: ns.get(["a"]), "key .*: is list"),
    (lambda ns: ns.get(b"a"), "key b'a': is bytes"),
    (lambda ns: ns.get(None), "key None"),
    (lambda ns: ns.lookup(7), "key 7"),
    (lambda ns: ns.get("a", timeout=[]), "timeout"),
    (lambda ns: ns.get_many(5), "keys: a list of them, not int"),
    (lambda ns: ns.get_many(["a", 5]), "key 5: is int"),
    (lambda ns: ns.get_many(None), "keys: a list of them, not NoneType"),
    (lambda ns: ns.get_many(b"abc"), "keys: a list of them, not one text"),
    (lambda ns: ns.get_or_load("a", None), "loader: None is no function"),
    (lambda ns: ns.get_or_load("a", lambda: b"1"), "is called with one argument, the key or `ctx`"),
    (lambda ns: ns.get_or_load("a", lambda a, b: b"1"), "is called with one argument"),
    (lambda ns: ns.get_or_load("a", print, ttl="soon"), "ttl: 'soon'"),
    (lambda ns: ns.set("a", b"", ttl={}), "ttl: {} is not"),
    (lambda ns: ns.set("a", b"", ttl=timedelta(seconds=-1)), "ttl: -1.0 is not"),
    (lambda ns: ns.set("a", b"", tags=[5]), "tag 5: is int"),
    (lambda ns: ns.set("a", b"", tags=5), "tags: a list of them, not int"),
    (lambda ns: ns.set_many([("a", b"")]), "values: a mapping of keys to values, not list"),
    (lambda ns: ns.set_many({5: b""}), "key 5"),
    (lambda ns: ns.touch(5), "key 5"),
    (lambda ns: ns.delete(5), "key 5"),
    (lambda ns: ns.invalidate(5), "keys: a list"),
    (lambda ns: ns.invalidate(["a"], tags=[b"t"]), "tag b't'"),
    (lambda ns: ns.invalidate(["a"], over=[]), "over"),
    (lambda ns: ns.invalidate(["a"], wait=5), "wait: 5"),
]


@pytest.mark.parametrize("near", [None, NearSettings()])
@pytest.mark.parametrize(("mistake", "message"), CALLS, ids=[message for _, message in CALLS])
async def test_a_mistake_in_a_call_is_named(
    service: FakeService, mistake: Callable[[Any], Any], message: str, near: NearSettings | None
) -> None:
    async with Cache.from_url(service.url) as cache:
        with pytest.raises(ValueError, match=message):
            await mistake(cache.namespace("pages", near=near))
    with SyncCache.from_url(service.url) as blocking, pytest.raises(ValueError, match=message):
        await asyncio.to_thread(mistake, blocking.namespace("pages", near=near))
    assert [call.path for call in service.saw if "invalid" in call.path] == []


async def test_a_loader_of_the_other_flavour_is_named(service: FakeService) -> None:
    async def is_async(_key: str = "") -> bytes:
        return b""

    def is_not_async() -> bytes:
        return b""

    async with Cache.from_url(service.url) as cache:
        pages: Any = cache.namespace("pages")
        with pytest.raises(ValueError, match=r"<function .*is_not_async.* is no async function"):
            await pages.cached("k")(is_not_async)()
        with pytest.raises(ValueError, match="is no async function"):
            await pages.get_or_load_many(["a"], lambda keys: dict.fromkeys(keys, b""))
        with pytest.raises(TypeError, match="write `async with`"), cache.on_commit():
            pass
        with pytest.raises(ValueError, match="is no async function"):
            await cache.namespace("pages").get_or_load("a", lambda _key: b"1")  # type: ignore[arg-type]  # the mistake
        with pytest.raises(TypeError, match="write `async with`"), cache:
            pass
    with SyncCache.from_url(service.url) as blocking, pytest.raises(ValueError, match="is an async function"):
        await asyncio.to_thread(lambda: blocking.namespace("pages").get_or_load("a", is_async))  # type: ignore[arg-type]  # the mistake
    with SyncCache.from_url(service.url) as blocking:
        cached: Any = blocking.namespace("pages").cached("k", ignore=["_key"])(is_async)
        with pytest.raises(ValueError, match=r"<function .*is_async.* is an async function"):
            await asyncio.to_thread(cached)


async def test_a_codec_that_makes_no_bytes_is_named(cache: Cache) -> None:
    class Text:
        content_type = "text/plain"

        def encode(self, value: str) -> str:
            return value

        def decode(self, value: bytes) -> str:
            return value.decode()

    texts: Any = cache.namespace("pages", codec=Text())  # type: ignore[call-overload]  # the mistake
    with pytest.raises(CodecError, match="encode returned str, not bytes"):
        await texts.set("a", "x")


async def test_timedeltas_are_durations(service: FakeService, cache: Cache) -> None:
    pages = cache.namespace("pages", timeout=timedelta(seconds=3), lag=timedelta(milliseconds=300))
    minute = timedelta(minutes=1)
    await pages.set("a", b"1", ttl=minute, stale=minute, stale_if_error=2 * minute, timeout=minute)
    (item,) = service.saw[-1].body["items"]
    assert (item["ttl"], item["stale_while_revalidate"], item["stale_if_error"]) == (60.0, 60.0, 120.0)
    await pages.invalidate(["a"], over=minute)
    assert service.saw[-1].body["over"] == "60000ms"


def test_bad_settings_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="default_timeout: '5 minutes' is not a duration"):
        Cache.from_url("http://a", default_timeout="5 minutes")
    with pytest.raises(ValueError, match="load_timeout: must be longer than 0"):
        Cache.from_url("http://a", load_timeout=0)
    for caller in ("x" * 129, "a\nb", " a"):
        with pytest.raises(ValueError, match="caller"):
            Cache.from_url("http://a", caller=caller)
    with pytest.raises(ValueError, match="max_loads_without_cache"):
        Cache.from_url("http://a", max_loads_without_cache=0)
    cache = Cache.from_url("http://a")
    with pytest.raises(ValueError, match="namespace 'a/b'"):
        cache.namespace("a/b")
    with pytest.raises(ValueError, match="give one of them"):
        cache.namespace("a", codec=JSON, type=int)  # type: ignore[call-overload]  # the mistake in question


@pytest.mark.parametrize("key", ["", "x" * 1025, "ü" * 513, "a\nb", "a\x85b", "\ud800"])
async def test_a_bad_key_is_refused_before_it_spoils_a_batch(
    service: FakeService, cache: Cache, key: str
) -> None:
    service.hold("good", b"1")
    pages = cache.namespace("pages")
    good, bad = await asyncio.gather(pages.get("good"), pages.get(key), return_exceptions=True)
    assert good == b"1"
    assert isinstance(bad, ValueError)


@pytest.mark.parametrize("key", [" ", "ü" * 512, "a\u00a0b", "../x?y#z%", ".", ".."])
async def test_any_other_key_is_taken(service: FakeService, cache: Cache, key: str) -> None:
    pages = cache.namespace("pages")
    await pages.set(key, b"1")
    assert await pages.get(key) == b"1"
    await pages.delete(key)
    assert await pages.get(key) is None


async def test_bad_arguments_of_writes_are_refused_by_name(service: FakeService, cache: Cache) -> None:
    pages = cache.namespace("pages")
    with pytest.raises(ValueError, match="keys: a list"):
        await pages.invalidate("abc")
    with pytest.raises(ValueError, match="tags: a list"):
        await pages.set("a", b"", tags="abc")
    with pytest.raises(ValueError, match="printable ASCII"):
        await pages.set("a", b"", tags=["ü"])
    with pytest.raises(ValueError, match="nothing to invalidate"):
        await pages.invalidate()
    with pytest.raises(
        ValueError, match="all=True purges all of 'pages': if that is meant, say confirm='pages' as well"
    ):
        await pages.invalidate(all=True)
    with pytest.raises(ValueError, match="confirm='pages'"):
        await pages.invalidate(all=True, confirm="page")
    with pytest.raises(ValueError, match="over: '5 minutes' is not a duration"):
        await pages.invalidate(["a"], over="5 minutes")
    with pytest.raises(ValueError, match="over: must be longer than 0"):
        await pages.invalidate(["a"], over=0)
    with pytest.raises(ValueError, match="wait: 'all' is none of none, region, global"):
        await pages.invalidate(["a"], wait="all")  # type: ignore[arg-type]  # the mistake in question
    with pytest.raises(ValueError, match="is no id, such as eu:"):
        await cache.receipt("../livez")
    with pytest.raises(ValueError, match="ttl: -1"):
        await pages.set("a", b"", ttl=-1)
    with pytest.raises(TypeError, match="a value here is bytes, not str"):
        await pages.set("a", "text")  # type: ignore[arg-type]  # the mistake in question
    with pytest.raises(ValueError, match="timeout"):
        await pages.get("a", timeout="soon")
    assert service.saw == []


@dataclass
class Page:
    title: str
    views: int = 0


async def test_values_of_a_type_come_back_as_that_type(service: FakeService, cache: Cache) -> None:
    pages = cache.namespace("pages", type=Page)
    await pages.set("a", Page("home", 3))
    assert await pages.get("a") == Page("home", 3)
    assert service.held["a"].value == b'{"title":"home","views":3}'
    assert service.held["a"].content_type == "application/json"
    assert await cache.namespace("pages", codec=JSON).get("a") == {"title": "home", "views": 3}


async def test_messagepack_values_come_back(service: FakeService, cache: Cache) -> None:
    await cache.namespace("pages", codec=MSGPACK).set("a", {"title": "home"})
    assert service.held["a"].content_type == "application/msgpack"
    assert await cache.namespace("pages", codec=msgpack_of(Page)).get("a") == Page("home")


async def test_a_stored_empty_value_is_not_a_miss(cache: Cache) -> None:
    pages = cache.namespace("pages")
    await pages.set("a", b"")
    assert await pages.get("a", b"default") == b""
    assert await pages.get_many(["a"]) == {"a": b""}
    null = cache.namespace("nulls", codec=JSON)
    await null.set("n", None)
    assert await null.get("n", "default") is None


async def test_the_readers_staleness_bound_goes_with_every_read(service: FakeService, cache: Cache) -> None:
    await cache.namespace("pages", max_lag="500ms").get("a")
    assert service.saw[-1].body["max_lag"] == "500ms"
