"""A value that is due early is loaded anew, once; its readers are answered as before."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from cachesvc_client import Cache, CodecError
from cachesvc_client.requests.early import MOST, PAUSE_SECONDS, EarlyLoads
from cachesvc_client.testing import FakeLoader, FakeService, Request, Response
from cachesvc_client.testing.faults import Dropped

from tests.doubles.waiting import until as waited


class Flavour:
    """One of the two flavours, asked in one way."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache
        self.pages = cache.namespace("pages")
        self.is_async = isinstance(cache, Cache)
        self.calls: list[list[str]] = []
        self.error: Exception | None = None

    def value(self, keys: list[str]) -> dict[str, bytes]:
        self.calls.append(keys)
        if self.error is not None:
            raise self.error
        return dict.fromkeys(keys, b"new")

    async def ask(self, key: str = "a", **options: Any) -> Any:
        if not self.is_async:
            load_now: Callable[[str], bytes] = lambda key: self.value([key])[key]  # noqa: E731  one of two
            return await asyncio.to_thread(lambda: self.pages.get_or_load(key, load_now, **options))

        async def load(key: str) -> bytes:
            return self.value([key])[key]

        return await self.pages.get_or_load(key, load, **options)

    async def ask_many(self, *keys: str) -> Any:
        if not self.is_async:
            return await asyncio.to_thread(self.pages.get_or_load_many, keys, self.value)

        async def load(keys: list[str]) -> Mapping[str, bytes]:
            return self.value(keys)

        return await self.pages.get_or_load_many(keys, load)

    async def close(self) -> None:
        await (self.cache.aclose() if self.is_async else asyncio.to_thread(self.cache.close))


@pytest.fixture
def fake() -> FakeService:
    fake = FakeService()
    for key in ("a", "b", "c"):
        fake.hold("pages", key, b"old")
    return fake


@pytest.fixture(params=["async", "sync"])
def flavour(request: pytest.FixtureRequest, fake: FakeService) -> Flavour:
    return Flavour(fake.cache() if request.param == "async" else fake.sync_cache())


async def until(what: str, holds: Callable[[], bool]) -> None:
    await waited(what, holds)


def overs(fake: FakeService) -> list[list[str]]:
    """The keys of the requests that asked for leases over fresh values."""
    return [call.document["keys"] for call in fake.calls if call.headers.get("cache-control") == "no-cache"]


async def test_the_reader_that_is_told_loads_and_the_others_do_not(
    fake: FakeService, flavour: Flavour
) -> None:
    assert await flavour.ask() == b"old"
    fake.due_early("pages", "a")
    assert await flavour.ask() == (b"old" if flavour.is_async else b"new"), "without asyncio: in the call"
    await until("stored", lambda: fake.held("pages", "a") == b"new")
    assert await flavour.ask() == b"new"
    assert flavour.calls == [["a"]]
    assert flavour.cache.statistics().early_loads == 1


async def test_nobody_waits_for_an_early_load_or_joins_it(fake: FakeService) -> None:
    loader = FakeLoader(b"new")
    loader.hold()
    async with fake.cache() as cache:
        pages = cache.namespace("pages")
        fake.due_early("pages", "a")
        assert await pages.get_or_load("a", loader) == b"old"
        await loader.entered()
        assert await pages.get_or_load("a", loader) == b"old"
        assert await pages.get("a") == b"old"
        loader.release()
        await until("stored", lambda: fake.held("pages", "a") == b"new")


