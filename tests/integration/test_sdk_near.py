"""The SDK's near cache and ring against four real instances in two regions: what is invalidated anywhere is gone here, and an
instance that dies costs neither answers nor copies.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cachesvc_client import Cache, CacheError, Hit, Namespace, NearSettings

from loadtests.fleet import Fleet
from tests.doubles.waiting import until

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "config" / "two-regions.yaml"
SETTLE_SECONDS = 10.0
MAX_LAG = 2.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(DOCUMENT, tmp_path_factory.mktemp("fleet") / "run") as running:
        yield running


class Reader:
    """A client in eu with a near cache."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.pages: Namespace[bytes] = cache.namespace("pages", near=NearSettings(max_lag=MAX_LAG))

    @property
    def requests(self) -> int:
        return self.cache.statistics().requests

    @property
    def is_trusted(self) -> bool:
        return self.pages.near is not None and self.pages.near.is_trusted

    @property
    def entries(self) -> int:
        return 0 if self.pages.near is None else self.pages.near.statistics().entries

    async def hold(self, key: str, value: bytes) -> None:
        async with asyncio.timeout(SETTLE_SECONDS):
            await self.pages.set(key, value, tags=["held"])
            # A tag's or the namespace's fence from just before may be ahead of the clock, and refuse the value: a miss.
            while await self.pages.get(key) is None:
                await self.pages.set(key, value, tags=["held"])
        await self.read_until_near(key, value)

    async def read_until_near(self, key: str, value: bytes) -> None:
        """At first the floor of a new subscription lies a little ahead, and no instance vouches for what is older."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while not await self.is_near(key):
                assert await self.pages.get(key) == value
                await asyncio.sleep(0.02)

    async def is_near(self, key: str) -> bool:
        found = await self.pages.lookup(key)
        return isinstance(found, Hit) and found.tier == "near"


@pytest.fixture
async def reader(fleet: Fleet) -> AsyncIterator[Reader]:
    async with Cache.from_url(f"{fleet.url('eu-a')},{fleet.url('eu-b')}") as cache:
        one = Reader(cache)
        await until("the feed tells", lambda: one.is_trusted)
        yield one


@pytest.fixture
async def far(fleet: Fleet) -> AsyncIterator[Namespace[bytes]]:
    """A client in us that knows nothing of the reader."""
    async with Cache.from_url(fleet.url("us-a")) as cache:
        yield cache.namespace("pages")


async def test_a_near_hit_does_no_request(reader: Reader) -> None:
    await reader.hold("quiet", b"1")
    before = reader.requests
    for _ in range(1000):
        assert await reader.pages.get("quiet") == b"1"
    assert await reader.pages.get_many(["quiet"]) == {"quiet": b"1"}
    assert reader.requests == before


async def test_what_was_loaded_long_before_the_client_started_is_kept(
    fleet: Fleet, far: Namespace[bytes], reader: Reader
) -> None:
    await far.set("old", b"1")
    async with Cache.from_url(fleet.url("eu-b")) as cache:
        young = Reader(cache)
        await until("the feed tells", lambda: young.is_trusted)

        await young.read_until_near("old", b"1")


@pytest.mark.parametrize("how", ["key", "tag", "all"])
async def test_an_invalidation_in_the_other_region_is_seen_within_the_bound(
    reader: Reader, far: Namespace[bytes], how: str
) -> None:
    await reader.hold("seen", b"1")
    if how == "key":
        await far.set("seen", b"2")
    else:
        await far.invalidate(
            tags=["held"] if how == "tag" else [], all=how == "all", confirm="pages" if how == "all" else ""
        )
    async with asyncio.timeout(MAX_LAG):
        while await reader.pages.get("seen") == b"1":  # noqa: ASYNC110  the event is in another process
            await asyncio.sleep(0.01)


async def test_an_own_write_is_seen_at_once(reader: Reader) -> None:
    for nth in range(20):
        await reader.hold("own", b"%d" % nth)
    await reader.pages.invalidate(["own"])
    assert await reader.pages.get("own") is None


async def test_a_token_from_elsewhere_is_seen_at_once(reader: Reader, far: Namespace[bytes]) -> None:
    await reader.hold("handed", b"1")
    receipt = await far.invalidate(["handed"])
    with reader.cache.with_token(receipt.token):
        assert await reader.pages.get("handed") is None


async def test_the_instances_share_the_keys(fleet: Fleet, reader: Reader) -> None:
    await until("both are known", lambda: len(reader.cache.feed.instances()) == 2)
    await asyncio.gather(*(reader.pages.set(f"shared-{nth}", b"x") for nth in range(100)))
    before = reader.requests
    await asyncio.gather(*(reader.pages.get(f"shared-{nth}") for nth in range(100)))
    assert reader.requests - before == 2, "a batch for each instance"


async def test_an_instance_that_dies_costs_nothing_and_with_all_gone_nothing_is_answered_from_here(
    fleet: Fleet, reader: Reader
) -> None:
    await reader.hold("kept", b"1")
    feed = reader.cache.feed
    fed_by = next(name for name in ("eu-a", "eu-b") if feed.url().startswith(fleet.url(name)))
    other = "eu-b" if fed_by == "eu-a" else "eu-a"
    try:
        fleet.instances[fed_by].kill(signal.SIGKILL)
        await until("it is fed by the other one", lambda: feed.connects == 2 and reader.is_trusted)
        assert feed.resets == 1, "the other one resumed"
        assert await reader.is_near("kept")
        for nth in range(20):
            assert await reader.pages.get(f"nothing-{nth}") is None

        fleet.instances[other].kill(signal.SIGKILL)
        await until("nobody feeds it", lambda: not reader.is_trusted)
        assert reader.entries
        feed.last_id = "eu=1-0,us=1-0"  # so long ago that nobody can tell what happened since
        with pytest.raises(CacheError, match="unreachable"):
            await reader.pages.get("kept")
    finally:
        for name in (fed_by, other):
            fleet.instances[name].restart()
    await until("it is fed again", lambda: reader.is_trusted)
    assert feed.resets == 2
    assert reader.entries == 0
    await until("both are well", lambda: len(feed.instances()) == 2)
    assert await reader.pages.get("kept") == b"1"
