"""Rooms of L1: guarantees, limits, who gives way, and what a scan costs another namespace."""

import random
from collections.abc import Iterator
from itertools import accumulate, count, islice

import pytest

from cachesvc.config.l1_rooms import RoomBytes
from cachesvc.model.entry import Entry, Key
from cachesvc.model.footprint import ENTRY_BYTES
from cachesvc.tiers.l1.l1 import L1
from tests.doubles.clocks import ManualClock

SMALL = ENTRY_BYTES + 9 + 100  # the charge of an entry of 100 bytes under a key such as b"aa/k00007"
CAPACITY = 100
BUDGET = CAPACITY * SMALL
ALL = RoomBytes(0, BUDGET)


def l1(max_entries: int = 1 << 30, budget: int = BUDGET, **rooms: RoomBytes) -> L1:
    return L1(budget, max_entries, ManualClock(), rooms=rooms)


def key(namespace: str, number: int) -> Key:
    return Key.of(namespace, f"k{number:05}")


def put(cache: L1, namespace: str, numbers: range, size: int = 100) -> None:
    for number in numbers:
        cache.put(key(namespace, number), Entry(bytes(size), 1, 2))


def held(cache: L1, namespace: str) -> int:
    totals = cache.by_namespace().get(namespace)
    return totals.items if totals else 0


def room(guaranteed: int = 0, at_most: int = CAPACITY) -> RoomBytes:
    """A room for so many small entries."""
    return RoomBytes(guaranteed * SMALL, at_most * SMALL)


def test_nobody_evicts_a_namespace_within_its_guarantee() -> None:
    cache = l1(aa=room(40), bb=ALL)
    put(cache, "aa", range(40))
    put(cache, "bb", range(1000))
    assert (held(cache, "aa"), held(cache, "bb")) == (40, 60)
    assert cache.by_namespace()["aa"].evictions == 0
    assert cache.by_namespace()["bb"].evicted_by_own == 940


def test_what_a_namespace_is_guaranteed_others_use_until_it_comes() -> None:
    cache = l1(aa=room(40), bb=ALL)
    put(cache, "bb", range(100))
    assert held(cache, "bb") == 100
    put(cache, "aa", range(40))
    assert (held(cache, "aa"), held(cache, "bb")) == (40, 60)
    assert cache.by_namespace()["bb"].evicted_by_others == 40


def test_at_its_limit_a_namespace_evicts_its_own() -> None:
    cache = l1(aa=room(at_most=30), bb=ALL)
    put(cache, "aa", range(50))
    totals = cache.by_namespace()["aa"]
    assert (totals.items, totals.evicted_at_limit, cache.evictions) == (30, 20, 20)
    assert cache.peek(key("aa", 19)) is None
    assert cache.peek(key("aa", 20)) is not None


def test_at_its_limit_an_entry_is_replaced_in_its_own_place() -> None:
    cache = l1(aa=room(at_most=30))
    put(cache, "aa", range(30))
    put(cache, "aa", range(30))
    assert (held(cache, "aa"), cache.evictions) == (30, 0)


def test_an_entry_above_the_limit_of_its_namespace_is_rejected() -> None:
    cache = l1(aa=room(at_most=3), bb=ALL)
    put(cache, "aa", range(2))
    assert not cache.put(key("aa", 1), Entry(bytes(100 + 2 * SMALL + 1), 1, 2))
    assert [held(cache, "aa"), cache.rejected, cache.by_namespace()["aa"].rejected] == [1, 1, 1]
    assert cache.put(key("aa", 2), Entry(bytes(100 + 2 * SMALL), 1, 2))


def test_an_entry_that_only_guaranteed_entries_could_make_room_for_is_rejected() -> None:
    cache = l1(aa=room(50), bb=room(48), cc=ALL)
    put(cache, "aa", range(50))
    put(cache, "bb", range(48))
    put(cache, "cc", range(2))
    assert not cache.put(key("cc", 7), Entry(bytes(100 + 2 * SMALL), 1, 2))
    assert (held(cache, "cc"), cache.evictions) == (2, 0), "nobody was evicted for it"
    cache.delete(key("aa", 0))
    assert cache.put(key("cc", 7), Entry(bytes(100 + 2 * SMALL), 1, 2)), "not all of a guarantee is used"


def test_with_all_guaranteed_and_used_the_rest_gets_nothing() -> None:
    cache = l1(aa=room(CAPACITY), bb=ALL)
    put(cache, "bb", range(10))
    put(cache, "aa", range(CAPACITY))
    put(cache, "bb", range(10))
    assert (held(cache, "aa"), held(cache, "bb"), cache.rejected) == (CAPACITY, 0, 10)


def test_a_guarantee_is_the_same_share_of_the_entries() -> None:
    cache = l1(max_entries=50, aa=room(40), bb=ALL)
    put(cache, "aa", range(20))
    put(cache, "bb", range(100), size=0)
    assert (held(cache, "aa"), held(cache, "bb")) == (20, 30)
    put(cache, "aa", range(100, 130))
    assert held(cache, "aa") >= 20


def test_a_namespace_without_a_room_of_its_own_is_held_with_others_of_its_kind() -> None:
    cache = l1(aa=room(40))
    put(cache, "aa", range(40))
    put(cache, "xx", range(30))
    put(cache, "yy", range(30))
    put(cache, "xx", range(100, 110))
    assert [held(cache, name) for name in ("aa", "xx", "yy")] == [40, 30, 30]


