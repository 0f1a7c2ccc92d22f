"""The keys read most and the largest values, of the last minute or two."""

import random

import pytest

from cachesvc.model.entry import Entry, Key
from cachesvc.telemetry.popularity.hot_keys import ENOUGH, HotKeys
from cachesvc.telemetry.popularity.largest import LARGEST, Largest, largest_of
from cachesvc.telemetry.popularity.read_sample import EVERY, ReadSample
from tests.doubles.clocks import ManualClock


def hot_keys(clock: ManualClock | None = None) -> HotKeys:
    return HotKeys(("pages", "posts"), clock or ManualClock())


def read(found: HotKeys, text: str, times: int) -> None:
    for _ in range(times):
        found.read(Key.of("pages", text))


def names(found: HotKeys) -> list[str]:
    return [hitter.item for hitter in found.popularity("pages").hitters]


def test_the_key_that_is_read_most_comes_first() -> None:
    found = hot_keys()
    for text, times in (("rare", 1), ("hot", 5), ("warm", 3)):
        read(found, text, times)
    assert names(found) == ["hot", "warm", "rare"]
    assert found.popularity("pages").sampled == 9
    assert not found.popularity("posts").hitters


def test_what_was_hot_is_told_for_a_minute_more_and_then_forgotten() -> None:
    clock = ManualClock()
    found = hot_keys(clock)
    read(found, "old", 3)
    clock.advance(seconds=61)
    read(found, "new", 1)
    assert names(found) == ["old", "new"]
    assert found.popularity("pages").seconds == 61
    clock.advance(seconds=61)
    assert names(found) == ["new"]
    assert found.popularity("pages").seconds == 61
    clock.advance(seconds=121)
    assert names(found) == []
    assert found.popularity("pages").seconds == 0


def test_a_clock_that_was_set_back_begins_anew() -> None:
    clock = ManualClock()
    found = hot_keys(clock)
    read(found, "old", 3)
    clock.advance(seconds=-5)
    assert names(found) == []
    read(found, "new", 1)
    assert names(found) == ["new"]


def test_a_share_of_too_few_reads_is_no_metric() -> None:
    found = hot_keys()
    read(found, "hot", ENOUGH - 1)
    assert found.statistics()["pages",].share is None
    read(found, "other", ENOUGH // 4 + 1)
    assert found.statistics()["pages",].share == pytest.approx(0.8, abs=0.01)
    assert found.statistics()["posts",].share is None


def test_values_are_told_by_their_size_as_long_as_keys_are() -> None:
    clock = ManualClock()
    found = hot_keys(clock)
    for text, size in (("small", 10), ("large", 1000), ("small", 30)):
        found.valued(Key.of("pages", text), size)
    assert found.popularity("pages").largest == [("large", 1000), ("small", 30)]
    assert found.statistics()["pages",].largest == 1000
    assert found.statistics()["posts",].largest is None
    clock.advance(seconds=121)
    assert found.statistics()["pages",].largest is None


def test_the_largest_are_those_that_sorting_finds() -> None:
    dice = random.Random(5)
    seen = [(f"k{dice.randrange(200)}", dice.randrange(1000)) for _ in range(2000)]
    both = Largest(), Largest()
    for i, (name, size) in enumerate(seen):
        both[i % 2].note(name, size)
    truth: dict[str, int] = {}
    for name, size in seen:
        truth[name] = max(size, truth.get(name, 0))
    assert [size for _, size in largest_of(both)] == sorted(truth.values(), reverse=True)[:LARGEST]
    assert all(truth[name] == size for name, size in largest_of(both))


def test_reads_are_sampled_with_one_weight_hits_or_not() -> None:
    found = hot_keys()
    sample = ReadSample(found, random.Random(3))
    key, entry = Key.of("pages", "hit"), Entry(b"v", 1, 2)
    for number in range(1, 200 * EVERY + 1):
        if number >= sample.next_hit:
            sample.note(key, entry)
        sample.beyond(Key.of("pages", "missed"))
    counts = {hitter.item: hitter.count for hitter in found.popularity("pages").hitters}
    assert counts == {"hit": pytest.approx(200, rel=0.15), "missed": pytest.approx(200, rel=0.15)}


def test_a_client_that_asks_for_the_same_keys_in_turn_makes_none_of_them_hot() -> None:
    found = hot_keys()
    sample = ReadSample(found, random.Random(3))
    for number in range(200 * EVERY):
        sample.beyond(Key.of("pages", f"k{number % EVERY}"))
    hottest = found.popularity("pages").hitters[0]
    assert hottest.count < 15, "3 each, if chance were even; with every 64th read it would be 200"
