"""L1: the books (bytes, count), victims, sweeps. The order itself is in `test_recency_cache.py`."""

from collections.abc import Callable
from sys import getrefcount

import pytest
from cachetools import FIFOCache, LFUCache, LRUCache, RRCache

from cachesvc.model.entry import Entry, Key
from cachesvc.model.footprint import ENTRY_BYTES, footprint
from cachesvc.tiers.l1.l1 import L1, SHARD_ENTRIES, Policy
from cachesvc.tiers.l1.lru_shard import LruShard
from tests.doubles.clocks import ManualClock

CLOCK = ManualClock()
NOW = CLOCK.now_us()
SMALL = ENTRY_BYTES + 6 + 100  # the charge of an entry of 100 bytes under a key such as b"ns/k07"


def key(number: int) -> Key:
    return Key.of("ns", f"k{number:02}")


def entry(size: int = 100, *, fresh_until: int = NOW + 1000, stale_for: int = 0, error_for: int = 0) -> Entry:
    return Entry(bytes(size), NOW - 5, fresh_until, stale_for, error_for)


def l1(entries: int = 20, *, max_entries: int = 1000, policy: Policy = LruShard) -> L1:
    """Room for so many small ones."""
    return L1(entries * SMALL, max_entries, CLOCK, policy)


def filled(count: int, cache: L1) -> L1:
    for number in range(count):
        assert cache.put(key(number), entry())
    return cache


def held(cache: L1, count: int = 100) -> list[int]:
    return [number for number in range(count) if cache.peek(key(number)) is not None]


def test_what_was_put_is_answered_until_it_is_deleted() -> None:
    cache = l1()
    stored = entry()
    assert cache.get(key(1)) is None
    assert cache.put(key(1), stored)
    assert cache.get(key(1)) is stored
    assert cache.delete(key(1))
    assert cache.get(key(1)) is None
    assert not cache.delete(key(1))
    assert (cache.items, cache.bytes) == (0, 0)


def test_a_stale_copy_is_answered_too_because_expiry_is_the_readers_to_check() -> None:
    cache = l1()
    cache.put(key(1), entry(fresh_until=NOW - 1))
    assert cache.get(key(1)) is not None


def test_beyond_the_budget_the_least_recently_used_goes() -> None:
    cache = filled(20, l1(20))
    assert (cache.items, cache.bytes, cache.evictions) == (20, 20 * SMALL, 0)
    cache.get(key(0))
    cache.put(key(20), entry())
    assert held(cache) == [0, *range(2, 21)]
    assert (cache.bytes, cache.evictions) == (20 * SMALL, 1)


def test_peeking_saves_no_entry() -> None:
    cache = filled(20, l1(20))
    cache.peek(key(0))
    cache.put(key(20), entry())
    assert 0 not in held(cache)


def test_beyond_the_count_the_least_recently_used_goes() -> None:
    cache = filled(5, l1(20, max_entries=3))
    assert held(cache) == [2, 3, 4]
    assert cache.evictions == 2


def test_a_large_entry_makes_as_many_go_as_it_needs() -> None:
    cache = filled(40, l1(40))
    cache.put(key(50), entry(100 + 2 * SMALL))
    assert held(cache) == [*range(3, 40), 50]
    assert cache.bytes == 40 * SMALL


def test_an_entry_above_a_tenth_of_the_budget_is_rejected() -> None:
    cache = l1(20)
    assert cache.put(key(1), entry(100 + SMALL))
    assert not cache.put(key(2), entry(101 + SMALL))
    assert (held(cache), cache.rejected) == ([1], 1)


def test_a_rejected_entry_leaves_no_older_copy_behind() -> None:
    cache = filled(2, l1(20))
    assert not cache.put(key(1), entry(5 * SMALL))
    assert (held(cache), cache.bytes) == ([0], SMALL)


def test_replacing_counts_the_difference_and_evicts_nobody_when_it_fits() -> None:
    cache = filled(19, l1(20))
    cache.put(key(0), entry(150))
    assert (cache.items, cache.bytes, cache.evictions) == (19, 19 * SMALL + 50, 0)
    cache.put(key(0), entry(50))
    assert cache.bytes == 19 * SMALL - 50


