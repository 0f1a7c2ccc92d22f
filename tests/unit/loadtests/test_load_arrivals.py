"""An open loop: what is due is made however late, and its wait is known. On a clock that only sleeping moves."""

from random import Random
from statistics import mean, pstdev

import pytest

from loadtests.load.arrivals import Arrivals, Step, steps_of


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def arrivals(time: Time, form: str = "100", share: float = 1.0) -> Arrivals:
    return Arrivals(steps_of(form), share, Random(1), clock=time.clock, sleep=time.sleep)


def moments(time: Time, schedule: Arrivals, count: int) -> list[float]:
    """When requests are due, seen by a user who is always free."""
    found = []
    for _ in range(count):
        assert schedule.take() == (0.0, False)
        found.append(time.now - 100.0)
    return found


def test_gaps_are_those_of_a_poisson_process() -> None:
    time = Time()
    due = moments(time, arrivals(time), 20_000)
    gaps = [b - a for a, b in zip([0.0, *due], due, strict=False)]
    assert mean(gaps) == pytest.approx(0.01, rel=0.02)
    assert pstdev(gaps) == pytest.approx(0.01, rel=0.03)


def test_a_group_has_its_share_of_the_rate() -> None:
    time = Time()
    assert moments(time, arrivals(time, "1000", share=0.25), 5_000)[-1] == pytest.approx(20.0, rel=0.05)


def test_what_was_due_while_all_users_were_busy_is_made_late_and_not_left_out() -> None:
    """The schedule goes on while a slow answer holds the only user up: coordinated omission would begin anew after it."""
    time = Time()
    undisturbed = moments(time, arrivals(time), 60)
    time = Time()
    schedule = arrivals(time)
    schedule.take()
    time.now = 100.0 + undisturbed[50]  # the answer has taken so long
    late = [schedule.take() for _ in range(49)]
    assert [turn.late for turn in late] == pytest.approx([undisturbed[50] - due for due in undisturbed[1:50]])
    assert all(turn.starved for turn in late)
    schedule.take()  # due right now
    assert schedule.take() == (0.0, False)


def test_a_user_who_is_woken_late_says_so_and_was_not_missing() -> None:
    time = Time()
    schedule = Arrivals(
        steps_of("100"), 1.0, Random(1), clock=time.clock, sleep=lambda wait: time.sleep(wait + 0.5)
    )
    late, starved = schedule.take()
    assert late == pytest.approx(0.5)
    assert not starved


def test_users_who_wait_together_wait_for_different_moments() -> None:
    time = Time()
    waits: list[float] = []
    schedule = Arrivals(steps_of("100"), 1.0, Random(1), clock=time.clock, sleep=waits.append)
    for _ in range(3):
        schedule.take()
    assert sorted(set(waits)) == waits


def test_the_rate_changes_when_a_step_begins() -> None:
    time = Time()
    due = moments(time, arrivals(time, "100,10s:0,20s:400"), 3_000)
    assert len([at for at in due if at < 10]) == pytest.approx(1000, rel=0.1)
    assert not [at for at in due if 10 <= at < 20]
    assert len([at for at in due if 20 <= at < 25]) == pytest.approx(2000, rel=0.1)


def test_a_rate_is_a_number_or_steps() -> None:
    assert steps_of("50") == (Step(0.0, 50.0),)
    assert steps_of("50,1.5s:100") == (Step(0.0, 50.0), Step(1.5, 100.0))


@pytest.mark.parametrize("form", ["", "x", "5,1s", "5,2s:3,1s:4", "5,0s:3", "-1", "5,1s:0"])
def test_other_rates_are_refused(form: str) -> None:
    with pytest.raises(ValueError, match=f"^'{form}': "):
        steps_of(form)
