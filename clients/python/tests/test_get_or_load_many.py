"""`get_or_load_many`: what is missing is loaded by one call of the loader, in both flavours."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from cachesvc_client import ABSENT, JSON, Cache, CacheError, CodecError, Namespace, NearSettings
from cachesvc_client.sync import Cache as SyncCache

from clients.python.tests.fake_service import FakeService, Held

UNKNOWN = {"type": "https://cachesvc.dev/problems/home-unavailable", "retryable": True}


class Source:
    """A loader of many keys that records its calls; it has no value of keys that begin with `no`."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()

    def values(self, keys: list[str]) -> Mapping[str, Any]:
        self.calls.append(keys)
        if self.error is not None:
            raise self.error
        return {key: b"loaded " + key.encode() for key in keys if not key.startswith("no")}

    async def __call__(self, keys: list[str]) -> Mapping[str, Any]:
        self.entered.set()
        await self.gate.wait()
        return self.values(keys)


class Flavour:
    """One of the two flavours, asked in one way."""

    def __init__(self, cache: Any, source: Source) -> None:
        self.cache = cache
        self.source = source

    async def ask(self, keys: list[str], namespace: Any = None, **options: Any) -> dict[str, Any]:
        pages = namespace or self.cache.namespace("pages")
        if isinstance(self.cache, Cache):
            return await pages.get_or_load_many(keys, self.source, **options)  # type: ignore[no-any-return]
        return await asyncio.to_thread(
            lambda: pages.get_or_load_many(keys, lambda them: self.source.values(them), **options)
        )


@pytest.fixture(params=[Cache, SyncCache])
async def flavour(request: pytest.FixtureRequest, service: FakeService) -> Any:
    cache = request.param.from_url(service.url, default_timeout="5s", lease_wait="100ms", discover=False)
    yield Flavour(cache, Source())
    if isinstance(cache, Cache):
        await cache.aclose()
    else:
        await asyncio.to_thread(cache.close)


async def test_hits_are_answered_and_misses_loaded_by_one_call_and_filled(
    service: FakeService, flavour: Flavour
) -> None:
    service.hold("b", b"held")
    keys = ["a", "b", "none", "c", "a"]
    expected = {"a": b"loaded a", "b": b"held", "c": b"loaded c"}
    found = await flavour.ask(keys, ttl="5m", tags=["t"])
    assert found == expected
    assert list(found) == ["a", "b", "c"]
    assert flavour.source.calls == [["a", "none", "c"]]
    (read,) = service.calls(":get")
    assert read.body["keys"] == ["a", "b", "none", "c"]
    (put,) = service.calls(":put")
    assert [(one["key"], one.get("absent", False), one["tags"]) for one in put.body["items"]] == [
        ("a", False, ["t"]),
        ("none", True, ["t"]),
        ("c", False, ["t"]),
    ]
    assert await flavour.ask(keys) == expected
    assert len(flavour.source.calls) == 1, "all is held now, the absence of `none` too"
    assert await flavour.ask([]) == {}


async def test_a_thousand_misses_are_one_call(service: FakeService, flavour: Flavour) -> None:
    keys = [f"k{nth}" for nth in range(1000)]
    assert list(await flavour.ask(keys)) == keys
    assert flavour.source.calls == [keys]
    assert len(service.held) == 1000


async def test_out_of_reach_it_is_one_call_too_and_nothing_is_filled(
    service: FakeService, flavour: Flavour
) -> None:
    service.problem = (503, UNKNOWN, {})
    keys = [f"k{nth}" for nth in range(50)]
    assert list(await flavour.ask(keys)) == keys
    assert flavour.source.calls == [keys]
    assert service.calls(":put") == []
    assert flavour.cache.statistics().loads_without_cache == 50


async def test_a_loader_that_fails_gives_all_leases_back(service: FakeService, flavour: Flavour) -> None:
    flavour.source.error = KeyError("source")
    with pytest.raises(KeyError, match="source"):
        await flavour.ask(["a", "b"])
    async with asyncio.timeout(5):
        while len(service.released) < 2:  # noqa: ASYNC110  the service is told behind the answer
            await asyncio.sleep(0.01)
    assert sorted(key for key, _, _ in service.released) == ["a", "b"]


