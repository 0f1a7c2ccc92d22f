"""Calls of one moment leave in one request, and no caller suffers from another's trouble."""

import asyncio
from typing import Any

import pytest
from cachesvc_client import Cache, CacheError, PartialError
from cachesvc_client.aio.batching import LANES, Batcher
from cachesvc_client.protocol.batch_limits import MAX_ITEMS
from cachesvc_client.values.durations import seconds_of

from clients.python.tests.fake_service import FakeService


async def test_gets_of_one_tick_leave_in_one_request(service: FakeService, cache: Cache) -> None:
    for i in range(64):
        service.hold(f"k{i}", b"v%d" % i)
    pages = cache.namespace("pages")
    values = await asyncio.gather(*(pages.get(f"k{i}") for i in range(64)))
    assert values == [b"v%d" % i for i in range(64)]
    assert [len(call.body["keys"]) for call in service.calls(":get")] == [64]


async def test_equal_keys_of_a_batch_share_a_slot(service: FakeService, cache: Cache) -> None:
    service.hold("a", b"1")
    pages = cache.namespace("pages")
    values = await asyncio.gather(pages.get("a"), pages.get("a"), pages.get("b", b"none"))
    assert tuple(values) == (b"1", b"1", b"none")
    assert service.calls(":get")[-1].body["keys"] == ["a", "b"]


async def test_gets_that_arrive_while_all_lanes_are_busy_leave_together() -> None:
    answered = [asyncio.Event() for _ in range(LANES)]
    sent: list[list[str]] = []
    departed = asyncio.Semaphore(0)

    async def send(items: list[str], _deadline: float) -> list[str]:
        sent.append(items)
        departed.release()
        if len(sent) <= LANES:
            await answered[len(sent) - 1].wait()
        return [item.upper() for item in items]

    batcher: Batcher[str, str] = Batcher(send, timeout=5, tasks=set())
    first = []
    for i in range(LANES):
        first.append(batcher.join(f"busy{i}"))
        await departed.acquire()
    waiting = [batcher.join("c")]
    await asyncio.sleep(0)
    waiting.append(batcher.join("d"))
    answered[0].set()
    assert await asyncio.gather(*waiting) == ["C", "D"]
    assert sent[LANES:] == [["c", "d"]]
    answered[1].set()
    await asyncio.gather(*first)


async def test_a_slow_batch_delays_the_next_by_the_maximum_delay_only() -> None:
    """The busy lanes are never answered here: only the delay can let the next batch go."""
    sent: list[list[str]] = []
    departed = asyncio.Semaphore(0)

    async def send(items: list[str], _deadline: float) -> list[str]:
        sent.append(items)
        departed.release()
        if len(sent) <= LANES:
            await asyncio.Event().wait()
        return items

    tasks: set[asyncio.Task[None]] = set()
    batcher: Batcher[str, str] = Batcher(send, timeout=5, tasks=tasks)
    for i in range(LANES):
        batcher.join(f"busy{i}")
        await departed.acquire()
    assert await batcher.join("c") == "c"
    for task in tuple(tasks):
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_full_batch_departs_at_once() -> None:
    sent: list[int] = []

    async def send(items: list[str], _deadline: float) -> list[str]:
        sent.append(len(items))
        return items

    batcher: Batcher[str, str] = Batcher(send, timeout=5, tasks=set())
    await asyncio.gather(*(batcher.join(str(i)) for i in range(MAX_ITEMS + 1)))
    assert sent == [MAX_ITEMS, 1]


async def test_cancelling_any_callers_leaves_the_others_their_answers(
    service: FakeService, cache: Cache
) -> None:
    for key in "abcd":
        service.hold(key, key.encode())
    pages = cache.namespace("pages")
    service.gate.clear()
    calls = [asyncio.create_task(pages.get(key)) for key in "aabcd"]
    await service.arrived.acquire()
    for call in (calls[0], calls[2], calls[3]):
        call.cancel()
    service.gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [result if isinstance(result, bytes) else type(result) for result in results] == [
        asyncio.CancelledError,
        b"a",
        asyncio.CancelledError,
        asyncio.CancelledError,
        b"d",
    ]


async def test_a_caller_that_left_before_departure_is_not_sent() -> None:
    sent: list[Any] = []

    async def send(items: list[str], _deadline: float) -> list[str]:
        sent.append(items)
        return items

    batcher: Batcher[str, str] = Batcher(send, timeout=5, tasks=set())
    gone, stays = batcher.join("gone"), batcher.join("stays")
    gone.cancel()
    assert await stays == "stays"
    assert sent == [["stays"]]


async def test_a_key_that_failed_fails_its_caller_only(service: FakeService, cache: Cache) -> None:
    service.hold("a", b"1")
    service.key_problems["bad"] = {
        "type": "https://cachesvc.dev/problems/overtaken",
        "status": 503,
        "retryable": True,
    }
    pages = cache.namespace("pages")
    good, bad = await asyncio.gather(pages.get("a"), pages.get("bad"), return_exceptions=True)
    assert good == b"1"
    assert isinstance(bad, CacheError)
    assert (bad.type, bad.status, bad.retryable) == ("overtaken", 503, True)


