"""A client follows the feed of fences while it is open and has a near cache, and at no other time: in both flavours."""

import random

import aiohttp
import pytest
from cachesvc_client import LAPTOP, NearSettings
from cachesvc_client.aio.bearer import Bearer
from cachesvc_client.aio.feed import Feeding
from cachesvc_client.aio.transport import Transport
from cachesvc_client.instances.region import Region
from cachesvc_client.near.feed import NearFeed
from cachesvc_client.near.near import Near
from cachesvc_client.sync.bearer import Bearer as SyncBearer
from cachesvc_client.sync.feed import Feeding as SyncFeeding
from cachesvc_client.values.codecs import BYTES, Schema
from yarl import URL


def use(near: Near) -> None:
    near.shelf("pages", NearSettings(), Schema(BYTES))


@pytest.fixture
def near() -> Near:
    return Near(lambda: 0.0, lambda digest, at: None)


@pytest.fixture
def feed(near: Near) -> NearFeed:
    return NearFeed(near, lambda: ["http://127.0.0.1:9"], random.Random(1))


async def test_a_task_follows_from_the_first_near_cache_to_the_end(near: Near, feed: NearFeed) -> None:
    region = Region([URL("http://127.0.0.1:9")], random.Random(1))
    async with aiohttp.ClientSession() as session:
        transport = Transport(
            region,
            LAPTOP,
            max_connections=1,
            traceparent=lambda: None,
            bearer=Bearer(None, tls_only=False),
            session=session,
        )
        transport.open()
        feeding = Feeding(near, feed, transport)
        feeding.open()
        assert feeding._task is None, "there is no near cache yet"
        use(near)
        feeding.start_if_used()
        task = feeding._task
        assert task is not None
        await feeding.stop()
        assert task.cancelled()
        feeding.start_if_used()  # as by a namespace that is made while the client closes
        assert feeding._task is None
        feeding.open()
        assert feeding._task is not None
        await feeding.stop()


class RecordedThread:
    """In the place of a `FeedThread`."""

    running = 0

    def __init__(self, _: NearFeed, __: SyncBearer, ___: object) -> None: ...

    def start(self) -> None:
        RecordedThread.running += 1

    def stop(self) -> None:
        RecordedThread.running -= 1


def test_a_thread_follows_from_the_first_near_cache_to_the_end(
    near: Near, feed: NearFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachesvc_client.sync.feed.FeedThread", RecordedThread)
    feeding = SyncFeeding(near, feed, SyncBearer(None, tls_only=False))
    feeding.open()
    assert RecordedThread.running == 0, "there is no near cache yet"
    use(near)
    feeding.start_if_used()
    assert RecordedThread.running == 1
    feeding.stop()
    feeding.start_if_used()  # as by a namespace that is made while the client closes
    assert RecordedThread.running == 0
    feeding.open()
    assert RecordedThread.running == 1
    feeding.stop()
