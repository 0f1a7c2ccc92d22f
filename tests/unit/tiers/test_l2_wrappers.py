"""Routes, each around tiers in memory that record what they were asked."""

import asyncio
from collections.abc import Sequence

import pytest

from cachesvc.config.service import Breakers
from cachesvc.model.clock import SECONDS
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError, TierTimeoutError, TierUnavailableError
from cachesvc.tiers import value_sizes
from cachesvc.tiers.breaker import Breaker, BreakerState
from cachesvc.tiers.l2.batched import Batched
from cachesvc.tiers.l2.contract import Lookup
from cachesvc.tiers.l2.deadline import Deadline
from cachesvc.tiers.l2.guarded import Guarded
from cachesvc.tiers.l2.in_process import MemoryTier
from cachesvc.tiers.l2.measured import Measured
from cachesvc.tiers.l2.ring import Ring
from cachesvc.tiers.l2.sharded import Sharded
from tests.doubles.clocks import ManualClock
from tests.doubles.tiers import ChaosTier

CLOCK = ManualClock()
KEYS = [Key.of("pages", f"key-{number}") for number in range(60)]
ENTRIES = [Entry(b"%d" % number, CLOCK.now_us(), CLOCK.now_us() + 60 * SECONDS) for number in range(60)]
ITEMS = list(zip(KEYS, ENTRIES, strict=True))


def recorded() -> ChaosTier:
    return ChaosTier(MemoryTier(CLOCK, 1 << 26))


class Refusing(MemoryTier):
    """Refuses every third entry, as a server out of memory does."""

    async def set_many(self, items: Sequence[tuple[Key, Entry]]) -> Sequence[TierError]:
        await super().set_many([item for place, item in enumerate(items) if place % 3])
        return [TierError("mc-0", "out of memory")] * len(items[::3])


class Unreachable(MemoryTier):
    async def set_many(self, items: Sequence[tuple[Key, Entry]]) -> Sequence[TierError]:
        return [TierTimeoutError("mc-0", "no answer")] * len(items)


@pytest.fixture
def servers() -> dict[str, ChaosTier]:
    return {name: recorded() for name in ("a", "b", "c")}


@pytest.fixture
def sharded(servers: dict[str, ChaosTier]) -> Sharded:
    return Sharded(Ring(dict.fromkeys(servers, 1)), servers)


async def test_every_server_is_asked_once_and_only_for_its_own_keys(
    sharded: Sharded, servers: dict[str, ChaosTier]
) -> None:
    await sharded.set_many(ITEMS)
    assert list(await sharded.get_many(KEYS)) == ENTRIES
    await sharded.delete_many(KEYS)
    assert sharded.ring is not None
    for name, server in servers.items():
        mine = [key.text for key in KEYS if sharded.ring.server(key.digest) == name]
        assert mine
        assert (server.sets, server.gets, server.deletes) == (mine, mine, mine)


async def test_one_dead_server_costs_only_its_own_keys(
    sharded: Sharded, servers: dict[str, ChaosTier]
) -> None:
    await sharded.set_many(ITEMS)
    servers["b"].down = True
    assert sharded.ring is not None
    for key, entry, lookup in zip(KEYS, ENTRIES, await sharded.get_many(KEYS), strict=True):
        if sharded.ring.server(key.digest) == "b":
            assert isinstance(lookup, TierUnavailableError)
        else:
            assert lookup == entry
    assert [type(failure) for failure in await sharded.set_many(ITEMS)] == [TierUnavailableError]


def test_a_ring_and_children_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the ring has \['a', 'b'\], the children are \['a'\]"):
        Sharded(Ring({"a": 1, "b": 1}), {"a": recorded()})


async def test_stopping_stops_every_server_and_raises_the_first_error(servers: dict[str, ChaosTier]) -> None:
    stopped: list[str] = []

    class Stopping(ChaosTier):
        def __init__(self, name: str) -> None:
            super().__init__(MemoryTier(CLOCK, 1 << 20))
            self.name = name

        async def stop(self) -> None:
            stopped.append(self.name)
            if self.name != "c":
                raise OSError(self.name)

    sharded = Sharded(Ring(dict.fromkeys("abc", 1)), {name: Stopping(name) for name in "abc"})
    with pytest.raises(OSError, match="a"):
        await sharded.stop()
    assert stopped == ["a", "b", "c"]


