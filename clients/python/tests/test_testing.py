"""The test double does what its docstring promises, under the real async and sync clients."""

import asyncio
import textwrap
from collections.abc import Awaitable, Callable
from typing import Any

import cachesvc_client.testing
import pytest
from cachesvc_client import ABSENT, Absent, Cache, CacheError, Hit, PartialError
from cachesvc_client.near.settings import NearSettings
from cachesvc_client.requests.own_writes import MAX_HANDED, pairs_of
from cachesvc_client.testing import Contract, FakeLoader, FakeService, Loaded, Response


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    """Waits until the condition holds; nothing takes time, so a few turns of the loop suffice."""
    for _ in range(1000):
        holds = condition()
        if holds if isinstance(holds, bool) else await holds:
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not happen")


async def test_the_example_of_the_docstring_runs() -> None:
    text = cachesvc_client.testing.__doc__ or ""
    example = textwrap.dedent(text[text.index("    from cachesvc_client") : text.index("Threads:")])
    names: dict[str, Any] = {"load_user": FakeLoader(b"Ada Lovelace")}
    exec(example, names)  # noqa: S102  our own text
    await names["test_a_renamed_user_is_seen_at_once"]()


def unkeepable() -> FakeService:
    """A service whose origin says `no-store` from its second answer on."""
    answers = iter([Loaded(b"old"), Loaded(b"1", keep=False), Loaded(b"2", keep=False)])
    return FakeService({"pages": Contract(stale_while_revalidate=0.0, origin=lambda key: next(answers))})


async def test_what_the_origin_forbids_to_keep_no_near_cache_keeps() -> None:
    service = unkeepable()
    async with service.cache() as cache:
        pages = cache.namespace("pages", near=NearSettings())
        await until(lambda: pages.near is not None and pages.near.is_trusted)
        assert [await pages.get("a") for _ in range(2)] == [b"old"] * 2
        service.invalidate("pages", "a")
        await until(lambda: pages.near is not None and pages.near.statistics().fenced == 1)
        assert [await pages.get("a") for _ in range(2)] == [b"1", b"2"]
        assert pages.near is not None
        assert pages.near.statistics().entries == 0
    assert service.held("pages", "a") is None


async def test_what_the_origin_forbids_to_keep_ends_the_copy_that_is_older() -> None:
    service = unkeepable()
    async with service.cache() as cache:
        pages = cache.namespace("pages")
        assert await pages.get("a") == b"old"
        service.clock.advance("301s")
        told = [await pages.get("a") for _ in range(2)]
    assert told == [b"1", b"2"]
    assert service.held("pages", "a") is None, "not as a last resort either"


def test_sync_callers_are_told_as_async_ones_are() -> None:
    service = unkeepable()
    with service.sync_cache() as cache:
        pages = cache.namespace("pages")
        assert pages.get("a") == b"old"
        service.clock.advance("301s")
        assert [pages.get("a") for _ in range(2)] == [b"1", b"2"]


async def test_ttl_stale_and_gone_go_by_the_clock_that_is_turned() -> None:
    service, loader = FakeService(), FakeLoader(b"new")
    async with service.cache() as cache:
        pages = cache.namespace("pages")
        await pages.set("a", b"old", ttl="1m", stale="1m")
        service.clock.advance("90s")
        assert await pages.get_or_load("a", loader, ttl="1m", stale="1m") == b"old"
        await until(lambda: service.held("pages", "a") == b"new")
        service.clock.advance("3m")
        assert await pages.get("a") is None
    assert loader.loaded == ["a"]


async def test_what_others_invalidate_is_gone_and_a_load_from_before_is_not_kept() -> None:
    service, loader = FakeService(), FakeLoader(b"before")
    async with service.cache() as cache:
        pages = cache.namespace("pages")
        loader.hold()
        load = asyncio.create_task(pages.get_or_load("a", loader, tags=["t"]))
        await loader.entered()
        service.invalidate("pages", tags=("t",))
        loader.release()
        assert await load == b"before"
        assert service.held("pages", "a") is None
        assert cache.statistics().fenced_fills == 1


async def test_who_finds_the_lease_held_by_another_client_is_answered_with_its_fill() -> None:
    service, mine, theirs = FakeService(), FakeLoader(b"mine"), FakeLoader(b"theirs")
    async with service.cache() as one, service.cache() as two:
        theirs.hold()
        first = asyncio.create_task(one.namespace("pages").get_or_load("a", theirs))
        await theirs.entered()
        second = asyncio.create_task(two.namespace("pages").get_or_load("a", mine))
        await until(lambda: any(call.document.get("wait") for call in service.calls))
        theirs.release()
        assert [await first, await second] == [b"theirs", b"theirs"]
    assert mine.loaded == []


