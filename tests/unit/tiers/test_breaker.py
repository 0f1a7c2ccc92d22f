"""The breaker: when it opens, whom it lets through, and how it closes."""

import random

import pytest

from cachesvc.config.service import Breakers
from cachesvc.model.errors import TierError, TierTimeoutError, TierUnavailableError
from cachesvc.model.units import Duration
from cachesvc.tiers.breaker import Breaker, BreakerPool, BreakerState, is_outage, is_refused

SETTINGS = Breakers(failures=3, first_probe=Duration.parse("10s"), longest_probe=Duration.parse("30s"))


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
    return Breaker(SETTINGS, jitter=0, now=clock)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        assert breaker.admits()
        breaker.failed()


def pause(breaker: Breaker, clock: Seconds) -> float:
    """Seconds until the next call is let through."""
    start = clock.now
    while not breaker.admits():
        clock.now += 0.25
    return clock.now - start


def test_it_opens_after_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert is_(breaker, BreakerState.CLOSED)
    fail(breaker, 1)
    assert is_(breaker, BreakerState.OPEN)
    assert not breaker.admits()
    assert breaker.refused == 1


def test_a_success_in_between_starts_the_row_anew(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)
    assert is_(breaker, BreakerState.CLOSED)


def test_it_opens_when_half_of_the_last_calls_fail_and_no_three_in_a_row(breaker: Breaker) -> None:
    for _ in range(5):
        fail(breaker, 1)
        breaker.succeeded()
    assert is_(breaker, BreakerState.CLOSED)
    fail(breaker, 1)
    assert is_(breaker, BreakerState.OPEN)


def test_a_failure_now_and_then_opens_nothing_and_is_forgotten(breaker: Breaker) -> None:
    for _ in range(50):
        fail(breaker, 1)
        for _ in range(3):
            breaker.succeeded()
    assert is_(breaker, BreakerState.CLOSED)
    assert breaker.is_troubled
    for _ in range(12):
        breaker.succeeded()
    assert not breaker.is_troubled


def test_a_server_that_cannot_be_connected_to_is_left_alone_at_once(breaker: Breaker) -> None:
    breaker.failed(at_once=True)
    assert is_(breaker, BreakerState.OPEN)


def test_after_the_pause_one_probe_goes_through(breaker: Breaker, clock: Seconds) -> None:
    fail(breaker, 3)
    clock.now += 9.999
    assert not breaker.admits()
    clock.now += 0.001
    assert [breaker.admits() for _ in range(3)] == [True, False, False]
    assert is_(breaker, BreakerState.HALF_OPEN)


def test_after_a_probe_that_succeeds_a_growing_share_goes_through(breaker: Breaker, clock: Seconds) -> None:
    fail(breaker, 3)
    clock.now += 10
    assert breaker.admits()
    breaker.succeeded()
    assert is_(breaker, BreakerState.HALF_OPEN)
    assert [breaker.admits() for _ in range(4)] == [False, False, False, True]
    breaker.succeeded()
    assert [breaker.admits() for _ in range(4)] == [False, True, False, True]
    breaker.succeeded()
    assert is_(breaker, BreakerState.CLOSED)
    assert not breaker.is_troubled
    fail(breaker, 2)
    assert is_(breaker, BreakerState.CLOSED)


def test_a_failure_among_the_share_opens_it_again(breaker: Breaker, clock: Seconds) -> None:
    fail(breaker, 3)
    clock.now += 10
    assert breaker.admits()
    breaker.succeeded()
    breaker.failed()
    assert is_(breaker, BreakerState.OPEN)
    assert not breaker.admits()


def test_probes_become_rarer_up_to_the_longest_pause(breaker: Breaker, clock: Seconds) -> None:
    fail(breaker, 3)
    pauses = []
    for _ in range(4):
        pauses.append(pause(breaker, clock))
        breaker.failed()
    assert pauses == [10, 20, 30, 30]
    assert breaker.times_opened == 5


def test_after_it_has_closed_the_first_pause_is_short_again(breaker: Breaker, clock: Seconds) -> None:
    fail(breaker, 3)
    pause(breaker, clock)
    breaker.failed()
    pause(breaker, clock)
    for _ in range(3):
        breaker.succeeded()
    fail(breaker, 3)
    assert pause(breaker, clock) == 10


