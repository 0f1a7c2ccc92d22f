"""The hits with half and twice the TTL: the estimate, held to an exact replay."""

import random
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import sqrt

import pytest

from cachesvc.commands.report.figures import ENOUGH
from cachesvc.model.clock import SECONDS
from cachesvc.model.entry import Entry, Key
from cachesvc.telemetry.ghosts import MASK, Came, Ghosts
from tests.doubles.clocks import START_US, ManualClock

TTL_US = 60 * SECONDS
READS = 120_000
KEYS = 40_000
SECONDS_IN_ALL = 1800


class Fences:
    """The newest fence on each target."""

    def __init__(self) -> None:
        self.at: dict[object, int] = {}
        self.version = 0

    def merge(self, target: object, at: int) -> None:
        self.at[target] = at
        self.version += 1

    def fence_on(self, key: int, tags: Sequence[int], namespace: str) -> int:
        return max(self.at.get(target, 0) for target in (key, namespace, *tags))


class World:
    def __init__(self, limit: int = 4096) -> None:
        self.clock = ManualClock()
        self.fences = Fences()
        self.ghosts = Ghosts({"pages": TTL_US}, self.fences, self.clock, limit=limit)
        (self.reuse,) = self.ghosts.statistics().values()

    def read(self, text: str) -> None:
        """As the paths do: only for followed keys."""
        if not (key := Key.of("pages", text)).digest & self.ghosts.mask:
            self.ghosts.read(key)

    def kept(self, key: Key, value: bytes = b"12345", came: Came = Came.LOADED) -> Entry:
        now = self.clock.now_us()
        entry = Entry(value, now, now + TTL_US)
        self.ghosts.kept(key, entry, came)
        return entry


def followed(nth: int = 0) -> Key:
    """The nth key that is followed at the first rate."""
    found = (key for n in range(10_000) if not (key := Key.of("pages", f"k{n}")).digest & MASK)
    return [next(found) for _ in range(nth + 1)][-1]


def trace(seed: int) -> Iterator[tuple[int, str]]:
    """Reads of keys by rank (Zipf, exponent 0.9), with their times in µs since the start."""
    rng = random.Random(seed)
    weights = list(accumulate((nth + 1) ** -0.9 for nth in range(KEYS)))
    texts = [f"{seed}/{nth}" for nth in range(KEYS)]
    for nth, text in enumerate(rng.choices(texts, cum_weights=weights, k=READS)):
        yield nth * SECONDS_IN_ALL * SECONDS // READS, text


class Exact:
    """The replay that the estimate stands for: every key, every TTL."""

    def __init__(self, fences: Fences) -> None:
        self._fences = fences
        self.misses = {0.5: 0, 1.0: 0, 2.0: 0}
        self._loaded: dict[tuple[float, int], int] = {}

    def read(self, key: Key, now: int) -> None:
        fence = self._fences.fence_on(key.digest, (), "pages")
        for times in self.misses:
            loaded = self._loaded.get((times, key.digest), 0)
            if loaded <= fence or now >= loaded + times * TTL_US:
                self._loaded[times, key.digest] = now
                self.misses[times] += 1


def replayed(seed: int, limit: int = 4096) -> tuple[World, Exact]:
    world = World(limit)
    exact = Exact(world.fences)
    began = world.clock.now_us()
    for nth, (at_us, text) in enumerate(trace(seed)):
        world.clock.advance(us=began + at_us - world.clock.now_us())
        key = Key.of("pages", text)
        if nth % 47 == 0:
            world.fences.merge(key.digest, world.clock.now_us() - 1)
        if nth == READS // 2:
            world.fences.merge("pages", world.clock.now_us() - 1)
        world.read(text)
        exact.read(key, world.clock.now_us())
    return world, exact


def deviations(world: World, exact: Exact) -> list[float]:
    """How far the two estimates are from the truth, in stated errors (two standard errors)."""
    found, truth = world.reuse, exact.misses
    return [
        abs((estimate - found.misses_same) - (truth[times] - truth[1.0])) / (2 * sqrt(variance))
        for estimate, variance, times in (
            (found.misses_half, found.variance_half, 0.5),
            (found.misses_twice, found.variance_twice, 2.0),
        )
    ]