async def test_a_waiter_takes_over_when_the_lease_of_a_dead_holder_ends() -> None:
    service, loader = FakeService(), FakeLoader(b"loaded")
    assert service.take_lease("pages", "a")
    async with service.cache() as cache:
        waiting = asyncio.create_task(cache.namespace("pages").get_or_load("a", loader))
        await until(lambda: any(call.document.get("wait") for call in service.calls))
        service.clock.advance("6s")
        assert await waiting == b"loaded"
    assert service.held("pages", "a") == b"loaded"


async def test_absence_is_remembered_for_its_ttl() -> None:
    service, loader = FakeService(), FakeLoader[Absent](ABSENT)
    async with service.cache() as cache:
        pages = cache.namespace("pages")
        for _ in range(3):
            assert await pages.get_or_load("a", loader, default=b"none") == b"none"
        service.clock.advance("11s")
        assert await pages.get_or_load("a", loader, default=b"none") == b"none"
    assert loader.loaded == ["a", "a"]


async def test_a_scripted_fault_is_met_as_often_as_was_said_and_where_it_was_said() -> None:
    service = FakeService()
    async with service.cache() as cache:
        pages = cache.namespace("pages")
        service.fail_next(1, "quota", status=429, retryable=False, on=":put")
        assert await pages.get("a") is None
        with pytest.raises(CacheError) as caught:
            await pages.set("a", b"A")
        assert (caught.value.type, caught.value.status) == ("quota", 429)
        await pages.set("a", b"A")
        assert await pages.get("a") == b"A"


async def test_a_broken_connection_is_tried_again_and_a_failure_that_passes_is_retried() -> None:
    service = FakeService()
    service.hold("pages", "a", b"A")
    async with service.cache() as cache:
        service.drop_next()
        assert await cache.namespace("pages").get("a") == b"A"
        service.fail_next(2)
        assert await cache.namespace("pages").get("a") == b"A"
        assert (cache.statistics().failovers, cache.statistics().retries) == (1, 2)


async def test_down_is_an_error_for_a_plain_read_and_none_for_a_load() -> None:
    service, loader = FakeService(), FakeLoader(b"loaded")
    async with service.cache() as cache:
        pages = cache.namespace("pages")
        service.down()
        with pytest.raises(CacheError) as caught:
            await pages.get("a")
        assert caught.value.type == "unreachable"
        assert await pages.get_or_load("a", loader) == b"loaded"
        service.up()
        assert await pages.get("a") is None


async def test_a_delay_beyond_the_callers_time_is_its_deadline_at_once() -> None:
    service = FakeService()
    service.hold("pages", "a", b"A")
    async with service.cache(default_timeout="500ms") as cache:
        service.delay("100ms")
        assert await cache.namespace("pages").get("a") == b"A"
        service.delay("10s")
        with pytest.raises(CacheError) as caught:
            await cache.namespace("pages").get("a")
        assert caught.value.type == "deadline"


async def test_keys_that_share_a_request_are_there_after_the_delay() -> None:
    service = FakeService()
    service.hold("pages", "a", b"A")
    service.delay("250ms")
    async with service.cache(default_timeout="5s") as cache:
        assert await cache.namespace("pages").get_many(["a", "b"]) == {"a": b"A"}
    async with service.cache(default_timeout="100ms") as cache:
        with pytest.raises(PartialError) as caught:
            await cache.namespace("pages").get_many(["a", "b"])
        assert {error.type for error in caught.value.failed.values()} == {"deadline"}


async def test_a_late_feed_leaves_only_what_is_younger_than_max_lag() -> None:
    service = FakeService({"pages": Contract(max_lag=2.0)})
    service.hold("pages", "a", b"A")
    service.lag("60s")
    async with service.cache() as cache:
        assert await cache.namespace("pages").get("a") == b"A"
        service.clock.advance("3s")
        assert await cache.namespace("pages").get("a") is None


async def test_an_invalidation_that_is_waited_for_names_who_is_missing() -> None:
    service = FakeService()
    service.miss_instances("us/us-b")
    async with service.cache() as cache:
        receipt = await cache.namespace("pages").invalidate(["a"], wait="global")
        assert (receipt.reached, receipt.missing) == (False, ("us/us-b",))
        assert (await cache.receipt(receipt.id)).state == "done"


