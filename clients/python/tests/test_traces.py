"""Traces 18, 58 and 61 of docs/coherence.md, which a client can let happen."""

import asyncio
from random import Random

from cachesvc_client import Cache
from cachesvc_client.instances.ring import Ring
from cachesvc_client.near.feed import NearFeed
from cachesvc_client.near.near import Near
from cachesvc_client.near.settings import NearSettings
from cachesvc_client.protocol.wire import Got
from cachesvc_client.values.codecs import BYTES, Schema

from clients.python.tests.fake_service import FakeService, digest


async def test_trace_18_a_loader_must_not_open_its_snapshot_before_the_lease() -> None:
    """A write and its fence could come between the snapshot and the lease.

    The lease would still be good, and an old value would be stored.
    """
    truth = b"0"

    async def load(_: str) -> bytes:
        snapshot = truth
        await asyncio.sleep(0)
        return snapshot

    async with FakeService() as service, Cache.from_url(service.url, default_timeout="5s") as cache:
        service.gate.clear()
        read = asyncio.create_task(cache.namespace("pages").get_or_load("a", load))
        await service.arrived.acquire()  # the lease is asked for, and not granted yet
        truth = b"1"
        service.fence("a")
        service.gate.set()
        assert await read == b"1"
        assert service.held["a"].value == b"1", "what the lease lets it fill is no older than the lease"


async def test_trace_58_a_copy_that_no_fill_reaches_must_not_cost_a_load_at_each_read() -> None:
    """The key is hot, and read at both instances. Fills go to the one that is its own."""
    async with FakeService() as a, FakeService() as b:
        services = {"a": a, "b": b}
        home = services[Ring(services).first(digest("pages/k"))]
        for service in services.values():
            service.hold("k", b"0")
            service.says["k"] = {"spread": 2, "early": True}
            service.instances = {name: one.url for name, one in services.items()}
        loads = 0

        async def load(_: str) -> bytes:
            nonlocal loads
            loads += 1
            home.says["k"] = {"spread": 2}  # its copy is replaced by the fill; that of the other is not
            return b"1"

        async with Cache.from_url(home.url, default_timeout="5s") as cache:
            pages = cache.namespace("pages")
            while not (a.saw and b.saw):  # until the topology is known, and the key is spread
                await pages.get_or_load("k", load)
                await asyncio.sleep(0.01)
            for _ in range(20):
                await pages.get_or_load("k", load)
                await asyncio.sleep(0.001)
        assert loads == 1, "as for a key that is read at its own instance alone"
        assert home.held["k"].value == b"1"


async def test_trace_61_a_bound_of_another_queue_must_not_vouch_for_an_answer() -> None:
    """The instance that answers reads server a of a queue; the feed is of server b."""
    seconds = 100.0
    now_us = 1_700_000_000_000_000
    near = Near(lambda: seconds, lambda _, __: None)
    shelf = near.shelf("pages", NearSettings(), Schema(BYTES))
    feed = NearFeed(near, list, Random(1))
    feed.opened(200)
    floor = now_us + 201_000
    feed.received(b'event: reset\nid: eu=1-0@bbbbbbbb\ndata: {"floor":%d}\n\n' % floor)
    seconds += 1.0
    beat = b'{"complete_to":{"eu":%d},"floor":0,"now":%d}' % (now_us + 900_000, now_us + 1_000_000)
    feed.received(b"event: heartbeat\nid: eu=2-0@bbbbbbbb\ndata: %b\n\n" % beat)
    got = Got("hit", b"0", ttl=60, as_of=now_us - 5_000_000, lag=0.1, queues="eu@aaaaaaaa")
    assert not shelf.keep("a", got, seconds)
    got.queues = "eu@bbbbbbbb"
    assert shelf.keep("a", got, seconds), "its own queue's bound covers the floor"
