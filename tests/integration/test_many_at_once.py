"""The documented most, alone and many at a time, on an idle and healthy service."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import pytest
from cachesvc_client import Cache
from cachesvc_client.requests.own_writes import pairs_of
from cachesvc_client.sync import Cache as SyncCache

from loadtests.fleet_topology import free_ports
from tests.integration.test_serve import read_banner, served, wait_ready

MANY = 1000
KEYS = [f"k{number}" for number in range(MANY)]
FEW = KEYS[:20]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of a service whose time limits do not depend on how busy the machine is."""
    (port,) = free_ports(1)
    with TemporaryDirectory(prefix="csvc-", dir="/tmp") as root, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHESVC_SERVER_REQUEST_TIMEOUT", "60s")
        patch.setenv("CACHESVC_SERVER_MAX_DELAY", "60s")
        patch.setenv("CACHESVC_L3_TIMEOUT", "10s")
        process = served(Path(root), port)
        try:
            read_banner(process)
            wait_ready(f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)


async def statuses(url: str, method: str, paths: list[str], **how: object) -> Counter[int]:
    """The number of answers by status, of requests that are all sent at once."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(path: str) -> int:
            async with session.request(method, f"{url}{path}", **how) as answer:  # type: ignore[arg-type]  # their types differ
                await answer.read()
                return answer.status

        return Counter(await asyncio.gather(*(one(path) for path in paths)))


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_thousand_writes_at_once_are_all_done(url: str, method: str) -> None:
    found = await statuses(url, method, [f"/v1/pages/{key}" for key in KEYS])
    assert found == {204 if method == "PUT" else 200: MANY}


async def test_a_thousand_that_wait_for_the_region_are_all_answered(url: str) -> None:
    body = {"namespace": "pages", "tags": ["t"], "wait": "region"}
    assert await statuses(url, "POST", ["/v1/invalidations"] * MANY, json=body) == {200: MANY}


async def test_invalidations_of_the_most_keys_at_once_are_all_done(url: str) -> None:
    body = {"namespace": "pages", "keys": KEYS}
    assert await statuses(url, "POST", ["/v1/invalidations"] * 20, json=body) == {200: 20}


async def test_the_sdk_invalidates_the_most_keys_and_reads_its_own_write(url: str) -> None:
    async with Cache.from_url(url, default_timeout="60s") as cache:
        pages = cache.namespace("pages")
        await pages.set_many(dict.fromkeys(FEW, b"old"))
        assert len(await pages.get_many(FEW)) == len(FEW)
        await pages.invalidate(KEYS)
        assert await pages.get_many(FEW) == {}


def test_the_sync_sdk_does_too(url: str) -> None:
    with SyncCache.from_url(url, default_timeout="60s") as cache:
        pages = cache.namespace("pages")
        pages.set_many(dict.fromkeys(FEW, b"old"))
        receipt = pages.invalidate(KEYS)
        assert len(pairs_of(receipt.token)) == MANY
        assert pages.get_many(FEW) == {}
