"""The two runners of the feed, against instances on real sockets.

Both follow the feed, notice silence, go on at another instance, and end.
"""

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Self, TypeAlias

import aiohttp
import pytest
import urllib3
from cachesvc_client.aio import feed_task
from cachesvc_client.aio.bearer import Bearer
from cachesvc_client.near.feed import NearFeed
from cachesvc_client.near.near import Near
from cachesvc_client.sync import feed_thread
from cachesvc_client.sync.bearer import Bearer as SyncBearer
from cachesvc_client.sync.feed_thread import FeedThread


class Instance:
    """An instance that answers each subscription only with what `say` is given."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        """The headers of each request."""
        self.left: asyncio.Queue[None] = asyncio.Queue()
        self.status = 200
        self.url = ""
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.hang_up()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        assert first == "GET /v1/fences HTTP/1.1"
        writer.write(
            f"HTTP/1.1 {self.status} X\r\nContent-Type: text/event-stream\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        self._writers.append(writer)
        self.asked.put_nowait(dict(line.split(": ", 1) for line in lines if line))
        await reader.read()
        self.left.put_nowait(None)
        writer.close()

    def beat(self, id_: str) -> None:
        data = json.dumps({"complete_to": {"eu": 1_000_000}, "floor": 0, "now": 1_000_000})
        self.say(f"event: heartbeat\nid: {id_}\ndata: {data}\n\n".encode())

    def say(self, said: bytes) -> None:
        self._writers[-1].write(said)

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()


class Listening(Near):
    """A near cache that tells the test's loop, from any thread, what the feed has told it."""

    def __init__(self) -> None:
        super().__init__(time.monotonic, lambda digest, at: None)
        self.heard: asyncio.Queue[str] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def heartbeat(self, complete_to: int, now: int) -> None:
        super().heartbeat(complete_to, now)
        self._loop.call_soon_threadsafe(self.heard.put_nowait, "heartbeat")

    def down(self) -> None:
        super().down()
        self._loop.call_soon_threadsafe(self.heard.put_nowait, "down")


@asynccontextmanager
async def on_a_task(feed: NearFeed) -> AsyncIterator[None]:
    async with aiohttp.ClientSession() as session:
        task = asyncio.create_task(feed_task.follow(feed, session, Bearer(None, tls_only=False)))
        yield
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def on_a_thread(feed: NearFeed) -> AsyncIterator[None]:
    thread = FeedThread(feed, SyncBearer(None, tls_only=False))
    thread.start()
    yield
    await asyncio.to_thread(thread.stop)


Running: TypeAlias = Callable[[NearFeed], AbstractAsyncContextManager[None]]


@pytest.fixture(params=[on_a_task, on_a_thread])
def running(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Running:
    monkeypatch.setattr(feed_task, "_TIMEOUT", aiohttp.ClientTimeout(total=None, sock_read=0.2))
    monkeypatch.setattr(feed_thread, "_TIMEOUT", urllib3.Timeout(connect=1.0, read=0.2))
    chosen: Running = request.param
    return chosen


async def soon(what: Awaitable[object]) -> object:
    return await asyncio.wait_for(what, 10.0)


async def test_it_follows_and_goes_on_with_its_last_id_at_the_next_instance(running: Running) -> None:
    near = Listening()
    async with Instance() as one, Instance() as two:
        feed = NearFeed(near, lambda: [one.url, two.url], random.Random(1))
        first, second = (one, two) if feed.url().startswith(one.url) else (two, one)
        async with running(feed):
            headers = await one_asked(first)
            assert "Last-Event-ID" not in headers
            first.beat("eu=1-0")
            assert await soon(near.heard.get()) == "heartbeat"
            first.hang_up()
            assert await soon(near.heard.get()) == "down"
            headers = await one_asked(second)
            assert headers["Last-Event-ID"] == "eu=1-0"
            second.beat("eu=2-0")
            assert await soon(near.heard.get()) == "heartbeat"
        await soon(second.left.get())
        assert await soon(near.heard.get()) == "down"
    assert (feed.connects, feed.events, feed.is_up) == (2, 2, False)


async def test_silence_is_noticed(running: Running) -> None:
    near = Listening()
    async with Instance() as one:
        feed = NearFeed(near, lambda: [one.url], random.Random(1))
        async with running(feed):
            await one_asked(one)
            one.beat("eu=1-0")
            assert await soon(near.heard.get()) == "heartbeat"
            assert await soon(near.heard.get()) == "down"
            assert (await one_asked(one))["Last-Event-ID"] == "eu=1-0"


async def test_a_refusal_nonsense_and_nobody_there_are_tried_again(running: Running) -> None:
    near = Listening()
    async with Instance() as one:
        urls = ["http://127.0.0.1:1", one.url]
        feed = NearFeed(near, lambda: urls, random.Random(1))
        one.status = 503
        async with running(feed):
            await one_asked(one)
            one.status = 200
            await one_asked(one)
            one.say(b"event: reset\ndata: {\n\n")
            await one_asked(one)
            one.beat("eu=1-0")
            while await soon(near.heard.get()) != "heartbeat":
                pass


async def one_asked(instance: Instance) -> dict[str, str]:
    return await asyncio.wait_for(instance.asked.get(), 10.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
async def test_a_forked_child_has_a_feed_of_its_own_that_resumes() -> None:
    near = Listening()
    async with Instance() as one:
        feed = NearFeed(near, lambda: [one.url], random.Random(1))
        thread = FeedThread(feed, SyncBearer(None, tls_only=False))
        thread.start()
        await one_asked(one)
        for id_ in ("eu=1-0", "eu=2-0"):  # the second one is heard after the first one's id was noted
            one.beat(id_)
            assert await soon(near.heard.get()) == "heartbeat"
        child = os.fork()
        if child == 0:
            try:
                thread.after_fork()
                thread._thread.join(5.0)  # the parent ends it
            finally:
                os._exit(0)
        try:
            assert (await one_asked(one))["Last-Event-ID"] in ("eu=1-0", "eu=2-0")
        finally:
            os.kill(child, signal.SIGKILL)
            await asyncio.to_thread(os.waitpid, child, 0)
            await asyncio.to_thread(thread.stop)


async def test_a_failure_that_it_does_not_know_ends_no_runner(running: Running) -> None:
    """The list of instances may be empty for a moment, and a near cache may have a defect."""
    near = Listening()
    async with Instance() as one:
        urls: list[str] = [one.url]
        feed = NearFeed(near, lambda: urls, random.Random(1))
        urls.clear()
        async with running(feed):
            while feed.unknown_failures < 3:
                assert await soon(near.heard.get()) == "down"
            urls.append(one.url)
            await one_asked(one)
            one.beat("eu=1-0")
            while await soon(near.heard.get()) != "heartbeat":
                pass
            assert feed.statistics().failures == feed.unknown_failures >= 3