def test_a_server_that_answers_questions_only_is_left_alone_after_one_call_and_for_longer(
    breaker: Breaker, clock: Seconds
) -> None:
    fail(breaker, 3)
    pauses = []
    for _ in range(3):
        breaker.seen()
        assert breaker.is_troubled, "a success must be told"
        fail(breaker, 1)
        assert breaker.is_open
        pauses.append(pause(breaker, clock))
    assert pauses == [20, 30, 30]
    breaker.seen()
    breaker.succeeded()
    fail(breaker, 2)
    assert not breaker.is_open


def test_a_probe_that_never_tells_blocks_for_one_pause_only(breaker: Breaker, clock: Seconds) -> None:
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


def test_jitter_lengthens_the_pause_by_a_random_share(clock: Seconds) -> None:
    ends = set()
    for seed in range(20):
        breaker = Breaker(SETTINGS, now=clock, rng=random.Random(seed))
        fail(breaker, 3)
        ends.add(pause(breaker, clock))
    assert min(ends) >= 10
    assert max(ends) <= 15.25
    assert len(ends) > 5


def test_an_open_breaker_closes_without_calls_when_its_server_is_seen_to_answer(clock: Seconds) -> None:
    breaker = Breaker(Breakers(failures=2), now=clock)
    breaker.failed()
    breaker.seen()
    breaker.failed()
    assert breaker.is_open, "what is no call does not end a row of failed calls"
    breaker.seen()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.admits()


def test_no_more_than_the_chosen_part_of_a_pool_is_left_alone() -> None:
    pool = BreakerPool(Breakers(failures=1, out_at_most=0.5))
    breakers = [pool.add(f"m{i}") for i in range(5)]
    for breaker in breakers:
        breaker.failed()
    assert [breaker.is_open for breaker in breakers] == [True, True, False, False, False]
    assert [breaker.kept_closed for breaker in breakers] == [0, 0, 1, 1, 1]
    breakers[0].seen()
    breakers[2].failed()
    assert [breaker.is_open for breaker in breakers] == [False, True, True, False, False]


def test_one_server_of_a_small_pool_may_be_left_alone() -> None:
    pool = BreakerPool(Breakers(failures=1, out_at_most=0.1))
    first, second = pool.add("m0"), pool.add("m1")
    first.failed()
    second.failed()
    assert (first.is_open, second.is_open) == (True, False)


def test_a_server_that_is_slower_than_the_others_is_left_alone() -> None:
    pool = BreakerPool(Breakers(failures=3), late_from_seconds=0.05)
    slow, *others = [pool.add(f"m{i}") for i in range(4)]
    for breaker in others:
        breaker.answered(0.001)
    slow.answered(0.06)
    slow.answered(0.049)
    slow.answered(0.06)
    slow.answered(0.06)
    assert not slow.is_open, "in between, it was not late"
    slow.answered(0.06)
    assert slow.is_open


def test_a_server_that_nobody_asks_is_not_called_silent_for_ever() -> None:
    now = 0.0
    breaker = Breaker(Breakers(failures=1), jitter=0, now=lambda: now)
    breaker.failed()
    assert breaker.is_silent
    now = 1.0
    assert breaker.is_silent, "a probe is due, and its failure would say it again"
    assert breaker.admits()
    breaker.failed()
    now = 2.1
    assert breaker.is_silent
    now = 2.3
    assert not breaker.is_silent
    assert breaker.is_open, "the next call is a probe still"
    assert breaker.admits()


def test_where_all_servers_are_slow_none_is_late() -> None:
    pool = BreakerPool(Breakers(failures=3), late_from_seconds=0.05)
    breakers = [pool.add(f"m{i}") for i in range(4)]
    for seconds in [0.02] * 4 + [0.09] * 20:
        for breaker in breakers:
            breaker.answered(seconds)
    assert not any(breaker.is_open for breaker in breakers)


def test_two_servers_do_not_say_which_of_them_is_late() -> None:
    pool = BreakerPool(Breakers(failures=1), late_from_seconds=0.05)
    slow, other = pool.add("m0"), pool.add("m1")
    other.answered(0.001)
    slow.answered(10)
    assert not slow.is_open


def test_an_answer_of_the_server_is_no_outage() -> None:
    assert is_outage(TierTimeoutError("m1", "late"))
    assert is_outage(TierUnavailableError("m1", "reset"))
    assert not is_outage(TierError("m1", "out of memory"))
    assert not is_outage(None)


def test_a_refused_connection_is_found_behind_the_errors_that_it_became() -> None:
    middle, outer = OSError("cannot connect"), TierUnavailableError("m1", "cannot connect")
    middle.__context__, outer.__cause__ = ConnectionRefusedError(), middle
    assert is_refused(outer)
    assert not is_refused(TierUnavailableError("m1", "reset"))
