"""A client is opened by a call or by blocks, and begins anew on another event loop."""

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvloop
from cachesvc_client import Cache, CacheError, NearSettings
from cachesvc_client import testing as fakes
from cachesvc_client.aio import tasks

from clients.python.tests.fake_service import FakeService
from clients.python.tests.sync.callers import Caller, in_child
from clients.python.tests.sync.threaded_service import ThreadedService

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.fixture
def threaded() -> Iterator[ThreadedService]:
    with ThreadedService() as running:
        running.fake.hold("a", b"1")
        yield running


def run(work: Callable[[], Awaitable[Any]], loop_factory: Any = asyncio.new_event_loop) -> Any:
    """Runs on a loop of its own; a warning of something that is left behind fails."""

    async def main() -> Any:
        return await work()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            result = runner.run(main())
        gc.collect()
        return result


async def test_the_first_call_opens_and_aclose_closes(service: FakeService) -> None:
    service.hold("a", b"1")
    cache = Cache.from_url(service.url)
    assert "[closed, " in repr(cache)
    pages = cache.namespace("pages")
    assert await pages.get("a") == b"1"
    assert "[open, " in repr(cache)
    await cache.aclose()
    with pytest.raises(CacheError, match=r"closed: .*`async with`, or `open\(\)`, opens it again"):
        await pages.get("a")
    assert await cache.open() is cache
    assert await pages.get("a") == b"1"
    await cache.aclose()
    await cache.aclose()


async def test_the_outermost_block_closes(service: FakeService) -> None:
    service.hold("a", b"1")
    pages = (cache := Cache.from_url(service.url)).namespace("pages")
    async with cache:
        async with cache:
            assert await pages.get("a") == b"1"
        assert await pages.get("a") == b"1"
    with pytest.raises(CacheError, match="closed"):
        await pages.get("a")