@pytest.mark.parametrize(
    "error", [ConnectionError("the source is down"), CodecError("$", "odd")], ids=["loader", "codec"]
)
async def test_a_failure_reaches_no_caller_and_its_lease_goes_back(
    fake: FakeService, flavour: Flavour, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    flavour.error = error
    fake.due_early("pages", "a")
    with caplog.at_level(logging.DEBUG, "cachesvc_client"):
        assert await flavour.ask(stale_if_error="1m") == b"old"
        await until("given back", lambda: any("release" in str(call.document) for call in fake.calls))
    assert fake.take_lease("pages", "a"), "the lease is free"
    (level,) = [one.levelno for one in caplog.records if "load of" in one.message]
    assert level == (logging.ERROR if isinstance(error, CodecError) else logging.DEBUG)
    assert flavour.cache.statistics().stale_on_error == 0
    fake.due_early("pages", "a")
    assert await flavour.ask() == b"old"
    assert len(flavour.calls) == 1, "and the key is left alone for a second"


async def test_a_lease_that_another_process_holds_is_not_waited_for(
    fake: FakeService, flavour: Flavour
) -> None:
    assert fake.take_lease("pages", "a")
    fake.due_early("pages", "a")
    assert await flavour.ask() == b"old"
    await until("asked", lambda: overs(fake) == [["a"]])
    assert flavour.calls == []
    assert flavour.cache.statistics().early_loads == 0


async def test_a_cache_that_fails_meanwhile_is_no_failure_of_the_read(
    fake: FakeService, flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    respond = fake.respond

    def failing(request: Request, **options: Any) -> Response | None:
        if request.headers.get("cache-control") == "no-cache":
            raise Dropped("the connection broke")
        return respond(request, **options)

    monkeypatch.setattr(fake, "respond", failing)
    fake.due_early("pages", "a")
    assert await flavour.ask() == b"old"
    assert flavour.calls == []


async def test_many_keys_that_are_due_have_one_request_and_one_call_of_the_loader(
    fake: FakeService, flavour: Flavour
) -> None:
    for key in ("a", "b"):
        fake.due_early("pages", key)
    expected = b"old" if flavour.is_async else b"new"
    assert await flavour.ask_many("a", "b", "c") == {"a": expected, "b": expected, "c": b"old"}
    await until("stored", lambda: fake.held("pages", "a") == b"new" == fake.held("pages", "b"))
    assert overs(fake) == [["a", "b"]]
    assert flavour.calls == [["a", "b"]]
    assert flavour.cache.statistics().early_loads == 2


async def test_a_loader_that_fails_for_many_leaves_the_fresh_values(
    fake: FakeService, flavour: Flavour
) -> None:
    flavour.error = ConnectionError("the source is down")
    fake.due_early("pages", "a")
    assert await flavour.ask_many("a", "c") == {"a": b"old", "c": b"old"}
    await until("tried", lambda: flavour.calls == [["a"]])


async def test_without_asyncio_a_caller_with_a_timeout_does_not_load_for_others(fake: FakeService) -> None:
    flavour = Flavour(fake.sync_cache())
    fake.due_early("pages", "a")
    assert await flavour.ask(timeout="1s") == b"old"
    assert flavour.calls == []


async def test_closing_ends_an_early_load_and_gives_its_lease_back(fake: FakeService) -> None:
    loader = FakeLoader(b"new")
    loader.hold()
    async with fake.cache() as cache:
        fake.due_early("pages", "a")
        assert await cache.namespace("pages").get_or_load("a", loader) == b"old"
        await loader.entered()
    assert fake.take_lease("pages", "a")


async def test_an_invalidation_during_an_early_load_refuses_what_it_brings(fake: FakeService) -> None:
    loader = FakeLoader(b"from before the change")
    loader.hold()
    async with fake.cache() as cache:
        pages = cache.namespace("pages")
        fake.due_early("pages", "a")
        assert await pages.get_or_load("a", loader) == b"old"
        await loader.entered()
        await pages.invalidate(["a"])
        loader.release()
        await until("filled", lambda: cache.statistics().fenced_fills == 1)
        assert await pages.get("a") is None


def test_one_load_of_a_key_at_a_time_and_so_many_keys() -> None:
    now = 0.0
    early = EarlyLoads(lambda: now)
    assert [early.begin("a"), early.begin("a")] == [True, False]
    early.end("a", is_filled=True)
    assert early.begin("a")
    early.end("a", is_filled=False)
    assert not early.begin("a")
    now += PAUSE_SECONDS
    assert [early.begin(f"k{nth}") for nth in range(MOST + 1)] == [True] * MOST + [False]
