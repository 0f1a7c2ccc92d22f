"""The SDK and a real service whose origin takes its time: a load costs those who ask for its key, and nobody else."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import aiohttp
import pytest
from cachesvc_client import Cache, CacheError, NearSettings
from cachesvc_client import sync as blocking

from loadtests.documents import document
from loadtests.fleet import Fleet

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "config" / "two-regions.yaml"
LATENCY = 1.5
"""Of the origin, once the quick keys are held."""
SOON = 0.75
"""Far more than the others' first turn, far less than the load."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(DOCUMENT, tmp_path_factory.mktemp("fleet") / "run", with_origin=True) as running:
        yield running


@pytest.fixture
def url(fleet: Fleet) -> str:
    """Of one instance, so that all keys share its batches."""
    return fleet.url("eu-a")


@pytest.fixture
async def quick(fleet: Fleet, request: pytest.FixtureRequest) -> AsyncIterator[list[str]]:
    """Keys that are held already when the origin becomes slow."""
    (origin,) = {namespace.origin.url for namespace in fleet.topology.namespaces.values() if namespace.origin}
    keys = [f"{request.node.name}-{i}" for i in range(19)]
    async with aiohttp.ClientSession() as http:

        async def control(**changes: str) -> None:
            async with http.post(origin.partition("/docs/")[0] + "/_control", json=changes) as answer:
                assert answer.status == 200

        async with Cache.from_url(fleet.url("eu-a"), default_timeout="5s", discover=False) as cache:
            await cache.namespace("docs").get_many(keys)
        await control(latency=f"{LATENCY}s")
        yield keys
        await control(latency="0ms")


async def test_one_slow_key_does_not_hold_up_the_nineteen_beside_it(url: str, quick: list[str]) -> None:
    async with Cache.from_url(url, default_timeout="5s", discover=False) as cache:
        docs = cache.namespace("docs", near=NearSettings())
        began = monotonic()
        late = asyncio.create_task(docs.get("one-slow"))
        assert await asyncio.gather(*(docs.get(key) for key in quick)) == [document(key, 1, 512) for key in quick]
        assert monotonic() - began < SOON
        assert await late == document("one-slow", 1, 512)
        assert LATENCY <= monotonic() - began < LATENCY + SOON
        assert cache.statistics().retries == 0


async def test_a_caller_with_less_time_than_the_load_takes_is_told_at_its_deadline(url: str, quick: list[str]) -> None:
    async with Cache.from_url(url, default_timeout="500ms", discover=False) as cache:
        docs = cache.namespace("docs")
        late, *others = await asyncio.gather(*(docs.get(key) for key in ("too-slow", *quick)), return_exceptions=True)
        assert others == [document(key, 1, 512) for key in quick]
        assert isinstance(late, CacheError)
        assert late.type == "deadline"


def test_threads_are_not_held_up_either(url: str, quick: list[str]) -> None:
    with blocking.Cache.from_url(url, default_timeout="5s", discover=False) as cache, ThreadPoolExecutor(32) as threads:
        docs = cache.namespace("docs")

        def took(key: str) -> float:
            began = monotonic()
            assert docs.get(key) == document(key, 1, 512)
            return monotonic() - began

        late = [threads.submit(took, f"thread-slow-{i}") for i in range(4)]
        others = [threads.submit(took, key) for key in quick * 5]
        assert max(future.result() for future in others) < SOON
        assert all(LATENCY <= future.result() < LATENCY + SOON for future in late)
