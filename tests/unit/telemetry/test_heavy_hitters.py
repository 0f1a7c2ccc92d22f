"""Space-Saving keeps its promises for any stream."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.telemetry.popularity.heavy_hitters import HeavyHitters, together

STREAMS = st.lists(st.integers(0, 30) | st.integers(0, 3), max_size=300)
CAPACITIES = st.integers(1, 12)


def sketch_of(stream: list[int], capacity: int) -> HeavyHitters[int]:
    sketch: HeavyHitters[int] = HeavyHitters(capacity)
    for item in stream:
        sketch.note(item)
    return sketch


@given(STREAMS, CAPACITIES)
def test_counts_are_never_too_low_and_too_high_by_their_error_at_most(
    stream: list[int], capacity: int
) -> None:
    truth = Counter(stream)
    for hitter in sketch_of(stream, capacity).counted():
        assert hitter.surely <= truth[hitter.item] <= hitter.count
        assert hitter.error <= len(stream) / capacity


@given(STREAMS, CAPACITIES)
def test_whatever_came_more_than_its_share_of_the_capacity_is_counted(
    stream: list[int], capacity: int
) -> None:
    sketch = sketch_of(stream, capacity)
    counted = {hitter.item for hitter in sketch.counted()}
    assert {item for item, count in Counter(stream).items() if count > len(stream) / capacity} <= counted
    assert all(count <= sketch.unseen for item, count in Counter(stream).items() if item not in counted)


@given(STREAMS, CAPACITIES)
def test_it_stays_small_and_its_counts_add_up_to_the_stream(stream: list[int], capacity: int) -> None:
    sketch = sketch_of(stream, capacity)
    assert len(sketch) == min(capacity, len(set(stream)))
    assert sketch.noted == len(stream) == sum(hitter.count for hitter in sketch.counted())
    assert len(sketch) != capacity or sketch.unseen == min(hitter.count for hitter in sketch.counted())


@given(STREAMS, STREAMS, CAPACITIES)
def test_two_streams_together_keep_the_promises_of_one(
    first: list[int], second: list[int], capacity: int
) -> None:
    truth = Counter(first) + Counter(second)
    bound = (len(first) + len(second)) / capacity
    found = together(sketch_of(first, capacity), sketch_of(second, capacity))
    assert all(
        hitter.surely <= truth[hitter.item] <= hitter.count and hitter.error <= bound for hitter in found
    )
    assert {item for item, count in truth.items() if count > bound} <= {hitter.item for hitter in found}
    assert [hitter.surely for hitter in found] == sorted((hitter.surely for hitter in found), reverse=True)


def test_a_stream_within_the_capacity_is_counted_exactly() -> None:
    sketch = sketch_of([1, 2, 1, 3, 1, 2], capacity=3)
    assert sorted((hitter.item, hitter.count, hitter.error) for hitter in sketch.counted()) == [
        (1, 3, 0),
        (2, 2, 0),
        (3, 1, 0),
    ]
    assert repr(sketch) == "<HeavyHitters [3 of 3 counted, 6 noted]>"


def test_a_sketch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one item, not 0"):
        HeavyHitters(0)
