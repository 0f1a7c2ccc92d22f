"""`get_or_load` answers even without the cache.

It runs one load per key in the process, and holds one lease per key across processes.
"""

import asyncio

import pytest
from cachesvc_client import ABSENT, Cache, CacheError, Namespace

from clients.python.tests.fake_service import FakeService


class Source:
    """A loader that records, and waits at its gate."""

    def __init__(self, value: bytes = b"loaded") -> None:
        self.value = value
        self.loaded: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def __call__(self, key: str) -> bytes:
        self.loaded.append(key)
        value = self.value
        self.entered.release()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return value


@pytest.fixture
def pages(cache: Cache) -> Namespace[bytes]:
    return cache.namespace("pages")


@pytest.fixture
def source() -> Source:
    return Source()


async def test_a_miss_is_loaded_and_filled_with_the_lease(
    service: FakeService, pages: Namespace[bytes], source: Source
) -> None:
    assert await pages.get_or_load("a", source, ttl="5m", stale="1m", tags=["t"]) == b"loaded"
    (put,) = service.calls(":put")
    (item,) = put.body["items"]
    assert item.pop("lease").startswith("lease-")
    assert item == {
        "key": "a",
        "value": b"loaded",
        "ttl": 300.0,
        "stale_while_revalidate": 60.0,
        "tags": ["t"],
    }
    assert await pages.get_or_load("a", source) == b"loaded"
    assert source.loaded == ["a"]


async def test_many_callers_of_one_key_share_one_load(pages: Namespace[bytes], source: Source) -> None:
    assert await asyncio.gather(*(pages.get_or_load("a", source) for _ in range(100))) == [b"loaded"] * 100
    assert source.loaded == ["a"]


async def test_lease_reads_of_one_tick_share_a_request_apart_from_plain_ones(
    service: FakeService, pages: Namespace[bytes], source: Source
) -> None:
    await asyncio.gather(*(pages.get_or_load(f"k{i}", source) for i in range(20)), pages.get("plain"))
    assert sorted(
        (len(call.body["keys"]), call.body.get("lease", False)) for call in service.calls(":get")
    ) == [
        (1, False),
        (20, True),
    ]
    assert [len(call.body["items"]) for call in service.calls(":put")] == [20]


@pytest.mark.parametrize("leaving", [1, 2, 3])
async def test_callers_that_leave_do_not_sink_the_load(
    service: FakeService, pages: Namespace[bytes], source: Source, leaving: int
) -> None:
    source.gate.clear()
    callers = [asyncio.create_task(pages.get_or_load("a", source)) for _ in range(3)]
    await source.entered.acquire()
    for caller in callers[:leaving]:
        caller.cancel()
    await asyncio.wait(callers[:leaving])
    joiner = asyncio.create_task(pages.get_or_load("a", source))
    await asyncio.sleep(0)
    source.gate.set()
    assert await asyncio.gather(*callers[leaving:], joiner) == [b"loaded"] * (4 - leaving)
    assert source.loaded == ["a"]
    assert service.held["a"].value == b"loaded"