async def test_get_many_answers_what_was_found_and_keeps_it_when_others_fail(
    service: FakeService, cache: Cache
) -> None:
    service.hold("a", b"1")
    service.hold("absent", b"", absent=True)
    pages = cache.namespace("pages")
    assert await pages.get_many(["a", "absent", "missing"]) == {"a": b"1"}
    service.key_problems["bad"] = {"type": "https://cachesvc.dev/problems/overtaken", "status": 503}
    with pytest.raises(PartialError) as caught:
        await pages.get_many(["a", "bad"])
    assert (caught.value.found, list(caught.value.failed)) == ({"a": b"1"}, ["bad"])


async def test_sets_of_one_tick_leave_in_one_request_in_order(service: FakeService, cache: Cache) -> None:
    pages = cache.namespace("pages")
    await asyncio.gather(
        pages.set("a", b"1", ttl="5m", tags=["t"]), pages.set("a", b"2", stale=1.5), pages.set("b", b"3")
    )
    (put,) = service.calls(":put")
    assert put.body["items"] == [
        {"key": "a", "value": b"1", "ttl": 300.0, "tags": ["t"]},
        {"key": "a", "value": b"2", "stale_while_revalidate": 1.5},
        {"key": "b", "value": b"3"},
    ]
    assert await pages.get("a") == b"2"


async def test_large_values_do_not_make_a_large_request(service: FakeService, cache: Cache) -> None:
    values = {f"k{i}": bytes(200_000) for i in range(6)}
    pages = cache.namespace("pages")
    await pages.set_many(values)
    assert [len(call.body["items"]) for call in service.calls(":put")] == [2, 2, 2]
    assert await pages.get_many(values) == values


async def test_set_many_names_what_was_not_stored(service: FakeService, cache: Cache) -> None:
    service.key_problems["big"] = {"type": "https://cachesvc.dev/problems/value-too-large", "status": 413}
    pages = cache.namespace("pages")
    with pytest.raises(PartialError) as caught:
        await pages.set_many({"a": b"1", "big": b"2"})
    assert {key: error.type for key, error in caught.value.failed.items()} == {"big": "value-too-large"}
    assert await pages.get("a") == b"1"


async def test_without_batching_every_get_is_a_request_of_its_own(service: FakeService) -> None:
    service.hold("a/b ü", b"1")
    service.hold("gone", b"", absent=True)
    async with Cache.from_url(service.url, batching=False) as cache:
        pages = cache.namespace("pages")
        assert await asyncio.gather(*(pages.get(key) for key in ("a/b ü", "a/b ü", "missing", "gone"))) == [
            b"1",
            b"1",
            None,
            None,
        ]
        await pages.set("c", b"2")
        assert await pages.get_or_load("c", _unused) == b"2"
    assert sorted((call.method, call.path) for call in service.saw) == [
        ("GET", "/v1/pages/a%2Fb%20%C3%BC"),
        ("GET", "/v1/pages/a%2Fb%20%C3%BC"),
        ("GET", "/v1/pages/gone"),
        ("GET", "/v1/pages/missing"),
        ("POST", "/v1/pages:get"),
        ("POST", "/v1/pages:put"),
    ]


async def _unused(_key: str) -> bytes:
    raise AssertionError("must not be loaded")


async def test_a_call_with_little_time_leaves_its_batch_to_the_others(
    service: FakeService, cache: Cache
) -> None:
    service.hold("a", b"1")
    pages = cache.namespace("pages")
    service.gate.clear()
    patient = asyncio.create_task(pages.get("a"))
    with pytest.raises(CacheError, match=r"no answer within 0\.05 s") as caught:
        await pages.get("a", timeout="0.05s")
    assert (caught.value.type, caught.value.retryable) == ("deadline", True)
    service.gate.set()
    assert await patient == b"1"
    assert len(service.calls(":get")) == 1


async def test_set_many_names_the_keys_that_were_not_stored_within_its_own_timeout(
    service: FakeService, cache: Cache
) -> None:
    service.gate.clear()
    with pytest.raises(PartialError) as caught:
        await cache.namespace("pages").set_many({"a": b"1", "b": b"2"}, timeout="0.05s")
    assert {key: error.type for key, error in caught.value.failed.items()} == dict.fromkeys("ab", "deadline")


async def test_unbatched_the_service_is_told_the_time_of_the_call(service: FakeService) -> None:
    async with Cache.from_url(service.url, default_timeout="5s", batching=False) as cache:
        await cache.namespace("pages").get("a", timeout="0.5s")
    (call,) = service.calls("/a")
    assert 0 < seconds_of(call.headers["Cachesvc-Timeout"], "Cachesvc-Timeout") <= 0.5