async def test_gets_sets_and_deletes_of_many_callers_leave_in_one_call_each() -> None:
    server = recorded()
    calls: list[tuple[str, int]] = []
    tier = Batched(Counting(server, calls), 100)
    await asyncio.gather(*(tier.set_many([item]) for item in ITEMS))
    answers = await asyncio.gather(*(tier.get_many([key]) for key in KEYS))
    await asyncio.gather(*(tier.delete_many([key]) for key in KEYS))
    assert [answer[0] for answer in answers] == ENTRIES
    assert calls == [("set", 60), ("get", 60), ("delete", 60)]
    assert {kind: seen.items for kind, seen in tier.statistics().items()} == {
        "gets": 60,
        "sets": 60,
        "deletes": 60,
    }


class Counting(ChaosTier):
    """Records the size of every call."""

    def __init__(self, tier: ChaosTier, calls: list[tuple[str, int]]) -> None:
        super().__init__(tier)
        self.calls = calls

    async def get_many(self, keys: Sequence[Key]) -> Sequence[Lookup]:
        self.calls.append(("get", len(keys)))
        return await super().get_many(keys)

    async def set_many(self, items: Sequence[tuple[Key, Entry]]) -> Sequence[TierError]:
        self.calls.append(("set", len(items)))
        return await super().set_many(items)

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[TierError]:
        self.calls.append(("delete", len(keys)))
        return await super().delete_many(keys)


async def test_failures_of_a_shared_batch_are_told_in_their_right_number() -> None:
    tier = Batched(Refusing(CLOCK, 1 << 26), 100)
    told = await asyncio.gather(*(tier.set_many([item]) for item in ITEMS))
    assert sum(map(len, told)) == 20


async def test_a_stopped_batch_route_answers_unavailable() -> None:
    tier = Batched(recorded(), 100)
    await tier.start()
    await tier.stop()
    assert [type(lookup) for lookup in await tier.get_many(KEYS[:2])] == [TierUnavailableError] * 2
    assert [type(failure) for failure in await tier.set_many(ITEMS[:2])] == [TierUnavailableError] * 2


async def test_an_open_breaker_refuses_without_asking() -> None:
    server = recorded()
    tier = Guarded(server, Breaker(Breakers(failures=2), now=lambda: 0.0), name="mc-0")
    server.down = True
    for _ in range(2):
        await tier.get_many(KEYS[:3])
    server.gets.clear()
    server.down = False
    assert [str(lookup) for lookup in await tier.get_many(KEYS[:2])] == [
        "mc-0: not tried: its breaker is open"
    ] * 2
    assert len(await tier.set_many(ITEMS[:2])) == 2
    assert len(await tier.delete_many(KEYS[:2])) == 2
    assert (server.gets, server.sets, server.deletes) == ([], [], [])


async def test_the_gutter_takes_the_calls_that_an_open_breaker_keeps_from_the_server() -> None:
    server, gutter = recorded(), recorded()
    tier = Guarded(server, Breaker(Breakers(failures=1), now=lambda: 0.0), gutter=gutter)
    assert list(await tier.set_many(ITEMS[:1])) == []
    server.down = True
    assert isinstance((await tier.get_many(KEYS[:1]))[0], TierUnavailableError), "its failure stays one"
    assert list(await tier.get_many(KEYS[:2])) == [None, None]
    assert list(await tier.set_many(ITEMS[:2])) == []
    assert [isinstance(found, Entry) for found in await tier.get_many(KEYS[:2])] == [True, True]
    assert list(await tier.delete_many(KEYS[:1])) == []
    assert (len(gutter.sets), len(gutter.deletes), len(server.gets)) == (2, 1, 1)
    server.down = False
    tier.breaker.seen()
    assert isinstance((await tier.get_many(KEYS[:1]))[0], Entry), "of the server again"


async def test_a_server_that_answers_in_part_is_not_a_failure() -> None:
    tier = Guarded(Refusing(CLOCK, 1 << 26), Breaker(Breakers(failures=1)), name="mc-0")
    assert len(await tier.set_many(ITEMS)) == 20
    assert len(await tier.set_many(ITEMS[:1])) == 1
    assert tier.breaker.state is BreakerState.CLOSED


async def test_an_unreachable_part_of_a_tier_is_not_a_failure_of_the_whole() -> None:
    sharded = Sharded(
        Ring({"a": 1, "b": 1}), {"a": Unreachable(CLOCK, 1 << 26), "b": MemoryTier(CLOCK, 1 << 26)}
    )
    tier = Guarded(sharded, Breaker(Breakers(failures=1)))
    assert 0 < len(await tier.set_many(ITEMS)) < len(ITEMS)
    assert tier.breaker.state is BreakerState.CLOSED


