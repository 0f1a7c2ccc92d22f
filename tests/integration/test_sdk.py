"""The SDK against the real service: what the README promises, with two clients that know nothing of each other."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cachesvc_client import ABSENT, Absent, Cache

from loadtests.fleet_topology import free_ports
from tests.integration.test_serve import read_banner, served, wait_ready


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    (port,) = free_ports(1)
    with TemporaryDirectory(prefix="csvc-", dir="/tmp") as root:
        process = served(Path(root), port)
        try:
            read_banner(process)
            wait_ready(f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)


class Pages:
    """A loader that counts."""

    def __init__(self) -> None:
        self.loads = 0
        self.text = b"first"

    async def load(self, key: str) -> bytes:
        self.loads += 1
        await asyncio.sleep(0.05)  # a slow source: the others have to wait
        return self.text


async def test_one_of_two_hundred_callers_in_two_clients_loads(url: str) -> None:
    pages = Pages()
    async with Cache.from_url(url) as one, Cache.from_url(url) as two:
        asking = [(one, two)[i % 2].namespace("pages").get_or_load("shared", pages.load, ttl="5m") for i in range(200)]
        assert set(await asyncio.gather(*asking)) == {b"first"}
    assert pages.loads == 1


async def test_an_invalidation_after_a_commit_is_seen_by_its_client_at_once_and_by_tag(url: str) -> None:
    pages = Pages()
    async with Cache.from_url(url) as cache:
        namespace = cache.namespace("pages")
        assert await namespace.get_or_load("{ws-7}:block:42", pages.load, tags=["user:9"]) == b"first"
        assert await namespace.get("{ws-7}:block:42") == b"first"
        pages.text = b"second"
        receipt = await namespace.invalidate(tags=["user:9"])
        assert receipt.applied
        assert await namespace.get("{ws-7}:block:42") is None
        assert await namespace.get_or_load("{ws-7}:block:42", pages.load, tags=["user:9"]) == b"second"


async def test_many_and_single_gets_agree_and_absence_is_remembered(url: str) -> None:
    async def nothing(key: str) -> Absent:
        return ABSENT

    async with Cache.from_url(url) as cache:
        namespace = cache.namespace("pages")
        await namespace.set_many({f"k{i}": b"%d" % i for i in range(100)})
        singles = await asyncio.gather(*(namespace.get(f"k{i}") for i in range(100)))
        assert dict(zip((f"k{i}" for i in range(100)), singles, strict=True)) == await namespace.get_many(
            [f"k{i}" for i in range(100)]
        )
        assert await namespace.get_or_load("nobody", nothing, default=b"none") == b"none"
        assert await namespace.get("nobody", b"none") == b"none"
