"""Mistakes raise errors that name them, at once, and never reach a shared batch."""

import asyncio
from dataclasses import dataclass

import pytest
from cachesvc_client import JSON, MSGPACK, Cache, msgpack_of

from clients.python.tests.fake_service import FakeService


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "is no base URL"),
        ("127.0.0.1:8080", "is no base URL"),
        ("redis://h", "is no base URL"),
        ("http://a,", "url ''"),
        ("http://a?x=1", "no query"),
    ],
)
def test_a_bad_url_is_refused_by_name(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cache.from_url(url)


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
