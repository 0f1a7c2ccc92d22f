import random

import pytest

from cachesvc.coherence import fence_sketch
from cachesvc.coherence.fence_sketch import FenceSketch


def digest_at(low: int, high: int) -> int:
    return high << 32 | low


def test_a_target_never_merged_has_no_fence() -> None:
    assert FenceSketch(16).query(12345) == 0


def test_merging_in_any_order_keeps_the_newest() -> None:
    sketch = FenceSketch(16)
    for at in (5, 9, 7, 9):
        sketch.merge(3, at)
    assert sketch.query(3) == 9


def test_a_collision_in_one_row_alone_changes_no_answer() -> None:
    sketch = FenceSketch(16)
    sketch.merge(digest_at(1, 2), 100)
    assert sketch.query(digest_at(1, 7)) == 0
    assert sketch.query(digest_at(7, 2)) == 0


def test_collisions_in_both_rows_make_a_fence_look_newer_never_older() -> None:
    sketch = FenceSketch(16)
    sketch.merge(digest_at(1, 2), 10)
    sketch.merge(digest_at(1, 7), 100)
    sketch.merge(digest_at(7, 2), 90)
    assert sketch.query(digest_at(1, 2)) == 90


def test_the_upper_half_of_the_digest_takes_its_own_row() -> None:
    sketch = FenceSketch(1 << 8)
    sketch.merge(0xFFFF_FFFF_FFFF_FFFF, 2**64 - 1)
    assert sketch.query(0xFFFF_FFFF_FFFF_FFFF) == 2**64 - 1
    assert sketch.query(0x0000_0000_FFFF_FFFF) == 0


@pytest.mark.parametrize("slots", [0, -8, 3, 100, 1 << 33])
def test_slots_that_are_no_power_of_two_are_refused_when_it_is_built(slots: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        FenceSketch(slots)


def test_the_estimate_counts_only_fences_after_the_entry() -> None:
    sketch = FenceSketch(16)
    for number in range(8):
        sketch.merge(digest_at(number, number), 100)
    for number in range(8, 12):
        sketch.merge(digest_at(number, number), 200)
    assert sketch.collision_share(since=50) == pytest.approx(0.75**2)
    assert sketch.collision_share(since=100) == pytest.approx(0.25**2)
    assert sketch.collision_share(since=200) == 0


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> FenceSketch:
    """A sketch that begins with 16 slots a row, with a fence in each, half of them old."""
    monkeypatch.setattr(fence_sketch, "FIRST_SLOTS", 16)
    sketch = FenceSketch(1 << 10)
    for number in range(16):
        sketch.merge(digest_at(number, number), 100 if number % 2 else 200)
    return sketch


def test_it_doubles_until_there_is_room_for_the_young_fences(crowded: FenceSketch) -> None:
    assert not crowded.make_room(1, since=0)
    assert not crowded.make_room(1000, since=200)
    assert crowded.slots == 16, "none of the slots is that young"
    assert crowded.make_room(10, since=100)
    assert crowded.slots == 128
    assert crowded.mask == crowded.slots - 1
    assert [len(row) for row in crowded.rows] == [crowded.slots] * 2
    assert not crowded.make_room(10, since=100), "it is as full, and there are no more fences"
    assert crowded.make_room(1 << 50, since=100)
    assert crowded.slots == 1 << 10, "the most"


def test_after_it_has_doubled_no_fence_is_earlier_and_new_ones_collide_less(crowded: FenceSketch) -> None:
    rng = random.Random(1)
    digests = [rng.getrandbits(64) for _ in range(200)]
    before = [crowded.query(digest) for digest in digests]
    crowded.make_room(1 << 50, since=0)
    assert [crowded.query(digest) for digest in digests] == before
    crowded.merge(digests[0], 300)
    assert crowded.query(digests[0]) == 300
    assert crowded.query(digests[0] ^ 1 << 9 ^ 1 << 41) < 300, "another slot of both longer rows"


def test_many_fences_on_few_targets_need_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence_sketch, "FIRST_SLOTS", 1 << 10)
    sketch = FenceSketch(1 << 16)
    for at in range(1, 10_000):
        sketch.merge(digest_at(at % 50, at % 50), at)
    assert not sketch.make_room(10_000, since=0)