async def test_a_block_does_not_close_what_a_call_has_opened(service: FakeService) -> None:
    service.hold("a", b"1")
    pages = (cache := Cache.from_url(service.url)).namespace("pages")
    assert await pages.get("a") == b"1"
    async with cache:
        pass
    assert await pages.get("a") == b"1"
    await cache.aclose()


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_each_run_of_a_loop_begins_anew_and_nothing_is_left_behind(
    threaded: ThreadedService, loop_factory: Any, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache.from_url(threaded.url)
    pages = cache.namespace("pages")
    for _ in range(3):
        assert run(lambda: pages.get("a"), loop_factory) == b"1"
        assert not cache._life.is_open, "the end of the loop has closed it"
        assert run(lambda: pages.get_or_load("a", loaded), loop_factory) == b"1"
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
    assert cache.statistics().failovers == 0


async def loaded(_key: str) -> bytes:
    return b"loaded"


def test_a_client_reads_its_own_writes_on_the_next_loop(threaded: ThreadedService) -> None:
    cache = Cache.from_url(threaded.url)
    pages = cache.namespace("pages")
    run(lambda: pages.invalidate(["a"]))
    assert cache.token()
    assert run(lambda: pages.get("a")) is None


TORN = """
import asyncio, sys
from cachesvc_client import Cache
cache = Cache.from_url(sys.argv[1], default_timeout="5s", max_loads_without_cache=1)
pages = cache.namespace("pages")
async def load(key):
    await asyncio.sleep(0.05 if key == "c" else 100)
    return b"loaded"
loop = asyncio.new_event_loop()
asked = [loop.create_task(ask) for ask in (pages.get_or_load("b", load), pages.get_or_load("c", load))]
loop.run_until_complete(asyncio.wait(asked, timeout=0.02))
asked += [loop.create_task(pages.get("a"))]
loop.call_soon(loop.stop)
loop.run_forever()  # the batch is open, or under way
loop.close()
print(asyncio.run(pages.get("a")), asyncio.run(pages.get_or_load("c", load)))
"""


def test_a_loop_that_was_closed_in_the_middle_of_calls_is_left_behind(threaded: ThreadedService) -> None:
    command = [sys.executable, "-c", TORN, threaded.url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout) == (0, "b'1' b'loaded'\n"), ended.stderr


def test_two_loops_in_turns(threaded: ThreadedService) -> None:
    """As with a fixture on a loop of the session, and tests on loops of their own."""
    cache = Cache.from_url(threaded.url, default_timeout="5s")
    pages = cache.namespace("pages")
    with asyncio.Runner() as session, asyncio.Runner() as test:
        for _ in range(3):
            assert session.run(pages.get("a")) == b"1"
            assert test.run(pages.get("a")) == b"1"
    assert cache.statistics().failovers == 0


def test_another_loop_is_told_so_while_the_first_one_runs(threaded: ThreadedService) -> None:
    cache = Cache.from_url(threaded.url)
    pages = cache.namespace("pages")
    opened, ends = threading.Event(), threading.Event()

    async def stays() -> bytes | None:
        await pages.get("a")
        opened.set()
        await asyncio.to_thread(ends.wait, 10)
        return await pages.get("a")

    first = Caller(lambda: asyncio.run(stays()))
    assert opened.wait(10)
    with pytest.raises(CacheError, match=r"other-loop: .*which still runs.*cachesvc_client\.sync"):
        asyncio.run(pages.get("a"))
    ends.set()
    assert first.result() == b"1", "the first loop is not disturbed"
    assert asyncio.run(pages.get("a")) == b"1"


async def test_a_session_of_ones_own_says_that_it_is_of_another_loop(threaded: ThreadedService) -> None:
    import aiohttp

    async with aiohttp.ClientSession() as session:
        cache = Cache.from_url(threaded.url, session=session)
        pages = cache.namespace("pages")
        assert await pages.get("a") == b"1"
        await cache.aclose()
        outcome = await asyncio.to_thread(Caller(lambda: asyncio.run(pages.get("a"))).outcome)
    assert "session= of this cache belongs to another event loop" in str(outcome)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_child_of_a_running_loop_begins_anew_and_disturbs_nobody(
    threaded: ThreadedService, loop_factory: Any
) -> None:
    cache = Cache.from_url(threaded.url, default_timeout="5s")
    pages = cache.namespace("pages", near=NearSettings())

    def child() -> bytes | None:
        return Caller(lambda: asyncio.run(pages.get("a"))).result()

    async def parent() -> list[bytes | None]:
        before = await pages.get("a")
        told = in_child(child)
        return [before, told, *[await pages.get("a") for _ in range(10)]]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(parent()) == [b"1"] * 12
    assert cache.statistics().failovers == 0


async def test_a_near_namespace_that_is_made_on_another_thread_is_fed(service: FakeService) -> None:
    async with Cache.from_url(service.url) as cache:
        near = await asyncio.to_thread(cache.namespace, "pages", near=NearSettings())
        await asyncio.sleep(0)
        assert cache._feeding._task is not None
        del near


def test_a_near_cache_is_fed_on_each_loop_and_bypassed_between_them() -> None:
    service = fakes.FakeService()
    cache = service.cache()
    pages = cache.namespace("pages", near=NearSettings())
    shelf = pages.near
    assert shelf is not None

    async def reads() -> bytes | None:
        async with asyncio.timeout(10):
            hits = shelf.hits
            while shelf.hits == hits:  # until the feed vouches
                value = await pages.get("a")
                await asyncio.sleep(0.002)
        return value

    run(lambda: pages.set("a", b"1"))
    for value in (b"1", b"2"):
        assert run(reads) == value
        assert not shelf.is_trusted
        service.hold("pages", "a", b"2")  # nobody here is told of it


async def test_calls_that_never_cease_do_not_hold_up_closing(service: FakeService) -> None:
    service.hold("a", b"1")
    cache = Cache.from_url(service.url)
    pages = cache.namespace("pages")
    ends: list[str] = []

    async def asks() -> None:
        try:
            while True:
                await pages.get("a")
        except CacheError as error:
            ends.append(error.type)

    async def loads(nth: int) -> None:
        try:
            while True:
                await pages.get_or_load(f"b{nth}", slow)
        except CacheError as error:
            ends.append(error.type)

    async def slow(_key: str) -> bytes:
        await asyncio.sleep(0.01)
        return b"1"

    async with cache, asyncio.timeout(5):
        callers = [asyncio.create_task(asks()) for _ in range(5)]
        callers += [asyncio.create_task(loads(nth)) for nth in range(5)]
        await asyncio.sleep(0.02)
    await asyncio.wait(callers, timeout=5)
    assert len(ends) == 10
    assert set(ends) <= {"closed", "load-cancelled"}
    assert not cache._tasks.all()


async def test_a_loader_that_does_not_end_is_logged_and_left(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks, "LONGEST_END", 0.05)
    ends = asyncio.Event()

    async def stubborn(_key: str) -> bytes:
        while not ends.is_set():
            try:
                await ends.wait()
            except asyncio.CancelledError:
                continue
        return b"1"

    async with asyncio.timeout(5):
        async with Cache.from_url(service.url) as cache:
            asking = asyncio.create_task(cache.namespace("pages").get_or_load("a", stubborn))
            await asyncio.sleep(0.02)
    assert "these have not ended: cache load of a" in caplog.text
    ends.set()
    await asyncio.wait([asking])


PROGRAM = """
import asyncio, sys, warnings
from cachesvc_client import Cache
cache = Cache.from_url(sys.argv[1])
pages = cache.namespace("pages")
async def main():
    assert await pages.get("a") == b"1"
    asyncio.create_task(pages.get_or_load("b", slow))
    await asyncio.sleep(0.01)
async def slow(key):
    await asyncio.sleep(100)
asyncio.run(main())
asyncio.run(main())
"""


def test_a_program_that_never_closes_ends_without_a_word(threaded: ThreadedService) -> None:
    command = [sys.executable, "-X", "dev", "-c", PROGRAM, threaded.url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
