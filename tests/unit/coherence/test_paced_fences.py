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
    assert fences._windows[1] == ((1000, OVER),)


def test_without_room_the_oldest_target_is_given_up_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paced, "MOST", 2)
    fences = PacedFences(KEPT)
    assert [fences.merge(digest, 1000 + digest, OVER, now_us=0) for digest in (1, 2, 3)] == [0, 0, 1001]
    assert len(fences) == 2
