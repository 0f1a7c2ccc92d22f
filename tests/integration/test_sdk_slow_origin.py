"""The SDK and a real service whose origin takes its time: a load costs those who ask for its key, and nobody else."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from cachesvc_client import Cache, CacheError, NearSettings
from cachesvc_client import sync as blocking

from loadtests.documents import document
from loadtests.fleet import Fleet
from tests.doubles.waiting import until

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "config" / "two-regions.yaml"
LATENCY = 2.5
"""Seconds that the origin takes once the quick keys are held; its time-out is 3 s.

A call that is done before a load is done was not held up by it.
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(DOCUMENT, tmp_path_factory.mktemp("fleet") / "run", with_origin=True) as running:
        yield running


@pytest.fixture
def url(fleet: Fleet) -> str:
    """The URL of one instance, so that all keys share its batches."""
    return fleet.url("eu-a")


async def all_held(http: aiohttp.ClientSession, url: str, cache: Cache, keys: list[str]) -> bool:
    """Load the keys, and whether a tier has each of them now: `only-if-cached` is 504 for one that would be loaded."""
    await cache.namespace("docs").get_many(keys)
    for key in keys:
        async with http.get(f"{url}/v1/docs/{key}", headers={"Cache-Control": "only-if-cached"}) as answer:
            if answer.status != 200:
                return False
    return True


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
            # An instance that has just become ready may answer a load and not keep it: its floor is a little ahead of its clock.
            await until("the quick keys are held", partial(all_held, http, fleet.url("eu-a"), cache, keys))
        await control(latency=f"{LATENCY}s")
        yield keys
        await control(latency="0ms")


async def test_one_slow_key_does_not_hold_up_the_nineteen_beside_it(url: str, quick: list[str]) -> None:
    async with Cache.from_url(url, default_timeout="5s", discover=False) as cache:
        docs = cache.namespace("docs", near=NearSettings())
        late = asyncio.create_task(docs.get("one-slow"))
        assert await asyncio.gather(*(docs.get(key) for key in quick)) == [
            document(key, 1, 512) for key in quick
        ]
        assert not late.done()
        assert await late == document("one-slow", 1, 512)
        assert cache.statistics().retries == 0


async def test_a_caller_with_less_time_than_the_load_takes_is_told_at_its_deadline(
    url: str, quick: list[str]
) -> None:
    async with Cache.from_url(url, default_timeout="500ms", discover=False) as cache:
        docs = cache.namespace("docs")
        late, *others = await asyncio.gather(
            *(docs.get(key) for key in ("too-slow", *quick)), return_exceptions=True
        )
        assert others == [document(key, 1, 512) for key in quick]
        assert isinstance(late, CacheError)
        assert late.type == "deadline"


def test_threads_are_not_held_up_either(url: str, quick: list[str]) -> None:
    with (
        blocking.Cache.from_url(url, default_timeout="5s", discover=False) as cache,
        ThreadPoolExecutor(32) as threads,
    ):
        docs = cache.namespace("docs")

        def is_read(key: str) -> bool:
            return docs.get(key) == document(key, 1, 512)

        late = [threads.submit(is_read, f"thread-slow-{i}") for i in range(4)]
        others = [threads.submit(is_read, key) for key in quick * 5]
        wait(others)
        assert not any(future.done() for future in late)
        assert all(future.result() for future in (*others, *late))