async def test_what_the_loader_raises_reaches_every_caller_and_is_not_kept(
    pages: Namespace[bytes], source: Source
) -> None:
    source.error = KeyError("no row")
    results = await asyncio.gather(
        *(pages.get_or_load("a", source) for _ in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [KeyError] * 3
    assert source.loaded == ["a"]


async def test_an_absent_value_is_stored_as_known_absent(
    service: FakeService, pages: Namespace[bytes]
) -> None:
    asked: list[str] = []

    async def nothing(key: str) -> object:
        asked.append(key)
        return ABSENT

    assert (
        await pages.get_or_load("a", nothing, default=b"none")  # type: ignore[arg-type]  # it has no type
        == b"none"
    )
    assert await pages.get_or_load("a", nothing) is None  # type: ignore[arg-type]  # the same
    assert asked == ["a"]
    assert service.held["a"].absent


async def test_a_fenced_fill_is_answered_and_not_kept(
    service: FakeService, cache: Cache, pages: Namespace[bytes], source: Source
) -> None:
    source.gate.clear()
    caller = asyncio.create_task(pages.get_or_load("a", source))
    await source.entered.acquire()
    service.fence("a")
    source.gate.set()
    assert await caller == b"loaded"
    assert "a" not in service.held
    assert cache.statistics().fenced_fills == 1


async def test_a_stale_value_is_answered_at_once_and_refreshed_by_the_holder_of_the_lease(
    service: FakeService, pages: Namespace[bytes], source: Source
) -> None:
    service.hold("a", b"old", stale=True)
    source.gate.clear()
    assert await asyncio.gather(*(pages.get_or_load("a", source) for _ in range(3))) == [b"old"] * 3
    await source.entered.acquire()
    joiner = asyncio.create_task(pages.get_or_load("a", source))
    source.gate.set()
    assert await joiner == b"loaded"
    assert source.loaded == ["a"]
    assert not service.held["a"].stale


async def test_who_finds_the_lease_held_waits_for_the_fill(
    service: FakeService, pages: Namespace[bytes], source: Source
) -> None:
    service.leases["a"] = "somebody's"
    caller = asyncio.create_task(pages.get_or_load("a", source))
    for _ in range(2):  # the read that found it held, and the one that waits
        await service.arrived.acquire()
    service.hold("a", b"theirs")
    assert await caller == b"theirs"
    assert source.loaded == []
    first, waiting, *_ = service.calls(":get")
    assert (first.body.get("wait", 0) == 0, waiting.body["wait"] > 0, waiting.body["lease"]) == (
        True,
        True,
        True,
    )


async def test_a_waiter_takes_over_from_a_holder_that_gives_up(
    service: FakeService, pages: Namespace[bytes], source: Source
) -> None:
    service.leases["a"] = "somebody's"
    caller = asyncio.create_task(pages.get_or_load("a", source))
    for _ in range(2):
        await service.arrived.acquire()
    del service.leases["a"]
    assert await caller == b"loaded"
    assert service.held["a"].value == b"loaded"


async def test_who_waited_too_long_loads_and_does_not_fill(service: FakeService, source: Source) -> None:
    service.leases["a"] = "somebody's"
    async with Cache.from_url(service.url, lease_wait=0) as cache:
        assert await cache.namespace("pages").get_or_load("a", source) == b"loaded"
        assert cache.statistics().loads_without_cache == 1
    assert service.calls(":put") == []


async def test_an_outage_is_loaded_through_once_per_key(
    service: FakeService, pages: Namespace[bytes], source: Source
) -> None:
    service.problem = (
        503,
        {"type": "https://cachesvc.dev/problems/home-unavailable", "status": 503, "retryable": True},
        {},
    )
    assert await asyncio.gather(*(pages.get_or_load("a", source) for _ in range(10))) == [b"loaded"] * 10
    assert source.loaded == ["a"]
    assert service.calls(":put") == []


async def test_an_outage_lets_only_so_many_loads_run_at_a_time(service: FakeService, source: Source) -> None:
    await service.stop()
    source.gate.clear()
    async with Cache.from_url(service.url, max_loads_without_cache=2) as cache:
        pages = cache.namespace("pages")
        callers = [asyncio.create_task(pages.get_or_load(f"k{i}", source)) for i in range(5)]
        for _ in range(2):
            await source.entered.acquire()
        while cache.statistics().loads_without_cache < 5:  # noqa: ASYNC110  all ask for their turn
            await asyncio.sleep(0)
        assert len(source.loaded) == 2
        source.gate.set()
        assert await asyncio.gather(*callers) == [b"loaded"] * 5


async def test_a_refusal_is_raised_and_nothing_is_loaded(
    service: FakeService, pages: Namespace[bytes], source: Source
) -> None:
    service.problem = (404, {"type": "https://cachesvc.dev/problems/no-such-namespace", "status": 404}, {})
    with pytest.raises(CacheError) as caught:
        await pages.get_or_load("a", source)
    assert caught.value.type == "no-such-namespace"
    assert source.loaded == []


async def test_a_value_that_could_not_be_stored_is_answered(
    service: FakeService, cache: Cache, pages: Namespace[bytes], source: Source
) -> None:
    source.gate.clear()
    caller = asyncio.create_task(pages.get_or_load("a", source))
    await source.entered.acquire()
    service.problem = (503, {"type": "https://cachesvc.dev/problems/home-unavailable", "status": 503}, {})
    source.gate.set()
    assert await caller == b"loaded"
    assert cache.statistics().failed_fills == 1


@pytest.mark.parametrize("write", ["set", "delete", "key", "tag", "all"])
async def test_a_reader_after_an_own_write_does_not_join_a_load_from_before(
    pages: Namespace[bytes], source: Source, write: str
) -> None:
    source.value = b"before"
    source.gate.clear()
    early = asyncio.create_task(pages.get_or_load("a", source, tags=["t"]))
    await source.entered.acquire()
    source.value = b"after"
    if write == "set":
        await pages.set("a", b"after")
    elif write == "delete":
        await pages.delete("a")
    else:
        await pages.invalidate(
            ["a"] * (write == "key"), tags=["t"] * (write == "tag"), all=write == "all", confirm="pages"
        )
    late = asyncio.create_task(pages.get_or_load("a", source, timeout=2))
    await asyncio.sleep(0)
    source.gate.set()
    assert (await early, await late) == (b"before", b"after")


async def test_a_hung_loader_holds_nobody_longer_than_its_time(service: FakeService, source: Source) -> None:
    source.gate.clear()
    async with Cache.from_url(service.url, load_timeout="20ms") as cache:
        with pytest.raises(CacheError) as caught:
            await cache.namespace("pages").get_or_load("a", source)
    assert caught.value.type == "deadline"


async def test_a_caller_may_wait_less_than_the_load_takes(
    service: FakeService, pages: Namespace[bytes], source: Source
) -> None:
    source.gate.clear()
    with pytest.raises(CacheError) as caught:
        await pages.get_or_load("a", source, timeout="20ms")
    assert caught.value.type == "deadline"
    joiner = asyncio.create_task(pages.get_or_load("a", source))
    await asyncio.sleep(0)
    source.gate.set()
    assert await joiner == b"loaded"
    assert source.loaded == ["a"]


async def test_leaving_the_block_ends_the_loads_and_tells_their_callers(
    service: FakeService, source: Source
) -> None:
    source.gate.clear()
    async with Cache.from_url(service.url) as cache:
        caller = asyncio.create_task(cache.namespace("pages").get_or_load("a", source))
        await source.entered.acquire()
    with pytest.raises(CacheError) as caught:
        await caller
    assert caught.value.type == "load-cancelled"


async def test_a_value_of_another_type_is_loaded_anew(service: FakeService, cache: Cache) -> None:
    service.hold("a", b'{"old": "shape"}')
    numbers = cache.namespace("numbers", type=list[int])

    async def load(_key: str) -> list[int]:
        return [1, 2]

    assert await numbers.get("a") is None
    assert await asyncio.gather(*(numbers.get_or_load("a", load) for _ in range(10))) == [[1, 2]] * 10
    assert await numbers.get("a") == [1, 2]
    assert [call.method for call in service.saw].count("DELETE") == 1, "replaced once, for all who found it"
    assert cache.statistics().unreadable == 2


async def test_a_waiter_that_is_granted_the_lease_of_a_stale_value_uses_it(
    service: FakeService, pages: Namespace[bytes], source: Source
) -> None:
    """Nobody else would get the lease before it expires."""
    service.leases["a"] = "somebody's"
    service.changes_before_puts = lambda: _fill_that_is_stale_by_now(service)
    assert await pages.get_or_load("a", source) == b"loaded"
    (put,) = service.calls(":put")
    assert put.body["items"][0]["lease"].startswith("lease-")


def _fill_that_is_stale_by_now(service: FakeService) -> None:
    if service.leases.get("a") == "somebody's":
        del service.leases["a"]
        service.hold("a", b"theirs", stale=True)