async def test_a_stale_value_is_answered_or_refreshed_and_survives_a_failing_loader(
    service: FakeService, flavour: Flavour
) -> None:
    service.held["a"] = Held(b"stale", 1, stale=True)
    flavour.source.error = KeyError("source")
    assert await flavour.ask(["a"]) == {"a": b"stale"}


async def test_a_key_that_another_process_loads_is_waited_for_and_then_loaded_alone(
    service: FakeService, flavour: Flavour
) -> None:
    service.leases["b"] = "somebody's"
    assert await flavour.ask(["a", "b"]) == {"a": b"loaded a", "b": b"loaded b"}
    assert flavour.source.calls == [["a"], ["b"]]
    (put,) = service.calls(":put")
    assert [one["key"] for one in put.body["items"]] == ["a"], "what has no lease is not filled"


async def test_values_are_as_they_come_back(service: FakeService, flavour: Flavour) -> None:
    namespace = flavour.cache.namespace("pages", codec=JSON)
    with pytest.raises(CodecError):
        await flavour.ask(["a"], namespace)


async def test_a_near_cache_answers_what_it_holds(service: FakeService, flavour: Flavour) -> None:
    namespace = flavour.cache.namespace("pages", near=NearSettings())
    assert await flavour.ask(["a", "b"], namespace) == {"a": b"loaded a", "b": b"loaded b"}


@pytest.mark.parametrize(
    ("brought", "message"), [(None, "a mapping of keys to values, not NoneType"), ([b"1"], "not list")]
)
async def test_a_loader_that_returns_no_mapping_is_named(
    service: FakeService, flavour: Flavour, brought: Any, message: str
) -> None:
    flavour.source.values = lambda _keys: brought  # type: ignore[method-assign, assignment]
    with pytest.raises(ValueError, match=message):
        await flavour.ask(["a"])


async def test_absent_may_be_said(service: FakeService, flavour: Flavour) -> None:
    flavour.source.values = lambda keys: dict.fromkeys(keys, ABSENT)  # type: ignore[method-assign]
    assert await flavour.ask(["a"]) == {}
    assert service.held["a"].absent


# the async flavour: flights that others join, and callers that leave


async def test_a_caller_of_one_key_joins_the_load_of_many(service: FakeService, cache: Cache) -> None:
    pages: Namespace[bytes] = cache.namespace("pages")
    source = Source()
    source.gate.clear()
    many = asyncio.create_task(pages.get_or_load_many(["a", "b"], source))
    await asyncio.wait_for(source.entered.wait(), 5)
    one = asyncio.create_task(pages.get_or_load("a", lambda _key: pytest.fail("joins")))
    await asyncio.sleep(0.01)
    source.gate.set()
    assert await many == {"a": b"loaded a", "b": b"loaded b"}
    assert await one == b"loaded a"


async def test_a_caller_without_patience_leaves_and_the_load_goes_on(
    service: FakeService, cache: Cache
) -> None:
    pages = cache.namespace("pages")
    source = Source()
    source.gate.clear()
    with pytest.raises(CacheError, match="deadline"):
        await pages.get_or_load_many(["a", "b"], source, timeout="30ms")
    source.gate.set()
    async with asyncio.timeout(5):
        while len(service.held) < 2:  # noqa: ASYNC110  it is filled behind everybody's back
            await asyncio.sleep(0.01)


async def test_a_caller_that_leaves_before_the_answers_leaves_no_lease(
    service: FakeService, cache: Cache
) -> None:
    pages = cache.namespace("pages")
    service.gate.clear()
    asking = asyncio.create_task(pages.get_or_load_many(["a", "b"], Source()))
    await asyncio.wait_for(service.arrived.acquire(), 5)
    asking.cancel()
    await asyncio.wait([asking])
    service.gate.set()
    async with asyncio.timeout(5):
        while len(service.released) < 2:  # noqa: ASYNC110  the service is told behind everybody's back
            await asyncio.sleep(0.01)


async def test_closing_cancels_the_loader(service: FakeService) -> None:
    source = Source()
    source.gate.clear()
    async with Cache.from_url(service.url) as cache:
        asking = asyncio.create_task(cache.namespace("pages").get_or_load_many(["a", "b"], source))
        await asyncio.wait_for(source.entered.wait(), 5)
    with pytest.raises(CacheError, match="load-cancelled"):
        await asking
    assert cache._tasks.all() == []
