"""A cache at the top of a module asks a fake service for a block, or is off for a block."""

import asyncio
from typing import Any

import pytest
from cachesvc_client import Cache, NearSettings, NotSentError
from cachesvc_client.sync import Cache as SyncCache
from cachesvc_client.testing import FakeService, off

from clients.python.tests.fake_service import FakeService as RealService
from tests.doubles.waiting import until

NOWHERE = "http://127.0.0.1:9"


class Module:
    """A module of an application, which makes its cache when it is imported."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache
        self.pages = cache.namespace("pages")
        self.runs = 0

        def sync_page(key: str) -> bytes:
            self.runs += 1
            return b"page %d" % self.runs

        async def page(key: str) -> bytes:
            return sync_page(key)

        self.page = self.pages.cached("page:{key}")(page if isinstance(cache, Cache) else sync_page)

    async def call(self, function: Any, *args: Any, **options: Any) -> Any:
        if isinstance(self.cache, Cache):
            return await function(*args, **options)
        return await asyncio.to_thread(function, *args, **options)


FLAVOURS: dict[str, Any] = {"async": Cache, "sync": SyncCache}


@pytest.fixture(params=list(FLAVOURS))
def module(request: pytest.FixtureRequest) -> Module:
    return Module(FLAVOURS[request.param].from_url(NOWHERE))


async def test_calls_go_to_the_fake_within_the_block(module: Module) -> None:
    with FakeService().serving(module.cache) as service:
        assert [await module.call(module.page, "a") for _ in range(2)] == [b"page 1"] * 2
        assert service.held("pages", "page:a") == b"page 1"
        await module.call(module.page.invalidate, "a")
        assert await module.call(module.page, "a") == b"page 2"


async def test_two_tests_share_nothing(module: Module) -> None:
    """An own write of the first would refuse the values of the second, whose clock is behind."""
    with FakeService().serving(module.cache):
        for _ in range(50):
            await module.call(module.pages.set, "a", b"A")
    with FakeService().serving(module.cache) as service:
        service.hold("pages", "a", b"of the second test")
        assert await module.call(module.pages.get, "a") == b"of the second test"
        assert module.cache.token() == ""
    assert module.cache.statistics().failovers == 0


async def test_an_outage_of_the_fake_is_none_of_the_real_service(
    module: Module, service: RealService
) -> None:
    real = Module(type(module.cache).from_url(service.url))
    await real.call(real.pages.set, "a", b"real")
    with FakeService().serving(real.cache) as fake:
        fake.down()
        assert await real.call(real.page, "a") == b"page 1"
        fake.up()
        assert await real.call(real.pages.get, "a") is None
    assert await real.call(real.pages.get, "a") == b"real"
    await real.call(real.cache.aclose if isinstance(real.cache, Cache) else real.cache.close)


async def test_off_runs_the_function_each_time_and_takes_invalidations(module: Module) -> None:
    with off(module.cache) as service:
        assert [await module.call(module.page, "a") for _ in range(3)] == [b"page 1", b"page 2", b"page 3"]
        await module.call(module.pages.invalidate, tags=["user:7"])
        await module.call(module.pages.set, "b", b"B")
        assert await module.call(module.pages.get, "b") is None
        assert [call.document for call in service.calls if call.target == "/v1/invalidations"] == [
            {"namespace": "pages", "keys": [], "tags": ["user:7"]}
        ]


async def test_a_near_cache_follows_the_fake_and_forgets_it() -> None:
    cache = Cache.from_url(NOWHERE)
    flags = cache.namespace("pages", near=NearSettings())
    near = flags.near
    assert near is not None
    for value in (b"one", b"two"):
        with FakeService().serving(cache) as service:
            service.hold("pages", "a", value)
            assert await flags.get("a") == value
            await until("trusted", lambda: near.is_trusted)
            assert [await flags.get("a") for _ in range(3)] == [value] * 3
            assert near.statistics().entries == 1
            service.invalidate("pages", "a")
            await until("fenced", lambda: near.statistics().entries == 0)
    await cache.aclose()


def test_each_test_of_a_suite_has_a_loop_of_its_own() -> None:
    module = Module(Cache.from_url(NOWHERE))
    for _ in range(3):
        with FakeService().serving(module.cache):
            assert asyncio.run(module.page("a"))
    assert module.runs == 3


async def test_what_could_not_be_sent_in_a_test_is_not_sent_to_the_service(module: Module) -> None:
    with FakeService().serving(module.cache) as service:
        service.down()
        tx = module.cache.on_commit()
        tx.invalidate(module.pages, ["a"])
        with pytest.raises(NotSentError):
            await module.call(tx.send)
        assert module.cache.statistics().unsent == 1
    assert module.cache.statistics().unsent == 0