@pytest.mark.parametrize("seed", range(2))
def test_the_estimates_are_within_the_error_that_they_state(seed: int) -> None:
    world, exact = replayed(seed)
    assert min(world.reuse.keys_half, world.reuse.keys_twice) > ENOUGH
    assert max(deviations(world, exact)) <= 1
    half = exact.misses[0.5] - exact.misses[1.0]
    assert half / READS > 0.05
    assert 2 * sqrt(world.reuse.variance_half) < 0.5 * half, "and small enough to say something"


def test_they_are_also_if_memory_bounds_what_is_followed() -> None:
    world, exact = replayed(3, limit=100)
    assert world.ghosts.one_in > 32
    assert max(deviations(world, exact)) <= 1


def test_as_many_keys_are_followed_as_the_setting_allows() -> None:
    world = World(limit=64)
    for nth in range(20_000):
        world.read(f"k{nth}")
        assert world.ghosts.followed <= 64
    assert world.ghosts.one_in >= 256


def test_keys_whose_copies_are_over_make_room_first() -> None:
    world = World(limit=64)
    for nth in range(64):
        world.ghosts.read(followed(nth))
    world.clock.advance(us=2 * TTL_US)
    world.ghosts.read(followed(64))
    assert (world.ghosts.followed, world.ghosts.one_in) == (1, 32)


def test_without_a_limit_no_key_is_followed() -> None:
    world = World(limit=0)
    assert all(Key.of("pages", f"k{n}").digest & world.ghosts.mask for n in range(1000))
    assert repr(world.ghosts) == "<Ghosts [0 of 0 keys, one in 0]>"


def test_a_copy_that_nobody_reads_before_it_ends_counts_once() -> None:
    world, key = World(), followed()
    world.ghosts.read(key)
    world.kept(key)
    world.clock.advance(us=TTL_US)
    world.ghosts.read(key)
    assert (world.reuse.fills, world.reuse.never_read) == (32, 32)
    world.kept(key)
    world.clock.advance(seconds=1)
    world.ghosts.read(key)
    world.clock.advance(us=TTL_US)
    world.ghosts.read(key)
    assert (world.reuse.fills, world.reuse.never_read) == (64, 32), "the second one was read"


def test_a_copy_that_is_replaced_or_fenced_unread_was_never_read() -> None:
    world, key = World(), followed()
    world.kept(key)
    world.clock.advance(seconds=1)
    world.kept(key)
    assert world.reuse.never_read == 32
    world.fences.merge(key.digest, world.clock.now_us())
    world.clock.advance(seconds=1)
    world.ghosts.read(key)
    assert world.reuse.never_read == 64


def test_a_copy_that_a_read_found_in_another_tier_has_been_read() -> None:
    world, key = World(), followed()
    world.kept(key, came=Came.FOUND)
    world.clock.advance(us=TTL_US)
    world.ghosts.read(key)
    assert (world.reuse.fills, world.reuse.never_read) == (32, 0)


def test_what_was_written_is_hit_with_every_ttl_and_what_was_loaded_is_not() -> None:
    world, key = World(), followed()
    world.kept(key, came=Came.WRITTEN)
    world.ghosts.read(key)
    assert (world.reuse.misses_half, world.reuse.misses_same, world.reuse.misses_twice) == (0, 0, 0)
    world.clock.advance(us=TTL_US // 2)
    world.ghosts.read(key)
    assert (world.reuse.misses_half, world.reuse.misses_same) == (32, 0)


def test_live_values_are_those_whose_time_has_not_ended() -> None:
    world = World()
    world.kept(followed(0), b"x" * 100)
    world.clock.advance(us=TTL_US // 2)
    world.kept(followed(1), b"x" * 10)
    assert world.ghosts.live_bytes() == {("pages",): 110 * 32}
    world.clock.advance(us=TTL_US // 2)
    assert world.ghosts.live_bytes() == {("pages",): 10 * 32}
    assert world.clock.now_us() == START_US + TTL_US