async def test_a_miss_is_an_answer_and_closes_the_breaker_again() -> None:
    server, seconds = recorded(), [0.0]
    tier = Guarded(server, Breaker(Breakers(failures=1), now=lambda: seconds[0]))
    server.down = True
    await tier.get_many(KEYS[:1])
    server.down = False
    seconds[0] = 1.0
    assert list(await tier.get_many(KEYS[:1])) == [None]
    while tier.breaker.is_open:
        await tier.get_many(KEYS[:1])
    assert len(server.gets) == 1 + 3, "a probe, and twice a share of the calls"


@pytest.mark.looptime
async def test_a_deadline_answers_for_a_tier_that_does_not() -> None:
    loop, started = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    cancelled: list[str] = []

    class Hung(ChaosTier):
        async def get_many(self, keys: Sequence[Key]) -> Sequence[Lookup]:
            return await self.hang("get")

        async def set_many(self, items: Sequence[tuple[Key, Entry]]) -> Sequence[TierError]:
            return await self.hang("set")

        async def delete_many(self, keys: Sequence[Key]) -> Sequence[TierError]:
            return await self.hang("delete")

        async def hang(self, call: str) -> Sequence[TierError]:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.append(call)
                raise
            return []

    tier = Deadline(Hung(MemoryTier(CLOCK, 1 << 20)), 0.5, name="mc-0")
    assert [type(lookup) for lookup in await tier.get_many(KEYS[:2])] == [TierTimeoutError] * 2
    assert [str(failure) for failure in await tier.set_many(ITEMS[:1])] == ["mc-0: no answer within 500 ms"]
    assert [type(failure) for failure in await tier.delete_many(KEYS[:3])] == [TierTimeoutError] * 3
    assert loop.time() - started == pytest.approx(1.5)
    assert cancelled == ["get", "set", "delete"]


def test_a_deadline_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Deadline(recorded(), 0)


async def test_every_exchange_is_measured_and_what_an_open_breaker_refuses_is_none() -> None:
    server = recorded()
    measured = Measured(server)
    tier = Guarded(measured, Breaker(Breakers(failures=1), now=lambda: 0.0))
    await tier.set_many(ITEMS[:2])
    await tier.get_many(KEYS[:2])
    await tier.delete_many(KEYS[:1])
    server.down = True
    for _ in range(3):
        await tier.get_many(KEYS[:1])
    assert {operation: sum(found.buckets) for operation, found in measured.durations.items()} == {
        "gets": 2,
        "sets": 1,
        "deletes": 1,
    }


async def test_an_exchange_that_is_cancelled_is_measured_too() -> None:
    class Hung(MemoryTier):
        async def get_many(self, keys: Sequence[Key]) -> Sequence[Lookup]:
            await asyncio.Event().wait()
            return []

    measured = Measured(Hung(CLOCK, 1 << 20))
    asking = asyncio.create_task(measured.get_many(KEYS[:1]))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert sum(measured.durations["gets"].buckets) == 1


async def test_large_values_share_no_exchange_with_their_neighbours() -> None:
    """An exchange has one time limit: 20 values of 1 MiB would take it from the small ones beside."""
    child = recorded()
    batched = Batched(child, 512)
    large = [Key.of("pages", f"large-{number}") for number in range(20)]
    big = Entry(b"x" * 1_000_000, CLOCK.now_us(), CLOCK.now_us() + 60 * SECONDS)
    await batched.set_many([*((key, big) for key in large), *ITEMS])
    assert batched.statistics()["sets"].batches >= 20
    assert list(await batched.get_many([*large, *KEYS])) == [*[big] * 20, *ENTRIES]
    assert batched.statistics()["gets"].batches >= 20


async def test_a_large_value_is_known_once_it_was_met_and_forgotten_when_it_is_small() -> None:
    child = recorded()
    big = Entry(b"x" * 600_000, CLOCK.now_us(), CLOCK.now_us() + 60 * SECONDS)
    await child.set_many([(key, big) for key in KEYS[:4]])
    batched = Batched(child, 512)
    await batched.get_many(KEYS[:4])
    assert batched.statistics()["gets"].batches == 1, "nothing is known yet"
    await batched.get_many(KEYS[:4])
    assert batched.statistics()["gets"].batches == 5
    await batched.set_many(ITEMS[:4])
    for _ in range(1000):
        await batched.get_many(KEYS[:4])
    before = batched.statistics()["gets"].batches
    await batched.get_many(KEYS[:4])
    assert batched.statistics()["gets"].batches == before + 1


async def test_so_many_large_keys_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(value_sizes, "MOST_LARGE", 2)
    batched = Batched(recorded(), 512)
    big = Entry(b"x" * 600_000, CLOCK.now_us(), CLOCK.now_us() + 60 * SECONDS)
    await batched.set_many([(key, big) for key in KEYS[:4]])
    assert len(batched._sizes._large) == 2
