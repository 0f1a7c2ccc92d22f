"""A ring that is warmed up by the ring before it."""

import asyncio

import pytest

from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierUnavailableError
from cachesvc.tiers.l2.in_process import MemoryTier
from cachesvc.tiers.l2.ring import Ring
from cachesvc.tiers.l2.sharded import Sharded
from cachesvc.tiers.l2.warm_up import Warmed, WarmUp, WarmUpTally
from tests.doubles.clocks import LoopClock
from tests.doubles.tiers import ChaosTier

pytestmark = pytest.mark.looptime

KEYS = [Key.of("pages", f"k{number}") for number in range(40)]
OLD, NEW = Ring({"a": 1, "b": 1}), Ring({"b": 1, "c": 1})


class Rings:
    """Servers a and b that have all keys, and then b and c; `c` has none yet."""

    def __init__(self) -> None:
        self.clock = LoopClock()
        self.servers = {name: ChaosTier(MemoryTier(self.clock, 1 << 20)) for name in "abc"}
        self.tally = WarmUpTally()
        self.tasks: list[asyncio.Task[object]] = []
        self.refused: set[Key] = set()
        self.sharded = Sharded(OLD, {name: self.servers[name] for name in "ab"})

        self.began_us = self.clock.now_us()

    def entry(self, value: bytes = b"0") -> Entry:
        return Entry(value=value, as_of=self.began_us, fresh_until=self.began_us + 60_000_000)

    async def change(self) -> None:
        await self.sharded.set_many([(key, self.entry()) for key in KEYS])
        for server in self.servers.values():
            server.gets.clear()
            server.sets.clear()
        warm_up = WarmUp(
            OLD,
            {name: self.servers[name] for name in "ab"},
            self.tally,
            lambda key, _: key not in self.refused,
            lambda work, name: self.tasks.append(asyncio.create_task(work, name=name)),
        )
        self.sharded.change(NEW, {name: Warmed(self.servers[name], warm_up) for name in "bc"})


@pytest.fixture
async def rings() -> Rings:
    found = Rings()
    await found.change()
    return found


MOVED = [key for key in KEYS if OLD.server(key.digest) != NEW.server(key.digest)]


@pytest.mark.parametrize("one_by_one", [True, False])
async def test_what_has_moved_is_found_at_its_former_server_and_copied(
    rings: Rings, one_by_one: bool
) -> None:
    together = rings.sharded.get_many
    found = [await rings.sharded.ask(key) for key in KEYS] if one_by_one else [*await together(KEYS)]
    assert found == [rings.entry()] * len(KEYS)
    await asyncio.gather(*rings.tasks)
    copied = [text for name in "abc" for text in rings.servers[name].sets]
    assert sorted(copied) == sorted(key.text for key in MOVED)
    assert rings.tally == WarmUpTally(hits=len(MOVED), copied=len(MOVED))
    for server in rings.servers.values():
        server.gets.clear()
    assert [*await rings.sharded.get_many(KEYS)] == found
    assert not rings.servers["a"].gets, "what was copied is not asked for again"


async def test_a_key_that_stays_where_it_was_has_no_former_server(rings: Rings) -> None:
    stays = next(key for key in KEYS if OLD.server(key.digest) == NEW.server(key.digest) == "b")
    await rings.servers["b"].delete_many([stays])
    assert await rings.sharded.ask(stays) is None
    assert [*await rings.sharded.get_many([stays])] == [None]
    assert rings.servers["b"].gets == [stays.text] * 2
    assert rings.tally == WarmUpTally()


async def test_what_may_not_be_kept_is_answered_and_not_copied(rings: Rings) -> None:
    """Whoever asked judges it; it must not replace what somebody else has put there meanwhile."""
    rings.refused.update(MOVED[:3])
    assert [*await rings.sharded.get_many(MOVED)] == [rings.entry()] * len(MOVED)
    assert rings.tally.copied == len(MOVED) - 3


async def test_a_former_server_that_is_away_is_a_miss(rings: Rings) -> None:
    rings.servers["a"].down = True
    of_a = [key for key in MOVED if OLD.server(key.digest) == "a"]
    assert [*await rings.sharded.get_many(of_a)] == [None] * len(of_a)
    assert await rings.sharded.ask(of_a[0]) is None
    assert rings.tally == WarmUpTally(errors=len(of_a) + 1)


async def test_a_server_that_is_away_is_said_to_be_and_nobody_else_is_asked(rings: Rings) -> None:
    rings.servers["c"].down = True
    to_c = next(key for key in MOVED if NEW.server(key.digest) == "c")
    assert isinstance(await rings.sharded.ask(to_c), TierUnavailableError)
    assert rings.tally == WarmUpTally()


async def test_writes_and_deletes_go_to_the_servers_now(rings: Rings) -> None:
    await rings.sharded.set_many([(key, rings.entry(b"1")) for key in MOVED])
    await rings.sharded.delete_many(MOVED)
    assert not rings.servers["a"].sets
    assert not rings.servers["a"].deletes


async def test_a_call_under_way_ends_where_it_began(rings: Rings) -> None:
    rings.servers["c"].hold_gets = asyncio.Event()
    asking = asyncio.create_task(rings.sharded.get_many(KEYS))
    await asyncio.sleep(0)
    rings.sharded.change(None, {})
    assert [*await rings.sharded.get_many(KEYS)] == [None] * len(KEYS), "there is no server any more"
    rings.servers["c"].hold_gets.set()
    assert [*await asking] == [rings.entry()] * len(KEYS)