async def test_a_read_through_namespace_loads_from_the_origin_of_its_contract() -> None:
    service = FakeService(
        {"pages": Contract(origin=lambda key: None if key == "gone" else key.upper().encode())}
    )
    async with service.cache() as cache:
        pages = cache.namespace("pages")
        assert await pages.get_many(["a", "gone"]) == {"a": b"A"}
        with pytest.raises(CacheError) as caught:
            await cache.namespace("pagse").get("a")
        assert caught.value.type == "no-such-namespace"


async def test_calls_are_recorded_with_their_documents_and_answers_can_be_made_up() -> None:
    service = FakeService()
    async with service.cache(caller="checkout") as cache:
        await cache.namespace("pages").invalidate(["a"])
        service.answer_next(Response(200, {"Content-Type": "application/msgpack"}, b"nonsense"))
        with pytest.raises(CacheError) as caught:
            await cache.namespace("pages").get("a")
    assert caught.value.type == "bad-answer"
    invalidation = service.calls[0]
    assert (invalidation.method, invalidation.target) == ("POST", "/v1/invalidations")
    assert invalidation.document == {"namespace": "pages", "keys": ["a"]}
    assert invalidation.headers["cachesvc-caller"] == "checkout"


async def test_a_write_of_another_client_is_seen_by_who_is_handed_its_token() -> None:
    service = FakeService()
    async with service.cache() as one, service.cache() as two:
        await one.namespace("pages").set("a", b"A")
        with two.with_token(one.token()):
            assert await two.namespace("pages").get("a") == b"A"
        assert service.calls[-1].document["token"] == one.token()


def test_threads_have_the_same_service() -> None:
    service = FakeService()
    with service.sync_cache() as cache:
        pages = cache.namespace("pages")
        pages.set("a", b"A", ttl="1m", tags=["t"])
        assert pages.get("a") == b"A"
        service.clock.advance("3m")
        assert pages.get("a") is None
        assert pages.get_or_load("a", lambda key: b"loaded") == b"loaded"
        service.drop_next()
        assert pages.get("a") == b"loaded"
        service.down()
        with pytest.raises(CacheError) as caught:
            pages.get("a")
        assert caught.value.type == "unreachable"


def test_threads_wait_for_another_client_and_take_over_when_its_lease_ends() -> None:
    service = FakeService()
    assert service.take_lease("pages", "a")

    def end_the_lease() -> None:
        if any(call.document.get("wait") for call in service.calls):
            leave()
            service.clock.advance("6s")

    leave = service.listen(end_the_lease)
    with service.sync_cache() as cache:
        assert cache.namespace("pages").get_or_load("a", lambda key: b"taken over") == b"taken over"
    assert service.held("pages", "a") == b"taken over"


async def test_a_near_cache_hears_what_others_invalidate() -> None:
    service = FakeService()
    service.hold("pages", "a", b"A")
    async with service.cache() as cache:
        pages = cache.namespace("pages", near=NearSettings())

        async def is_near() -> bool:
            found = await pages.lookup("a")
            return isinstance(found, Hit) and found.tier == "near"

        async def is_gone() -> bool:
            return await pages.get("a") is None

        await until(is_near)
        before = len(service.calls)
        assert await pages.get("a") == b"A"
        assert len(service.calls) == before
        service.invalidate("pages", "a")
        await until(is_gone)


async def test_both_flavours_of_a_process_share_what_it_holds() -> None:
    service = FakeService()
    async with service.cache() as cache:
        await cache.namespace("pages").set("a", b"A")
        with service.sync_cache() as other:
            assert await asyncio.to_thread(other.namespace("pages").get, "a") == b"A"


def test_a_client_of_it_is_a_client() -> None:
    assert isinstance(FakeService().cache(), Cache)


async def test_an_invalidation_of_the_most_keys_is_remembered_whole() -> None:
    """Its token has 21,334 letters: it stands in the body, for few clients take so long a header."""
    names = [f"k{i}" for i in range(1000)]
    service = FakeService()
    async with service.cache() as cache:
        pages = cache.namespace("pages")
        receipt = await pages.invalidate(names)
        assert len(pairs_of(receipt.token)) == 1000
        assert len(pairs_of(cache.token())) == MAX_HANDED
        assert await pages.get_many(names) == {}
