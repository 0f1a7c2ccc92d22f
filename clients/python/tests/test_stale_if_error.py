"""`stale_if_error`: the value before stands in for a load that failed, unless it was invalidated."""

import asyncio
from typing import Any

import pytest
from cachesvc_client import Cache, CacheError
from cachesvc_client.testing import FakeService


class Flavour:
    """One of the two flavours, asked in one way."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache
        self.pages = cache.namespace("pages")
        self.error: Exception | None = None

    def value(self, _key: str) -> bytes:
        if self.error is not None:
            raise self.error
        return b"loaded"

    async def ask(self, **options: Any) -> Any:
        if not isinstance(self.cache, Cache):
            return await asyncio.to_thread(lambda: self.pages.get_or_load("a", self.value, **options))

        async def load(key: str) -> bytes:
            return self.value(key)

        return await self.pages.get_or_load("a", load, **options)

    async def invalidate(self) -> None:
        if isinstance(self.cache, Cache):
            await self.pages.invalidate(["a"])
        else:
            await asyncio.to_thread(self.pages.invalidate, ["a"])


@pytest.fixture
def fake() -> FakeService:
    return FakeService()


@pytest.fixture(params=["async", "sync"])
def flavour(request: pytest.FixtureRequest, fake: FakeService) -> Flavour:
    return Flavour(fake.cache() if request.param == "async" else fake.sync_cache())


LIVES: dict[str, Any] = {"ttl": "10s", "stale": 0, "stale_if_error": "1m"}


async def test_the_value_before_is_answered_within_its_time(
    fake: FakeService, flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    assert await flavour.ask(**LIVES) == b"loaded"
    fake.clock.advance("40s")
    flavour.error = ConnectionError("the source is down")
    assert await flavour.ask(**LIVES) == b"loaded"
    assert await flavour.ask(**LIVES) == b"loaded"
    assert flavour.cache.statistics().stale_on_error == 2
    assert caplog.text.count("its stale value is answered") == 1
    with pytest.raises(ConnectionError):
        await flavour.ask(ttl="10s")
    fake.clock.advance("40s")
    with pytest.raises(ConnectionError):
        await flavour.ask(**LIVES)
    flavour.error = None
    assert await flavour.ask(**LIVES) == b"loaded"


async def test_a_value_that_was_invalidated_is_not(fake: FakeService, flavour: Flavour) -> None:
    assert await flavour.ask(**LIVES) == b"loaded"
    await flavour.invalidate()
    flavour.error = ConnectionError("the source is down")
    with pytest.raises(ConnectionError):
        await flavour.ask(**LIVES)


async def test_without_a_value_the_failure_is_raised(flavour: Flavour) -> None:
    flavour.error = KeyError("none")
    with pytest.raises(KeyError):
        await flavour.ask(**LIVES)


async def test_a_loader_that_takes_too_long_fails_as_well(fake: FakeService) -> None:
    async with fake.cache(load_timeout="50ms") as cache:
        pages = cache.namespace("pages")

        @pages.cached("page:{number}", ttl="10s", stale=0, stale_if_error="1m")
        async def page(number: int) -> bytes:
            if fake.clock.now_us() > began:
                await asyncio.sleep(10)
            return b"quick"

        began = fake.clock.now_us()
        assert await page(1) == b"quick"
        fake.clock.advance("20s")
        assert await page(1) == b"quick"
        with pytest.raises(CacheError, match="was not loaded within"):
            await page(2)
