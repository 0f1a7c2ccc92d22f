"""`LruShard` keeps the rules of `cachetools.LRUCache`: the same tests run on both."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from cachetools import Cache, LRUCache

from cachesvc.tiers.l1.lru_shard import LruShard

AnyCache = Cache[Any, Any]
Make = Callable[..., AnyCache]


@pytest.fixture(params=[LRUCache, LruShard])
def make(request: pytest.FixtureRequest) -> Make:
    kind: Make = request.param
    return kind


def filled(make: Make, count: int = 3, **options: Any) -> AnyCache:
    cache = make(count, **options)
    for key in range(1, count + 1):
        cache[key] = str(key)
    return cache


class TestMapping:
    def test_a_new_cache_is_empty(self, make: Make) -> None:
        cache = make(2)
        assert (len(cache), cache.currsize, cache.maxsize, list(cache)) == (0, 0, 2, [])
        assert not cache
        assert 1 not in cache

    def test_what_was_put_is_there(self, make: Make) -> None:
        cache = filled(make)
        assert dict(cache.items()) == {1: "1", 2: "2", 3: "3"}
        assert cache[2] == "2"
        assert cache == {1: "1", 2: "2", 3: "3"}

    def test_putting_again_replaces(self, make: Make) -> None:
        cache = filled(make)
        cache[1] = "one"
        assert (cache[1], len(cache), cache.currsize) == ("one", 3, 3)

    def test_update_puts_all(self, make: Make) -> None:
        cache = make(2)
        cache.update({1: "1", 2: "2"})
        assert cache == {1: "1", 2: "2"}

    def test_an_absent_key_raises_and_get_answers_the_default(self, make: Make) -> None:
        cache = make(2)
        with pytest.raises(KeyError):
            cache[1]
        assert cache.get(1) is None
        assert cache.get(1, "no") == "no"
        assert len(cache) == 0

    def test_a_stored_none_is_not_absence(self, make: Make) -> None:
        cache = make(2)
        cache[1] = None
        assert cache.get(1, "no") is None
        assert cache.setdefault(1, "no") is None
        assert cache.pop(1, "no") is None

    def test_delete_removes_and_an_absent_key_raises(self, make: Make) -> None:
        cache = filled(make)
        del cache[2]
        assert cache == {1: "1", 3: "3"}
        assert cache.currsize == 2
        with pytest.raises(KeyError):
            del cache[2]
        assert cache.currsize == 2

    def test_pop_returns_and_removes(self, make: Make) -> None:
        cache = filled(make)
        assert cache.pop(2) == "2"
        assert cache.pop(2, "gone") == "gone"
        with pytest.raises(KeyError):
            cache.pop(2)
        assert cache.currsize == 2

    def test_setdefault_keeps_what_is_there(self, make: Make) -> None:
        cache = make(2)
        assert cache.setdefault(1, "a") == "a"
        assert cache.setdefault(1, "b") == "a"
        assert cache == {1: "a"}

    def test_popitem_empties_it_and_then_raises(self, make: Make) -> None:
        cache = filled(make)
        assert sorted(cache.popitem() for _ in range(3)) == [(1, "1"), (2, "2"), (3, "3")]
        assert (len(cache), cache.currsize) == (0, 0)
        with pytest.raises(KeyError, match="is empty"):
            cache.popitem()

    def test_clear_leaves_a_usable_cache(self, make: Make) -> None:
        cache = filled(make)
        cache.clear()
        assert (len(cache), cache.currsize) == (0, 0)
        cache[4] = "4"
        assert cache == {4: "4"}

    def test_its_repr_names_class_contents_and_sizes(self, make: Make) -> None:
        cache = filled(make, 1)
        assert repr(cache) == f"{type(cache).__name__}({{1: '1'}}, maxsize=1, currsize=1)"

    def test_it_survives_pickling_with_its_order(self, make: Make) -> None:
        cache = filled(make)
        cache[1]
        copy = pickle.loads(pickle.dumps(cache))  # noqa: S301 - our own bytes
        assert copy.popitem() == (2, "2")
        assert copy == {1: "1", 3: "3"}


class TestBound:
    def test_the_least_recently_put_goes_first(self, make: Make) -> None:
        cache = filled(make)
        cache[4] = "4"
        assert list(cache.items()) == [(2, "2"), (3, "3"), (4, "4")]

    @pytest.mark.parametrize(
        "touch", [lambda c: c[1], lambda c: c.get(1), lambda c: c.setdefault(1), lambda c: c.update({1: "1"})]
    )
    def test_a_use_makes_a_key_the_most_recent(self, make: Make, touch: Callable[[AnyCache], object]) -> None:
        cache = filled(make)
        touch(cache)
        assert [key for key, _ in (cache.popitem(), cache.popitem(), cache.popitem())] == [2, 3, 1]

    @pytest.mark.parametrize("look", [lambda c: 1 in c, lambda c: list(c), lambda c: c.get(9), len])
    def test_looking_changes_no_order(self, make: Make, look: Callable[[AnyCache], object]) -> None:
        cache = filled(make)
        look(cache)
        assert cache.popitem() == (1, "1")

    def test_keys_may_be_used_while_they_are_iterated(self, make: Make) -> None:
        cache = filled(make)
        assert [cache[key] for key in cache] == ["1", "2", "3"]
        assert list(cache.values()) == ["1", "2", "3"]

    def test_without_room_for_one_nothing_can_be_put(self, make: Make) -> None:
        cache = make(0)
        with pytest.raises(ValueError, match="too large"):
            cache[1] = "1"
        assert len(cache) == 0

    def test_a_negative_maxsize_is_refused(self, make: Make) -> None:
        with pytest.raises(ValueError, match="non-negative"):
            make(-1)


class TestSizes:
    """`getsizeof` says what a value takes of `maxsize`."""

    def of(self, make: Make, maxsize: float, *values: float) -> AnyCache:
        cache = make(maxsize, getsizeof=lambda value: value)
        for value in values:
            cache[value] = value
        return cache

    def test_currsize_is_their_sum(self, make: Make) -> None:
        cache = self.of(make, 10, 1, 2, 4)
        assert cache.currsize == 7
        del cache[2]
        assert cache.currsize == 5

    def test_as_many_go_as_are_needed(self, make: Make) -> None:
        cache = self.of(make, 6, 1, 2, 3)
        cache[4] = 4
        assert (list(cache), cache.currsize) == ([4], 4)

    def test_a_value_that_could_never_fit_is_refused_and_nothing_changes(self, make: Make) -> None:
        cache = self.of(make, 6, 1, 2, 3)
        for key in (1, 9):
            with pytest.raises(ValueError, match="too large"):
                cache[key] = 7
        assert cache == {1: 1, 2: 2, 3: 3}
        assert cache.currsize == 6

    def test_a_negative_size_is_refused(self, make: Make) -> None:
        cache = self.of(make, 6, 1)
        with pytest.raises(ValueError, match="non-negative"):
            cache[2] = -1
        assert cache.currsize == 1

    def test_replacing_counts_the_difference(self, make: Make) -> None:
        cache = self.of(make, 6, 1, 2, 3)
        cache[3] = 2
        assert (cache.currsize, len(cache)) == (5, 3)
        cache[3] = 3
        assert (cache.currsize, len(cache)) == (6, 3)

    def test_replacing_with_more_makes_others_go(self, make: Make) -> None:
        cache = self.of(make, 6, 1, 2, 3)
        cache[1] = 4
        assert cache == {1: 4}
        assert cache.currsize == 4

    def test_a_value_of_size_zero_always_fits(self, make: Make) -> None:
        cache = self.of(make, 1, 1, 0)
        assert cache == {1: 1, 0: 0}

    def test_fractions_are_sizes_too(self, make: Make) -> None:
        cache = self.of(make, 1.0, 0.25, 0.5)
        cache["x"] = 0.5
        assert (list(cache), cache.currsize) == ([0.5, "x"], 1.0)

    def test_a_subclass_may_say_the_size(self, make: Make) -> None:
        class Texts(make):  # type: ignore[misc, valid-type]  # the class is the parameter
            @staticmethod
            def getsizeof(value: str) -> int:
                return len(value)

        cache = Texts(5)
        cache.update({1: "aa", 2: "bbb", 3: "c"})
        assert (list(cache), cache.currsize) == ([2, 3], 4)


class TestMissing:
    """A subclass may make what is absent (`__missing__`), and store it or not."""

    @pytest.fixture(params=[True, False])
    def doubling(self, make: Make, request: pytest.FixtureRequest) -> AnyCache:
        class Doubling(make):  # type: ignore[misc, valid-type]  # the class is the parameter
            def __missing__(self, key: int) -> int:
                if request.param:
                    self[key] = key * 2
                return key * 2

        cache: AnyCache = Doubling(2)
        cache.stores = request.param  # type: ignore[attr-defined]  # the tests look at it
        return cache

    def test_indexing_makes_it(self, doubling: Any) -> None:
        assert doubling[4] == 8
        assert (4 in doubling) is doubling.stores

    def test_nothing_else_does(self, doubling: Any) -> None:
        assert doubling.get(4) is None
        assert doubling.pop(4, None) is None
        assert doubling.setdefault(4, 1) == 1
        assert len(doubling) == 1


class TestPeek:
    """Ours alone."""

    def test_peeking_and_views_leave_the_order(self) -> None:
        cache: LruShard[int, str] = LruShard(2)
        cache.update({1: "1", 2: "2"})
        assert (cache.peek(1), cache.peek(9), cache.peek(9, "no")) == ("1", None, "no")
        assert (list(cache.keys()), list(cache.values()), list(cache.items())) == (
            [1, 2],
            ["1", "2"],
            [(1, "1"), (2, "2")],
        )
        assert cache.popitem() == (1, "1")


def test_eviction_goes_through_popitem_so_that_a_subclass_can_watch(make: Make) -> None:
    gone = []

    class Watched(make):  # type: ignore[misc, valid-type]  # the class is the parameter
        def popitem(self) -> tuple[Any, Any]:
            pair: tuple[Any, Any] = super().popitem()
            gone.append(pair)
            return pair

    filled(Watched, 2)[3] = "3"
    assert gone == [(1, "1")]
