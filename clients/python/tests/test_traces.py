"""Trace 18 of docs/coherence.md, the only trace that a client can let happen."""

import asyncio

from cachesvc_client import Cache

from clients.python.tests.fake_service import FakeService


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
