"""Windows of paced fences: how they spread, and what happens when there are too many."""

import itertools
import random

import pytest

from cachesvc.coherence import paced_fences as paced
from cachesvc.coherence.paced_fences import PacedFences

OVER = 300_000_000
KEPT = 3_600_000_000


def test_keys_come_due_evenly_over_the_window() -> None:
    fences = PacedFences(KEPT)
    fences.merge(1, 1000, OVER, now_us=0)
    rng = random.Random(3)
    keys = [rng.getrandbits(64) for _ in range(10_000)]
    due = [sum(fences.is_due(0, key, (1,), 1000 + OVER * tenth // 10) for key in keys) for tenth in range(11)]
    assert due[0] == 0
    assert due[10] == 10_000
    assert all(later - earlier == pytest.approx(1000, abs=120) for earlier, later in itertools.pairwise(due))


def test_only_copies_up_to_its_time_are_concerned() -> None:
    fences = PacedFences(KEPT)
    fences.merge(1, 1000, OVER, now_us=0)
    assert [fences.is_due(as_of, 0, (1,), 1000) for as_of in (999, 1000, 1001)] == [True, True, False]
    assert not fences.is_due(0, 0, (2,), 10**15), "another target"


def test_the_same_window_twice_is_one() -> None:
    fences = PacedFences(KEPT)
    for _ in range(3):
        fences.merge(1, 1000, OVER, now_us=0)
    assert repr(fences) == "<PacedFences [1 targets]>"
    assert fences.windows_of(1) == ((1000, 1000, OVER),)


def test_without_room_the_oldest_target_is_given_up_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced, "MOST", 2)
    fences = PacedFences(KEPT)
    assert [fences.merge(digest, 1000 + digest, OVER, now_us=0) for digest in (1, 2, 3)] == [0, 0, 1001]
    assert len(fences) == 2


def test_the_windows_of_all_targets_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 targets of eight windows each took 150 MB."""
    monkeypatch.setattr(paced, "MOST", 20)
    fences, given_up = PacedFences(KEPT), 0
    for at in range(1000, 9000, 1000):
        for digest in range(5):
            given_up = max(given_up, fences.merge(digest, at + digest, OVER, now_us=0))
            assert sum(len(fences.windows_of(one)) for one in range(5)) <= 20
    assert given_up >= 4000


class Exact:
    """Every window, as they come: what a bounded number of windows must be at least as strict as."""

    def __init__(self) -> None:
        self.windows: list[tuple[int, int]] = []

    def is_due(self, as_of: int, key: int, now: int) -> bool:
        return any(as_of <= at and now >= at + (key * over >> 64) for at, over in self.windows)


@pytest.mark.parametrize("seed", range(20))
def test_few_windows_are_as_strict_as_all_of_them(seed: int) -> None:
    rng = random.Random(seed)
    fences, exact, now = PacedFences(KEPT), Exact(), 0
    for _ in range(200):
        now += rng.randrange(OVER // 10)
        at, over = now - rng.randrange(OVER // 5), rng.choice([OVER, OVER // 3, 1])
        fences.merge(1, at, over, now)
        exact.windows.append((at, over))
        assert len(fences.windows_of(1)) <= paced.MOST_WINDOWS
        for _ in range(20):
            key, as_of = rng.getrandbits(64), now - rng.randrange(OVER)
            later = now + rng.randrange(OVER // 2)
            assert fences.is_due(as_of, key, (1,), later) or not exact.is_due(as_of, key, later)


def test_seven_thousand_paced_purges_of_one_target_leave_few_windows_and_a_pace() -> None:
    """An entry still becomes stale in its own time, not at once: at most a quarter of the window early."""
    fences, exact, rng, now = PacedFences(KEPT), Exact(), random.Random(5), 0
    early: list[int] = []
    for turn in range(7000):
        now += OVER // 1000
        fences.merge(1, now, OVER, now)
        exact.windows = [*exact.windows[-1100:], (now, OVER)]
        if turn < 2000 or turn % 100:
            continue
        key, loaded = rng.getrandbits(64), now - OVER // 2
        truly = min(at + (key * over >> 64) for at, over in exact.windows if loaded <= at)
        here = min(w.start + (key * w.over >> 64) for w in fences.windows_of(1) if loaded <= w.at)
        early.append(truly - here)
    assert len(fences.windows_of(1)) <= paced.MOST_WINDOWS
    assert min(early) >= 0
    assert max(early) <= OVER // 4 + OVER // 100


def test_windows_are_exact_while_they_are_few() -> None:
    fences, exact = PacedFences(KEPT), Exact()
    for i in range(paced.MOST_WINDOWS):
        fences.merge(1, 1000 * i, OVER, now_us=1000 * i)
        exact.windows.append((1000 * i, OVER))
    rng = random.Random(9)
    for _ in range(500):
        key, as_of, now = rng.getrandbits(64), rng.randrange(9000), rng.randrange(OVER)
        assert fences.is_due(as_of, key, (1,), now) == exact.is_due(as_of, key, now)
