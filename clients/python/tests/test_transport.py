"""Deadlines, failover and problem documents."""

import asyncio
import random
import socket

import pytest
from cachesvc_client import Cache, CacheError
from cachesvc_client.instances.endpoints import urls_of
from cachesvc_client.instances.region import Region

from clients.python.tests.fake_service import FakeService


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def test_the_next_instance_answers_when_one_cannot_be_reached(service: FakeService) -> None:
    service.hold("a", b"1")
    async with Cache.from_url(f"http://127.0.0.1:{closed_port()}, {service.url}") as cache:
        pages = cache.namespace("pages")
        assert await pages.get("a") == b"1"
        await pages.set("b", b"2")
        assert service.held["b"].value == b"2"
        assert cache.statistics().failovers == 1, "the second call does not try the first instance again"


async def test_a_restarted_instance_is_found_again_at_once(service: FakeService, cache: Cache) -> None:
    """The connections kept to the instance are dead, which says nothing about the instance."""
    pages = cache.namespace("pages")
    await pages.set("a", b"1")
    port = int(service.url.rpartition(":")[2])
    await service.stop()
    await service.start(port)
    assert await pages.get("a") == b"1"


async def test_nobody_there_is_an_error_that_may_pass() -> None:
    async with Cache.from_url(f"http://127.0.0.1:{closed_port()}") as cache:
        with pytest.raises(CacheError) as caught:
            await cache.namespace("pages").get("a")
    assert (caught.value.type, caught.value.status, caught.value.retryable) == ("unreachable", 0, True)


async def test_no_answer_in_time_is_an_error_and_the_service_was_told_a_little_less(
    service: FakeService,
) -> None:
    service.gate.clear()
    async with Cache.from_url(service.url, default_timeout="30ms") as cache:
        pages = cache.namespace("pages")
        for call in (pages.get("a"), pages.delete("a"), pages.get_many(["a"]), pages.set("a", b"")):
            with pytest.raises(CacheError) as caught:
                await call
            assert caught.value.type == "deadline"
    assert all(
        0 < int(request.headers["Cachesvc-Timeout"].removesuffix("ms")) <= 27 for request in service.saw
    )


async def test_a_call_may_have_less_time_than_its_batch(service: FakeService, cache: Cache) -> None:
    service.hold("a", b"1")
    service.gate.clear()
    pages = cache.namespace("pages")
    patient = asyncio.create_task(pages.get("a"))
    with pytest.raises(CacheError) as caught:
        await pages.get("a", timeout="20ms")
    assert caught.value.type == "deadline"
    service.gate.set()
    assert await patient == b"1"


async def test_a_problem_document_becomes_the_error(service: FakeService, cache: Cache) -> None:
    document = {
        "type": "https://cachesvc.dev/problems/overloaded",
        "title": "Too busy",
        "detail": "come back",
        "retryable": True,
        "request_id": "r-1",
        "field": "$.keys",
    }
    service.problem = (503, document, {"Retry-After": "60"})
    with pytest.raises(CacheError) as caught:
        await cache.namespace("pages").get("a")
    error = caught.value
    assert (
        error.type,
        error.status,
        error.retryable,
        error.retry_after,
        error.request_id,
        error.field,
        str(error),
    ) == (
        "overloaded",
        503,
        True,
        60.0,
        "r-1",
        "$.keys",
        "overloaded: come back",
    )


async def test_callers_of_one_failed_batch_get_errors_of_their_own(
    service: FakeService, cache: Cache
) -> None:
    service.problem = (503, {"type": "https://cachesvc.dev/problems/overloaded"}, {})
    pages = cache.namespace("pages")
    one, two = await asyncio.gather(pages.get("a"), pages.get("a"), return_exceptions=True)
    assert isinstance(one, CacheError)
    assert isinstance(two, CacheError)
    assert one is not two


@pytest.mark.parametrize("answer", [b"", b"nonsense", b"\x81\xa7results\x90", b"\x81\xa7results\xa1x"])
async def test_an_answer_out_of_the_protocol_is_an_error_for_all_who_wait(
    service: FakeService, cache: Cache, answer: bytes
) -> None:
    service.raw_answer = answer
    with pytest.raises(CacheError) as caught:
        await cache.namespace("pages").get("a", timeout=2)
    assert caught.value.type == "bad-answer"


async def test_an_error_page_of_a_proxy_is_an_error_with_its_status(
    service: FakeService, cache: Cache
) -> None:
    service.problem = (502, {"type": 5}, {})
    with pytest.raises(CacheError) as caught:
        await cache.namespace("pages").get("a")
    assert (caught.value.type, caught.value.status, caught.value.retryable) == ("bad-answer", 502, True)


async def test_a_cache_that_was_closed_says_so(service: FakeService) -> None:
    cache = Cache.from_url(service.url)
    pages = cache.namespace("pages")
    for _ in range(2):
        async with cache:
            assert await pages.get("a") is None
        with pytest.raises(CacheError, match="closed"):
            await pages.get("a")


async def test_leaving_the_block_waits_for_what_is_under_way(service: FakeService) -> None:
    async with Cache.from_url(service.url) as cache:
        write = asyncio.create_task(cache.namespace("pages").set("a", b"1"))
        await asyncio.sleep(0)
    await write
    assert service.held["a"].value == b"1"


def test_an_instance_that_fails_rests_longer_each_time_and_is_still_tried_when_all_rest() -> None:
    endpoints = Region(urls_of("http://a,http://b"), random.Random(1))
    a, b = endpoints.candidates(0)
    a.failed(0)
    assert (endpoints.candidates(0.4), endpoints.candidates(0.5)) == ([b, a], [a, b])
    a.failed(0.5)
    assert endpoints.candidates(1.4) == [b, a]
    b.failed(1.4)
    assert endpoints.candidates(1.6) == [b, a], "a waits for a probe, b only rests"
    b.failed(1.6)
    assert endpoints.candidates(1.7) == [a, b]
    a.worked(0.001)
    assert endpoints.candidates(1.4) == [a, b]
