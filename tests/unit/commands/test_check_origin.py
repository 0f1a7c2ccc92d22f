"""The checker's origin: versions, one moment per commit, loads that are noted, answers that the service's loader reads."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest

from cachesvc.commands.check.history import Load, Record, Write
from cachesvc.commands.check.load.origin import HttpOrigin, VersionedStore
from cachesvc.commands.check.load.values import decode
from cachesvc.commands.check.settings import LoadDelays
from cachesvc.config.topology import Origin
from cachesvc.model.clock import SystemClock
from cachesvc.model.entry import Entry, Key
from cachesvc.tiers.origin.http import HttpLoader

TAGS = {"a": ("t0",), "b": ("t0", "t1"), "c": ("t1",)}


class Ticks:
    """A clock that moves by one each time it is asked."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 1
        return self.now


def test_a_commit_writes_all_its_keys_at_one_moment() -> None:
    noted: list[Record] = []
    store = VersionedStore(TAGS, noted.append, Ticks())
    assert store.commit(["a", "b"]) == (("a", 1), ("b", 1))
    assert store.commit(["a"]) == (("a", 2),)
    assert noted == [Write("a", 1, 1, ("t0",)), Write("b", 1, 1, ("t0", "t1")), Write("a", 2, 2, ("t0",))]
    assert (store.snapshot("a").w, store.snapshot("c").w) == (2, 0)
    assert store.keys_of("t1") == ("b", "c")


@pytest.mark.parametrize(
    ("delays", "least", "most"),
    [
        (LoadDelays(slow=0, late=0), 0, 0),
        (LoadDelays(slow=1, longest_seconds=2, late=0), 0, 2),
        (LoadDelays(slow=0, late=1, late_seconds=5.5), 5.5, 5.5),
    ],
)
def test_loads_are_as_slow_as_they_were_told_to_be(delays: LoadDelays, least: float, most: float) -> None:
    random = Random(1)
    assert all(least <= delays.draw(random) <= most for _ in range(100))


class Served:
    def __init__(self) -> None:
        self.noted: list[Record] = []
        self.store = VersionedStore(TAGS, self.noted.append, Ticks())
        self.origin = HttpOrigin(self.store, Random(1), self.noted.append, Ticks())

    @property
    def loads(self) -> list[Load]:
        return [record for record in self.noted if isinstance(record, Load)]


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    serving = Served()
    await serving.origin.start("127.0.0.1", 0)
    yield serving
    await serving.origin.stop()


@pytest.fixture
async def loader(served: Served) -> AsyncIterator[HttpLoader]:
    """The service's own."""
    loading = HttpLoader("check", Origin(served.origin.url), clock=SystemClock())
    await loading.start()
    yield loading
    await loading.stop()


async def test_the_services_loader_gets_value_tags_and_lifetime(served: Served, loader: HttpLoader) -> None:
    served.store.commit(["b"])
    loaded = await loader.load(Key.of("check", "b"), known=None, timeout_seconds=5)
    assert (decode("b", loaded.value), loaded.tags, loaded.ttl_us, loaded.use.keep) == (
        1,
        ("t0", "t1"),
        60_000_000,
        True,
    )
    assert served.loads == [Load("b", 1, 1, 2)]


async def test_the_same_version_is_a_304_and_another_is_not(served: Served, loader: HttpLoader) -> None:
    key = Key.of("check", "a")
    first = await loader.load(key, known=None, timeout_seconds=5)
    known = Entry(first.value, 1, 2, tags=first.tags, origin_etag=first.etag or "")
    assert (await loader.load(key, known=known, timeout_seconds=5)).not_modified
    served.store.commit(["a"])
    again = await loader.load(key, known=known, timeout_seconds=5)
    assert (again.not_modified, decode("a", again.value)) == (False, 1)


async def test_a_key_of_an_earlier_run_is_absent_and_no_load(served: Served, loader: HttpLoader) -> None:
    assert (await loader.load(Key.of("check", "gone"), known=None, timeout_seconds=5)).absent
    assert served.loads == []


async def test_a_load_that_nobody_waits_for_any_more_is_noted_with_its_end(
    served: Served, loader: HttpLoader
) -> None:
    served.origin.delays = LoadDelays(slow=0, late=1, late_seconds=3600)
    loading = asyncio.create_task(loader.load(Key.of("check", "a"), known=None, timeout_seconds=60))
    while not served.origin.running:  # noqa: ASYNC110  nobody but this test wants to know
        await asyncio.sleep(0)
    loading.cancel()
    await asyncio.wait([loading])
    await served.origin.stop()
    assert served.loads == [Load("a", 0, 1, 2)]