def test_each_copy_is_found_where_it_is_looked_for() -> None:
    cache = l1(aa=room(40), bb=ALL)
    put(cache, "aa", range(3))
    put(cache, "bb", range(2))
    assert cache.get(key("aa", 0)) is cache.get_many([key("aa", 0)])[0] is not None
    assert cache.get(key("bb", 2)) is None
    assert sum(len(shard) for shard in cache.copies()) == 5
    assert cache.delete(key("bb", 1))
    cache.clear()
    assert (cache.items, cache.bytes, held(cache, "aa")) == (0, 0, 0)


def test_a_sweep_goes_through_all_rooms() -> None:
    cache = l1(aa=room(40), bb=ALL)
    put(cache, "aa", range(30))
    put(cache, "bb", range(30))
    assert 0 < cache.sweep(now_us=2, limit=10) <= 10
    for _ in range(3):
        cache.sweep(now_us=2)
    assert (cache.items, cache.expired) == (0, 60)


def test_each_shard_holds_its_part_of_every_namespace() -> None:
    cache = L1(
        1 << 27, 1 << 20, ManualClock(), rooms={"aa": RoomBytes(0, 1 << 27), "bb": RoomBytes(0, 1 << 27)}
    )
    put(cache, "aa", range(1000))
    put(cache, "bb", range(1000))
    shards = list(cache.copies())
    assert len(shards) == cache.statistics().shards == 16
    assert all(90 < len(shard) < 160 for shard in shards)


def popular(keys: int, seed: int) -> Iterator[int]:
    """Endless numbers of keys by Zipf's law."""
    rng = random.Random(seed)
    weights = list(accumulate(1 / rank for rank in range(1, keys + 1)))
    while True:
        yield from rng.choices(range(keys), cum_weights=weights, k=1000)


def hit_ratio(cache: L1, namespace: str, numbers: Iterator[int], reads: int) -> float:
    hits = 0
    for number in islice(numbers, reads):
        if cache.get(key(namespace, number)) is not None:
            hits += 1
        else:
            put(cache, namespace, range(number, number + 1))
    return hits / reads


def with_a_scan(cache: L1, numbers: Iterator[int], *, scanned: int, per_read: int) -> float:
    """The hit ratio of `aa` while `bb` reads so many keys once, some for each read of `aa`."""
    hits, scan = 0, count()
    reads = scanned // per_read
    for _ in range(reads):
        for number in islice(scan, per_read):
            hit_ratio(cache, "bb", iter([number]), 1)
        hits += round(hit_ratio(cache, "aa", numbers, 1))
    return hits / reads


@pytest.mark.parametrize("per_read", [1, 10])
def test_a_scan_of_ten_times_l1_costs_a_guaranteed_namespace_at_most_two_points(per_read: int) -> None:
    budget = 5_000 * SMALL
    cache = l1(budget=budget, aa=RoomBytes(2_000 * SMALL, budget), bb=RoomBytes(0, budget))
    numbers = popular(2_000, seed=1)
    hit_ratio(cache, "aa", numbers, 20_000)
    before = hit_ratio(cache, "aa", numbers, 10_000)
    assert with_a_scan(cache, numbers, scanned=50_000, per_read=per_read) > before - 0.02
    assert cache.by_namespace()["aa"].evictions == 0


def test_a_scan_does_not_take_what_is_used_above_a_guarantee() -> None:
    """The rest goes to those whose evicted entries come back, and those of a scan do not."""
    budget = 4_000 * SMALL
    cache = l1(budget=budget, aa=RoomBytes(500 * SMALL, budget), bb=RoomBytes(0, budget))
    plain = l1(budget=budget)
    numbers = popular(4_000, seed=2)
    hit_ratio(cache, "aa", numbers, 20_000)
    before = hit_ratio(cache, "aa", numbers, 5_000)
    during = with_a_scan(cache, numbers, scanned=40_000, per_read=4)
    hit_ratio(plain, "aa", numbers, 25_000)
    shared = with_a_scan(plain, numbers, scanned=40_000, per_read=4)
    assert before - during < (before - shared) / 2


def test_evictions_are_counted_by_reason() -> None:
    cache = l1(aa=room(at_most=80), bb=room(30))
    put(cache, "aa", range(90))
    put(cache, "bb", range(30))
    totals = cache.by_namespace()["aa"]
    assert (totals.evicted_at_limit, totals.evicted_by_others, totals.evicted_by_own) == (10, 10, 0)
    assert (totals.evictions, cache.evictions) == (20, 20)


def test_many_rooms_share_what_nobody_is_guaranteed() -> None:
    """A room that was chosen stays so for a while, so parts are off by a few entries."""
    names = [f"n{number:02}" for number in range(20)]
    limits = dict.fromkeys(names, RoomBytes(0, 40 * BUDGET))
    cache = L1(40 * BUDGET, 1 << 30, ManualClock(), rooms=limits)
    for start in range(0, 2000, 10):
        for name in names:
            put(cache, name, range(start, start + 10))
    parts = [held(cache, name) for name in names]
    assert sum(parts) >= 0.99 * 4000
    assert max(parts) - min(parts) <= 2 * len(names)