def test_replacing_with_more_than_fits_keeps_the_new_one() -> None:
    cache = filled(20, l1(20))
    cache.put(key(0), entry(150))
    assert held(cache) == [0, *range(2, 20)]
    assert (cache.items, cache.bytes) == (19, 19 * SMALL + 50)


def test_at_the_count_replacing_evicts_nobody() -> None:
    cache = filled(3, l1(20, max_entries=3))
    cache.put(key(0), entry())
    assert (held(cache), cache.evictions) == ([0, 1, 2], 0)


def test_the_age_of_the_evicted_is_since_its_load_began() -> None:
    clock = ManualClock()
    cache = L1(20 * SMALL, 1, clock)
    cache.put(key(0), Entry(b"", clock.now_us(), 0))
    clock.advance(seconds=3)
    cache.put(key(1), Entry(b"", clock.now_us(), 0))
    assert cache.evicted_age_us == 3_000_000


def test_clear_drops_all_and_keeps_the_counters() -> None:
    cache = filled(21, l1(20))
    cache.sweep(NOW)
    cache.clear()
    assert (held(cache), cache.items, cache.bytes, cache.evictions) == ([], 0, 0, 1)
    assert cache.sweep(NOW + 10**9) == 0
    assert cache.put(key(1), entry())


class TestSweep:
    def test_what_is_past_all_use_is_dropped_and_counted(self) -> None:
        cache = l1()
        cache.put(key(0), entry(fresh_until=NOW))
        cache.put(key(1), entry(fresh_until=NOW + 1))
        assert cache.sweep(NOW) == 1
        assert (held(cache), cache.items, cache.bytes, cache.expired) == ([1], 1, SMALL, 1)

    def test_what_may_still_be_served_stale_or_on_error_is_kept(self) -> None:
        cache = l1()
        cache.put(key(0), entry(fresh_until=NOW - 10, stale_for=11))
        cache.put(key(1), entry(fresh_until=NOW - 10, error_for=11))
        cache.put(key(2), entry(fresh_until=NOW - 10, stale_for=10, error_for=10))
        assert cache.sweep(NOW) == 1
        assert held(cache) == [0, 1]

    def test_a_step_looks_at_no_more_than_its_limit_and_the_next_goes_on(self) -> None:
        cache = filled(10, l1())
        assert [cache.sweep(NOW + 1000, limit=4) for _ in range(3)] == [4, 4, 2]
        assert cache.items == 0

    def test_entries_that_came_or_went_meanwhile_are_no_trouble(self) -> None:
        cache = filled(10, l1())
        cache.sweep(NOW, limit=2)
        cache.delete(key(3))
        cache.put(key(4), entry(fresh_until=NOW + 5000))
        cache.put(key(30), entry())
        assert cache.sweep(NOW + 1000) == 7  # all but the two that were looked at, and the one that is fresh
        assert cache.sweep(NOW + 1000) == 2
        assert held(cache) == [4]

    def test_what_is_evicted_between_two_sweeps_is_not_held(self) -> None:
        cache = filled(20, l1(20))
        cache.sweep(NOW, limit=2)
        (oldest,) = [one for one, _ in next(cache.copies()) if one == key(5).id]
        cache.delete(key(5))
        assert getrefcount(oldest) == 2, "the name here, and the argument"

    def test_a_put_sweeps_nothing(self) -> None:
        cache = l1()
        cache.put(key(0), entry(fresh_until=0))
        cache.put(key(1), entry())
        assert (held(cache), cache.expired) == ([0, 1], 0)

    def test_a_sweep_changes_no_order(self) -> None:
        cache = filled(20, l1(20))
        cache.sweep(NOW)
        cache.put(key(20), entry())
        assert 0 not in held(cache)


