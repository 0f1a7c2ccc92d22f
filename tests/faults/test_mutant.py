"""The launcher of instances that have something wrong.

The tests cover its arguments, its clocks, and that `serve` gets the other arguments.
"""

from collections.abc import Sequence

import pytest

from cachesvc import cli
from cachesvc.model.clock import SystemClock
from tests.faults import mutant

SECOND = 1_000_000


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The machine's clock; a test sets it."""
    time = [10 * SECOND]
    monkeypatch.setattr(SystemClock, "now_us", lambda _: time[0])
    return time


def test_a_duration_may_be_negative() -> None:
    assert [mutant.signed_us(text) for text in ("40ms", "-40ms")] == [40_000, -40_000]


def test_a_shifted_clock_is_always_off_by_the_same(machine: list[int]) -> None:
    mutant.shift_clock(-40_000, 0)
    assert SystemClock().now_us() == machine[0] - 40_000


def test_a_turning_clock_is_ahead_and_behind_in_turn(machine: list[int]) -> None:
    mutant.shift_clock(40_000, 2 * SECOND)
    offsets = []
    for machine[0] in range(8 * SECOND, 14 * SECOND, SECOND):
        offsets.append(SystemClock().now_us() - machine[0])
    assert offsets == [40_000, 40_000, -40_000, -40_000, 40_000, 40_000]


def test_the_words_after_its_own_are_the_services(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Sequence[str]] = []

    def served(words: Sequence[str]) -> int:
        given.append(words)
        return 0

    monkeypatch.setattr(cli, "main", served)
    assert mutant.main(["serve", "--topology", "t.yaml"]) == 0
    assert given == [["serve", "--topology", "t.yaml"]]


def test_an_unknown_protection_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        mutant.main(["--without", "luck", "serve"])
    assert "luck" in capsys.readouterr().err
