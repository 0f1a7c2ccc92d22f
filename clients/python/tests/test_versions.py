"""Two schema versions of one value side by side, as in a rolling deploy."""

import pytest
from cachesvc_client import JSON, Cache, Miss, Namespace

from clients.python.tests.fake_service import FakeService


class Counting:
    def __init__(self, value: str) -> None:
        self.value = value
        self.loads = 0

    async def load(self, key: str) -> str:
        self.loads += 1
        return self.value


@pytest.fixture
def old(cache: Cache) -> Namespace[str]:
    return cache.namespace("pages", codec=JSON, version=2)


@pytest.fixture
def new(cache: Cache) -> Namespace[str]:
    return cache.namespace("pages", codec=JSON, version=3)


async def test_the_version_travels_with_the_value_and_the_other_side_finds_a_miss(
    service: FakeService, old: Namespace[str], new: Namespace[str]
) -> None:
    await new.set("a", "new")
    assert service.held["a"].content_type == "application/json; v=3"
    assert service.held["a"].value == b'"new"'
    assert await new.get("a") == "new"
    assert await old.get("a", "none") == "none"
    assert await old.get_many(["a"]) == {}
    assert await old.lookup("a") == Miss("unreadable")


async def test_single_requests_know_the_version_too(service: FakeService) -> None:
    async with Cache.from_url(service.url, batching=False) as cache:
        await cache.namespace("pages", version=3).set("a", b"1")
        assert await cache.namespace("pages", version=3).get("a") == b"1"
        assert await cache.namespace("pages", version=2).get("a") is None


async def test_the_new_version_replaces_the_old_ones_values(
    service: FakeService, old: Namespace[str], new: Namespace[str]
) -> None:
    await old.set("a", "old")
    source = Counting("new")
    assert [await new.get_or_load("a", source.load) for _ in range(3)] == ["new"] * 3
    assert source.loads == 1
    assert service.held["a"].content_type == "application/json; v=3"


async def test_the_old_version_loads_past_the_new_ones_values_and_leaves_them(
    service: FakeService, old: Namespace[str], new: Namespace[str]
) -> None:
    await new.set("a", "new")
    source = Counting("old")
    assert [await old.get_or_load("a", source.load) for _ in range(3)] == ["old"] * 3
    assert source.loads == 3, "not kept, or the two would take turns"
    assert await new.get("a") == "new"


async def test_what_is_known_absent_is_so_in_every_version(
    service: FakeService, old: Namespace[str], new: Namespace[str]
) -> None:
    service.hold("a", b"", absent=True)
    assert await new.get_or_load("a", Counting("x").load) is None
    assert await old.get_or_load("a", Counting("x").load) is None


async def test_a_waiter_whose_holder_is_of_another_version_loads_for_itself(
    service: FakeService, cache: Cache, old: Namespace[str]
) -> None:
    service.leases["a"] = "somebody's"
    source = Counting("old")
    service.on_read = lambda nth: (
        service.hold("a", b'"new"', content_type="application/json; v=3") if nth == 2 else None
    )
    assert await old.get_or_load("a", source.load) == "old"
    assert service.held["a"].value == b'"new"'