class TestShards:
    def test_a_small_one_is_one_shard_and_so_exact(self) -> None:
        assert L1(1 << 40, SHARD_ENTRIES, CLOCK).statistics().shards == 1
        assert L1(ENTRY_BYTES * SHARD_ENTRIES, 10**9, CLOCK).statistics().shards == 1

    def test_no_shard_is_laid_out_for_more_than_it_can_grow_to_quickly(self) -> None:
        assert L1(1 << 40, SHARD_ENTRIES + 1, CLOCK).statistics().shards == 2
        assert L1(1 << 40, 4_000_000, CLOCK).statistics().shards == 128

    def test_the_budget_is_one_for_all(self) -> None:
        """An entry of a tenth of the budget fits beside others of its shard, and victims come from all shards in turn."""
        cache = L1(1 << 27, 1 << 20, CLOCK)
        assert cache.statistics().shards == 16
        large = (1 << 27) // 10 - 100 - ENTRY_BYTES
        for number in range(40):
            assert cache.put(key(number), entry(large))
        assert cache.items == 10
        assert cache.bytes <= 1 << 27
        assert 39 in held(cache)

    def test_victims_are_about_the_oldest_of_all(self) -> None:
        cache = L1(SHARD_ENTRIES * 2 * ENTRY_BYTES, 1 << 20, CLOCK)
        keys = [Key.of("ns", str(number)) for number in range(100_000)]
        for each in keys:
            cache.put(each, entry(0))
        gone = [cache.peek(each) is None for each in keys]
        assert cache.statistics().shards == 2
        assert abs(gone.index(False) - sum(gone)) < 1000

    def test_every_shard_is_swept(self) -> None:
        cache = L1(1 << 27, 1 << 20, CLOCK)
        filled(100, cache)
        for _ in range(16):
            cache.sweep(NOW + 1000)
        assert cache.items == 0


@pytest.mark.parametrize("policy", [LruShard, LRUCache, FIFOCache, LFUCache, RRCache])
def test_any_policy_of_the_base_library_keeps_the_books(
    policy: Callable[[int], LRUCache[bytes, Entry]],
) -> None:
    cache = filled(30, l1(20, policy=policy))
    assert (cache.items, cache.bytes, cache.evictions) == (20, 20 * SMALL, 10)
    cache.put(key(29), entry(150))
    cache.sweep(NOW + 1000, limit=5)
    survivors = held(cache)
    assert cache.items == len(survivors)
    assert cache.bytes == sum(footprint(key(n).id, found) for n in survivors if (found := cache.peek(key(n))))
    assert cache.expired == 5


def test_a_policy_decides_who_goes() -> None:
    cache = filled(20, l1(20, policy=FIFOCache))
    cache.get(key(0))
    cache.put(key(20), entry())
    assert 0 not in held(cache)


@pytest.mark.parametrize(("budget", "max_entries"), [(0, 1), (1, 0)])
def test_without_any_room_it_cannot_be_built(budget: int, max_entries: int) -> None:
    with pytest.raises(ValueError, match="room"):
        L1(budget, max_entries, CLOCK)


def test_its_state_is_told_in_one_line() -> None:
    assert repr(filled(2, l1(20))) == f"<L1 [2 items, {2 * SMALL} of {20 * SMALL} bytes, 1 shards]>"


def test_each_namespace_has_its_own_book() -> None:
    cache = filled(9, l1(10))
    cache.put(Key.of("ab", "a/b"), entry())  # a slash of the key's own is not the one after the namespace
    assert {name: (book.items, book.bytes) for name, book in cache.by_namespace().items()} == {
        "ns": (9, 9 * SMALL),
        "ab": (1, SMALL),
    }
    for number in range(9, 19):
        cache.put(key(number), entry())
    assert {name: (book.items, book.evictions) for name, book in cache.by_namespace().items()} == {
        "ns": (10, 9),
        "ab": (0, 1),
    }
    cache.clear()
    assert {name: (book.items, book.bytes) for name, book in cache.by_namespace().items()} == {
        "ns": (0, 0),
        "ab": (0, 0),
    }


def test_one_eviction_in_sixteen_is_asked_its_age() -> None:
    cache = filled(10 + 17, l1(10))
    assert cache.evictions == 17
    assert sum(cache.eviction_ages.buckets) == 2


def test_the_copies_that_were_used_last_are_given_in_the_order_of_their_use() -> None:
    l1 = L1(1 << 20, 1000, CLOCK)
    keys = [Key.of("pages", f"k{number}") for number in range(100)]
    for key in keys:
        l1.put(key, Entry(b"v" * 100, as_of=1, fresh_until=2))
    for key in keys[:10]:
        l1.get(key)
    given = [key_id for copies in l1.used_last(l1.bytes // 4 + 100) for key_id, _ in copies]
    assert given == [key.id for key in (*keys[85:], *keys[:10])]
    assert sum(map(len, l1.used_last(1 << 30))) == 100
    assert not [copy for copies in L1(1 << 20, 1000, CLOCK).used_last(1) for copy in copies]
