"""A lease is given back by every load that ends without a fill; no caller waits."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
from cachesvc_client import Cache, CacheError, Namespace
from cachesvc_client.protocol.wire import Got
from cachesvc_client.requests.handed_tokens import Wanted

from clients.python.tests.fake_service import FakeService

TOO_LARGE = {
    "type": "https://cachesvc.dev/problems/value-too-large",
    "status": 413,
    "retryable": False,
}
HOME_DOWN = {
    "type": "https://cachesvc.dev/problems/home-unavailable",
    "status": 503,
    "retryable": True,
}


@pytest.fixture
def pages(cache: Cache) -> Namespace[bytes]:
    return cache.namespace("pages")


async def until(what: str, holds: Callable[[], bool]) -> None:
    """Waits until `holds`, 5 s at most."""
    try:
        async with asyncio.timeout(5):
            while not holds():  # noqa: ASYNC110  what is waited for happens in the fake service
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(what) from None


async def loads(key: str) -> bytes:
    return b"loaded"


async def released(service: FakeService, count: int = 1) -> list[tuple[str, str]]:
    """Key and reason of the releases, once `count` of them have come."""
    await until("released", lambda: len(service.released) >= count)
    assert not service.leases, "and nothing is held any more"
    return [(key, reason) for key, _, reason in service.released]


async def raises(key: str) -> bytes:
    raise KeyError(key)


async def cancels(key: str) -> bytes:
    raise asyncio.CancelledError


async def brings_no_bytes(key: str) -> Any:
    return object()


@pytest.mark.parametrize(
    ("loader", "error", "reason"),
    [(raises, KeyError, "failed"), (cancels, CacheError, "failed"), (brings_no_bytes, TypeError, "unkept")],
    ids=["raises", "is-cancelled", "cannot-be-encoded"],
)
async def test_a_load_that_brings_nothing_to_keep_gives_its_lease_back(
    service: FakeService,
    pages: Namespace[bytes],
    loader: Callable[[str], Any],
    error: type[Exception],
    reason: str,
) -> None:
    with pytest.raises(error):
        await pages.get_or_load("a", loader)
    assert await released(service) == [("a", reason)]
    assert await pages.get_or_load("a", loads) == b"loaded"
    assert service.held["a"].value == b"loaded"


async def test_a_load_that_takes_too_long_gives_its_lease_back(service: FakeService) -> None:
    async with Cache.from_url(service.url, load_timeout="50ms") as cache:
        with pytest.raises(CacheError, match="deadline"):
            await cache.namespace("pages").get_or_load("a", lambda key: asyncio.sleep(60, b""))
        assert await released(service) == [("a", "failed")]


@pytest.mark.parametrize(("problem", "reason"), [(TOO_LARGE, "unkept"), (HOME_DOWN, "failed")])
async def test_a_fill_that_fails_gives_its_lease_back_and_its_value_is_answered(
    service: FakeService, pages: Namespace[bytes], problem: dict[str, Any], reason: str
) -> None:
    async def loader(key: str) -> bytes:
        service.key_problems["a"] = problem
        service.changes_before_puts = lambda: None
        return b"large"

    assert await pages.get_or_load("a", loader) == b"large"
    service.key_problems.clear()
    assert await released(service) == [("a", reason)]


async def test_a_load_that_fills_or_is_fenced_has_nothing_to_give_back(
    service: FakeService, pages: Namespace[bytes]
) -> None:
    async def fenced(key: str) -> bytes:
        service.fence(key)
        return b"old"

    assert await pages.get_or_load("a", loads) == b"loaded"
    assert await pages.get_or_load("b", fenced) == b"old"
    await asyncio.sleep(0.05)
    assert service.released == []


async def test_nobody_waits_for_a_release_and_nobody_is_told_that_it_failed(
    service: FakeService, pages: Namespace[bytes]
) -> None:
    async def loader(key: str) -> bytes:
        service.gate.clear()  # the release is not answered
        raise KeyError(key)

    with pytest.raises(KeyError):
        await asyncio.wait_for(pages.get_or_load("a", loader), 0.5)
    service.passing = [(503, HOME_DOWN, {})]
    service.gate.set()
    await asyncio.sleep(0.05)
    gc.collect()  # an exception that nobody took would be reported here


async def test_releases_share_a_request_with_fills(service: FakeService, pages: Namespace[bytes]) -> None:
    results = await asyncio.gather(
        *(pages.get_or_load(f"r{i}", raises) for i in range(5)),
        *(pages.get_or_load(f"f{i}", loads) for i in range(5)),
        return_exceptions=True,
    )
    assert [isinstance(result, KeyError) for result in results] == [True] * 5 + [False] * 5
    await released(service, 5)
    assert [len(call.body["items"]) for call in service.calls(":put")] == [10]


async def test_a_refresh_behind_a_stale_value_gives_its_lease_back_when_it_fails(
    service: FakeService, pages: Namespace[bytes]
) -> None:
    service.hold("a", b"old", stale=True)
    assert await pages.get_or_load("a", raises) == b"old"
    assert await released(service) == [("a", "failed")]


async def test_a_value_of_a_later_version_is_loaded_past_and_its_lease_given_back(
    service: FakeService, cache: Cache
) -> None:
    service.hold("a", b"{}", stale=True, content_type="application/json; v=9")
    pages = cache.namespace("pages", type=dict, version=1)

    async def loader(key: str) -> dict[str, int]:
        return {"v": 1}

    assert await pages.get_or_load("a", loader) == {"v": 1}
    assert await released(service) == [("a", "failed")]


# cancelled at each await --------------------------------------------------------------------------


async def test_a_caller_cancelled_before_its_answer_gives_the_lease_back(
    service: FakeService, pages: Namespace[bytes]
) -> None:
    service.gate.clear()
    callers = [asyncio.create_task(pages.get_or_load("a", loads)) for _ in range(2)]
    await service.arrived.acquire()
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    service.gate.set()
    assert await released(service) == [("a", "failed")]


async def test_a_caller_cancelled_as_its_answer_arrives_gives_the_lease_back(
    service: FakeService, pages: Namespace[bytes]
) -> None:
    """Its order is answered, and the caller is cancelled before it can claim the lease."""
    leases = pages._look_aside._leases

    class Cancelling:
        def join(self, item: Wanted, timeout: float, weight: int = 0) -> asyncio.Future[Got | CacheError]:
            order = leases.join(item, timeout, weight)
            assert isinstance(order, asyncio.Future)
            order.add_done_callback(lambda _: caller.cancel())  # before the caller's own callback
            return order

    pages._look_aside._leases = Cancelling()
    caller = asyncio.create_task(pages.get_or_load("a", loads))
    await asyncio.wait([caller])
    assert caller.cancelled()
    assert await released(service) == [("a", "failed")]


async def test_a_caller_that_stays_uses_the_lease_of_one_that_leaves(
    service: FakeService, pages: Namespace[bytes]
) -> None:
    service.gate.clear()
    leaves, stays = (asyncio.create_task(pages.get_or_load("a", loads)) for _ in range(2))
    await service.arrived.acquire()
    leaves.cancel()
    await asyncio.wait([leaves])
    service.gate.set()
    assert await stays == b"loaded"
    assert service.held["a"].value == b"loaded"
    assert service.released == []


async def test_closing_the_client_gives_back_the_leases_of_its_loads(service: FakeService) -> None:
    async with Cache.from_url(service.url) as cache:
        entered = asyncio.Event()

        async def hangs(key: str) -> bytes:
            entered.set()
            await asyncio.sleep(60)
            return b""

        caller = asyncio.create_task(cache.namespace("pages").get_or_load("a", hangs))
        await entered.wait()
    await asyncio.gather(caller, return_exceptions=True)
    assert [(key, reason) for key, _, reason in service.released] == [("a", "failed")]
    assert not service.leases


async def test_a_load_cancelled_during_its_fill_gives_back_what_the_fill_leaves(
    service: FakeService, cache: Cache, pages: Namespace[bytes]
) -> None:
    async def loader(key: str) -> bytes:
        service.gate.clear()
        return b"late"

    caller = asyncio.create_task(pages.get_or_load("a", loader))
    await until("filling", lambda: bool(service.calls(":put")))
    cache._tasks.cancel_loads()
    with pytest.raises(CacheError):
        await caller
    service.gate.set()
    assert await released(service) == [("a", "failed")]
    assert service.held["a"].value == b"late", "the release came after the fill, and changed nothing"


async def test_a_flight_that_is_cancelled_before_it_begins_gives_its_lease_back(
    service: FakeService, cache: Cache, pages: Namespace[bytes]
) -> None:
    caller = asyncio.create_task(pages.get_or_load("a", loads))
    while not cache._tasks.loads:  # noqa: ASYNC110  each turn of the loop counts
        await asyncio.sleep(0)
    cache._tasks.cancel_loads()
    with pytest.raises(CacheError):
        await caller
    assert await released(service) in ([("a", "failed")],)


async def test_a_caller_with_the_lease_starts_a_flight_beside_one_that_waits_for_it(
    service: FakeService, pages: Namespace[bytes]
) -> None:
    service.leases["a"] = "lease-1"  # another process holds it
    waiting = asyncio.create_task(pages.get_or_load("a", loads))
    await until("waiting", lambda: pages._look_aside.flights.get("a") is not None)
    del service.leases["a"]
    flight = pages._look_aside.flights.get("a")
    assert flight is not None
    pages._look_aside.flights.forget("a")
    assert await pages.get_or_load("a", loads) == b"loaded"
    assert await waiting == b"loaded"
    assert not service.leases


# keys whose values cannot be kept -----------------------------------------------------------------


async def test_nobody_waits_for_the_fill_of_a_key_that_cannot_be_kept(
    service: FakeService, cache: Cache, pages: Namespace[bytes]
) -> None:
    service.leases["a"] = "lease-1"
    service.unkept.add("a")
    began = asyncio.get_running_loop().time()
    assert await pages.get_or_load("a", loads) == b"loaded"
    assert asyncio.get_running_loop().time() - began < 1.0
    assert [call.body.get("wait", 0.0) for call in service.calls(":get")] == [0.0]
    assert (cache.statistics().unkept_loads, cache.statistics().loads_without_cache) == (1, 0)
    assert service.calls(":put") == []


async def test_a_waiter_that_hears_it_stops_to_wait(service: FakeService, pages: Namespace[bytes]) -> None:
    service.leases["a"] = "lease-1"
    service.on_read = lambda nth: service.unkept.add("a") if nth > 1 else None
    assert await pages.get_or_load("a", loads) == b"loaded"
    assert service.calls(":put") == []
