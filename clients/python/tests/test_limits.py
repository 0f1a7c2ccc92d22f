"""Limits of the service: a 429 is heeded, and nothing is loaded past an origin budget."""

import asyncio
from typing import Any

import pytest
from cachesvc_client import Cache, CacheError
from cachesvc_client.testing import FakeService


class Flavour:
    """One of the two flavours, asked in one way; counts its loads."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache
        self.pages = cache.namespace("pages")
        self.loads = 0

    def value(self, _key: str) -> bytes:
        self.loads += 1
        return b"loaded"

    async def load(self, key: str, **options: Any) -> Any:
        if not isinstance(self.cache, Cache):
            return await asyncio.to_thread(lambda: self.pages.get_or_load(key, self.value, **options))

        async def load(key: str) -> bytes:
            return self.value(key)

        return await self.pages.get_or_load(key, load, **options)

    async def get(self, key: str) -> Any:
        if isinstance(self.cache, Cache):
            return await self.pages.get(key)
        return await asyncio.to_thread(self.pages.get, key)


@pytest.fixture
def fake() -> FakeService:
    return FakeService()


@pytest.fixture(params=["async", "sync"])
def flavour(request: pytest.FixtureRequest, fake: FakeService) -> Flavour:
    return Flavour(fake.cache() if request.param == "async" else fake.sync_cache())


async def test_nothing_is_loaded_past_a_used_up_origin_budget(fake: FakeService, flavour: Flavour) -> None:
    fake.fail_next(20, "origin-budget", status=503, retry_after=5)
    with pytest.raises(CacheError) as caught:
        await flavour.load("a")
    assert (caught.value.type, caught.value.status) == ("origin-budget", 503)
    assert caught.value.retry_after == 5
    assert flavour.loads == 0


async def test_a_stale_value_stands_in_for_a_load_that_the_budget_forbids(
    fake: FakeService, flavour: Flavour
) -> None:
    lives: dict[str, Any] = {"ttl": "10s", "stale": 0, "stale_if_error": "1m"}
    assert await flavour.load("a", **lives) == b"loaded"
    fake.clock.advance("40s")
    fake.fail_next(1, "origin-budget", status=503, retry_after=5)
    assert await flavour.load("a", **lives) == b"loaded"
    assert flavour.loads == 1


async def test_a_refusal_by_rate_is_not_asked_again_before_its_time(
    fake: FakeService, flavour: Flavour
) -> None:
    fake.fail_next(1, "rate-limited", status=429, retry_after=30)
    with pytest.raises(CacheError) as caught:
        await flavour.get("a")
    assert (caught.value.type, caught.value.status) == ("rate-limited", 429)
    assert caught.value.retryable
    assert caught.value.retry_after == 30
    assert flavour.cache.statistics().retries == 0
