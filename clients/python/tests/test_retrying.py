"""Requests are sent again after a failure that may pass, within their time.

Only requests that may be done twice are sent again.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cachesvc_client import IN_REGION, Cache, CacheError, Retries
from msgspec.structs import replace

from clients.python.tests.fake_service import FakeService

BUSY: tuple[int, dict[str, Any], dict[str, str]] = (
    503,
    {"type": "https://cachesvc.dev/problems/overloaded", "status": 503, "retryable": True},
    {},
)
QUICK = replace(IN_REGION, timeout=5.0, retries=Retries(most=2, first_pause=0.001, longest_pause=0.002))


async def test_a_read_is_tried_again_until_it_is_answered(service: FakeService) -> None:
    service.hold("a", b"1")
    service.passing = [BUSY, BUSY]
    async with Cache.from_url(service.url, profile=QUICK) as cache:
        assert await cache.namespace("pages").get("a") == b"1"
        assert (cache.statistics().retries, cache.statistics().requests) == (2, 3)


@pytest.mark.parametrize("call", ["get", "get_many", "set", "delete", "invalidate", "receipt"])
async def test_what_may_be_done_twice_is_retried(service: FakeService, call: str) -> None:
    service.passing = [BUSY]
    service.receipts["eu:1-0"] = {"id": "eu:1-0", "state": "done"}
    async with Cache.from_url(service.url, profile=QUICK) as cache:
        pages = cache.namespace("pages")
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "get": lambda: pages.get("a"),
            "get_many": lambda: pages.get_many(["a"]),
            "set": lambda: pages.set("a", b"1"),
            "delete": lambda: pages.delete("a"),
            "invalidate": lambda: pages.invalidate(["a"]),
            "receipt": lambda: cache.receipt("eu:1-0"),
        }
        await calls[call]()
        assert cache.statistics().retries == 1


async def test_a_lease_or_its_fill_or_a_touch_is_never_retried(service: FakeService) -> None:
    async def load(key: str) -> bytes:
        service.passing = [BUSY]
        return b"loaded"

    async with Cache.from_url(service.url, profile=QUICK) as cache:
        pages = cache.namespace("pages")
        assert await pages.get_or_load("a", load) == b"loaded"
        assert cache.statistics().failed_fills == 1
        service.passing = [BUSY]
        assert await pages.get_or_load("a", load) == b"loaded"
        service.passing = []
        service.hold("b", b"1")
        service.changes_before_puts = lambda: service.passing.append(BUSY)
        with pytest.raises(CacheError, match="overloaded"):
            await pages.touch("b")
        assert cache.statistics().retries == 0


async def test_what_the_service_asks_to_wait_longer_than_there_is_time_is_told_at_once(
    service: FakeService,
) -> None:
    service.passing = [(503, BUSY[1], {"Retry-After": "60"})]
    async with Cache.from_url(service.url, profile=QUICK) as cache:
        with pytest.raises(CacheError) as caught:
            await cache.namespace("pages").get("a")
    assert (caught.value.retry_after, len(service.saw)) == (60.0, 1)


async def test_what_is_refused_for_good_is_not_retried(service: FakeService) -> None:
    service.passing = [
        (
            404,
            {"type": "https://cachesvc.dev/problems/no-such-namespace", "status": 404, "retryable": True},
            {},
        )
    ]
    async with Cache.from_url(service.url, profile=QUICK) as cache:
        with pytest.raises(CacheError, match="no-such-namespace"):
            await cache.namespace("pages").get("a")
    assert len(service.saw) == 1


async def test_an_outage_is_not_made_worse_by_more_than_the_budget(service: FakeService) -> None:
    service.problem = BUSY
    frugal = replace(QUICK, retries=Retries(most=2, first_pause=0.0001, share=0.1, reserve=3))
    async with Cache.from_url(service.url, profile=frugal) as cache:
        pages = cache.namespace("pages")
        for _ in range(50):
            with pytest.raises(CacheError, match="overloaded"):
                await pages.get("a")
        assert cache.statistics().retries <= 3 + 50 * 0.1
