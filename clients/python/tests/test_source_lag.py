"""A loader whose source is behind: what it may have read before a change does not count as newer."""

from typing import Any

import pytest
from cachesvc_client import JSON, LoadContext, Namespace
from cachesvc_client.testing import FakeService


class Replica:
    """A replica of a database; the test says what it shows."""

    def __init__(self) -> None:
        self.shown = 1
        self.loads = 0

    async def __call__(self, key: str) -> int:
        self.loads += 1
        return self.shown


async def test_an_old_value_of_a_replica_is_not_kept_while_the_replica_may_show_it() -> None:
    service, replica = FakeService(), Replica()
    async with service.cache() as cache:
        pages = cache.namespace("pages", codec=JSON, lag="300ms")
        service.clock.advance("1s")
        assert await pages.get_or_load("a", replica) == 1
        await pages.invalidate(["a"])  # the commit of 2; the replica has it 300 ms later
        service.clock.advance("200ms")
        assert await pages.get_or_load("a", replica) == 1  # loaded, and not kept
        assert service.held("pages", "a") is None
        service.clock.advance("200ms")
        replica.shown = 2
        assert [await pages.get_or_load("a", replica) for _ in range(3)] == [2, 2, 2]
        assert cache.statistics().fenced_fills == 1
    assert replica.loads == 3


async def test_without_the_lag_the_old_value_stays_for_its_whole_life() -> None:
    """This is what the page warns of."""
    service, replica = FakeService(), Replica()
    async with service.cache() as cache:
        pages = cache.namespace("pages", codec=JSON)
        await pages.invalidate(["a"])
        service.clock.advance("200ms")
        assert await pages.get_or_load("a", replica, ttl="1h") == 1
        service.clock.advance("59m")
        replica.shown = 2
        assert await pages.get_or_load("a", replica) == 1


async def test_an_invalidation_of_a_tag_counts_as_one_of_the_key() -> None:
    service, replica = FakeService(), Replica()
    async with service.cache() as cache:
        pages = cache.namespace("pages", codec=JSON)
        service.invalidate("pages", tags=("t",))
        service.clock.advance("200ms")
        assert await pages.get_or_load("a", replica, tags=["t"], lag="300ms") == 1
        assert service.held("pages", "a") is None
        service.clock.advance("200ms")
        assert await pages.get_or_load("a", replica, tags=["t"], lag="300ms") == 1
        assert service.held("pages", "a") == b"1"


def lags(service: FakeService) -> list[Any]:
    return [
        item.get("source_lag")
        for call in service.calls
        if "put" in call.target
        for item in call.document["items"]
    ]


async def load_late(ctx: LoadContext) -> int:
    ctx.set_options(lag="2s")
    return 1


async def test_the_lag_of_the_load_goes_before_that_of_the_call_and_of_the_namespace() -> None:
    service, replica = FakeService(), Replica()
    async with service.cache() as cache:
        pages: Namespace[Any] = cache.namespace("pages", codec=JSON, lag="300ms")
        await pages.get_or_load("a", replica)
        await pages.get_or_load("b", replica, lag=1)
        await pages.get_or_load("c", replica, lag=0)
        await pages.get_or_load("d", load_late, lag=1)
        await pages.set("e", 1)
    assert lags(service) == [0.3, 1.0, None, 2.0, None]


def test_the_sync_client_tells_the_lag_too() -> None:
    service = FakeService()
    with service.sync_cache() as cache:
        cache.namespace("pages", codec=JSON, lag="300ms").get_or_load("a", lambda key: 1)
    assert lags(service) == [0.3]


async def test_a_lag_that_the_service_would_refuse_is_refused_at_once() -> None:
    service = FakeService()
    async with service.cache() as cache:
        for wrong in ("61s", -1, "soon"):
            with pytest.raises(ValueError, match="lag: "):
                cache.namespace("pages", lag=wrong)
        with pytest.raises(ValueError, match="lag: "):
            await cache.namespace("pages").get_or_load("a", Replica(), lag="2m")  # type: ignore[arg-type]  # no bytes
        with pytest.raises(ValueError, match="lag: "):
            LoadContext("a", None, 0.0, lambda: 0.0).set_options(lag="2m")  # type: ignore[arg-type]  # not asked for
