"""The breaker: when it opens, whom it lets through, and how it closes."""

import random

import pytest

from cachesvc.tiers.l2.breaker import Breaker, BreakerState


class Seconds:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def is_(breaker: Breaker, state: BreakerState) -> bool:
    return breaker.state is state


@pytest.fixture
def clock() -> Seconds:
    return Seconds()


@pytest.fixture
def breaker(clock: Seconds) -> Breaker:
    return Breaker(threshold=3, cool_down_seconds=10, jitter=0, now=clock)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        assert breaker.admits()
        breaker.failed()


def test_it_opens_after_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert is_(breaker, BreakerState.CLOSED)
    fail(breaker, 1)
    assert is_(breaker, BreakerState.OPEN)
    assert not breaker.admits()


def test_a_success_in_between_starts_the_count_anew(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)
    assert is_(breaker, BreakerState.CLOSED)


def test_after_the_cool_down_one_probe_goes_through(breaker: Breaker, clock: Seconds) -> None:
    fail(breaker, 3)
    clock.now += 9.999
    assert not breaker.admits()
    clock.now += 0.001
    assert [breaker.admits() for _ in range(3)] == [True, False, False]
    assert is_(breaker, BreakerState.HALF_OPEN)


def test_a_probe_that_succeeds_closes_it(breaker: Breaker, clock: Seconds) -> None:
    fail(breaker, 3)
    clock.now += 10
    assert breaker.admits()
    breaker.succeeded()
    assert is_(breaker, BreakerState.CLOSED)
    fail(breaker, 2)
    assert is_(breaker, BreakerState.CLOSED)


def test_a_probe_that_fails_opens_it_for_another_cool_down(breaker: Breaker, clock: Seconds) -> None:
    fail(breaker, 3)
    clock.now += 10
    fail(breaker, 1)
    assert is_(breaker, BreakerState.OPEN)
    clock.now += 9
    assert not breaker.admits()
    clock.now += 1
    assert breaker.admits()
    assert breaker.times_opened == 2


def test_a_probe_that_never_tells_blocks_for_one_cool_down_only(breaker: Breaker, clock: Seconds) -> None:
    fail(breaker, 3)
    clock.now += 10
    assert breaker.admits()
    clock.now += 9
    assert not breaker.admits()
    clock.now += 1
    assert breaker.admits()


def test_failures_that_began_before_it_opened_do_not_prolong_it(breaker: Breaker, clock: Seconds) -> None:
    fail(breaker, 3)
    clock.now += 5
    breaker.failed()
    clock.now += 5
    assert breaker.admits()


def test_jitter_lengthens_the_cool_down_by_a_random_share(clock: Seconds) -> None:
    ends = set()
    for seed in range(20):
        breaker = Breaker(threshold=1, cool_down_seconds=10, jitter=0.5, now=clock, rng=random.Random(seed))
        start = clock.now
        fail(breaker, 1)
        while not breaker.admits():
            clock.now += 0.25
        ends.add(clock.now - start)
    assert min(ends) >= 10
    assert max(ends) <= 15.25
    assert len(ends) > 5


@pytest.mark.parametrize("settings", [{"threshold": 0}, {"cool_down_seconds": 0}, {"jitter": -0.1}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a breaker needs"):
        Breaker(**settings)  # type: ignore[arg-type]  # one field at a time


def test_an_open_breaker_closes_without_calls_when_its_server_is_seen_to_answer() -> None:
    breaker = Breaker(threshold=2, now=lambda: 0.0)
    breaker.failed()
    breaker.seen()
    breaker.failed()
    assert breaker.is_open, "what is no call does not end a row of failed calls"
    breaker.seen()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.admits()
