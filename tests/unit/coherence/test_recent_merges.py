import pytest

from cachesvc.coherence.recent_merges import RecentMerges

A, B, C = 11, 22, 33


def merges(*digests: int, capacity: int = 8) -> RecentMerges:
    recent = RecentMerges(window_us=100, capacity=capacity)
    for digest in digests:
        recent.add(digest, now_us=1000)
    return recent


def test_a_merge_counts_after_its_predecessor_and_up_to_its_own_number() -> None:
    recent = merges(A, B, A, C)
    assert recent.count == 4
    assert [recent.between(after, after + 1, [A]) for after in range(4)] == [True, False, True, False]


def test_a_newer_merge_of_the_same_target_does_not_hide_the_one_in_the_range() -> None:
    recent = merges(A, B, A, A, A)
    assert recent.between(0, 2, [A])
    assert not recent.between(1, 2, [A])


def test_any_of_the_targets_is_enough() -> None:
    recent = merges(A, B)
    assert recent.between(1, 2, [A, B])
    assert not recent.between(1, 2, [A, C])


def test_an_empty_range_holds_no_merge() -> None:
    recent = merges(A)
    assert not recent.between(1, 1, [A])
    assert not recent.between(1, 0, [A])


def test_beyond_capacity_the_answer_is_yes_because_it_is_not_known() -> None:
    recent = merges(A, *[B] * 8, capacity=8)
    assert len(recent) == 8
    assert recent.between(0, 9, [C])
    assert not recent.between(1, 9, [C, A])
    assert recent.between(1, 9, [B])


def test_a_forgotten_merge_takes_its_target_out_of_memory() -> None:
    recent = merges(*range(1000), capacity=8)
    assert sorted(recent._newest) == list(range(992, 1000))


def test_merges_older_than_the_window_are_forgotten() -> None:
    recent = RecentMerges(window_us=100, capacity=8)
    recent.add(A, now_us=1000)
    recent.add(B, now_us=1050)
    recent.expire(now_us=1100)
    assert len(recent) == 2
    recent.expire(now_us=1101)
    assert repr(recent) == "<RecentMerges [1 of 2]>"
    assert recent.between(0, 2, [C])
    assert not recent.between(1, 2, [A])


def test_expiring_everything_leaves_the_numbering() -> None:
    recent = merges(A, B)
    recent.expire(now_us=10_000)
    recent.add(A, now_us=10_000)
    assert recent.count == 3
    assert recent.between(2, 3, [A])
    assert not recent.between(2, 3, [B])


def test_a_capacity_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="power of two"):
        RecentMerges(window_us=1, capacity=12)
