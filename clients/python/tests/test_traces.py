"""Traces 18 and 60 of docs/coherence.md, which a client can let happen."""

import asyncio

from cachesvc_client import Cache
from cachesvc_client.instances.ring import Ring

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


async def test_trace_60_a_copy_that_no_fill_reaches_must_not_cost_a_load_at_each_read() -> None:
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
