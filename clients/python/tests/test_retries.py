"""Retries come only after failures that may pass, and only while there is time.

They are never more than a share of the requests.
"""

import random

import pytest
from cachesvc_client.errors import CacheError
from cachesvc_client.instances.profiles import IN_REGION, LAPTOP, LOW_LATENCY, Profile
from cachesvc_client.instances.retries import Backoff, Retries

BUSY = CacheError("overloaded", status=503, retryable=True)


class Top(random.Random):
    """A source of random numbers that draws the upper end."""

    def random(self) -> float:
        return 1.0


def test_pauses_are_drawn_below_a_bound_that_doubles_up_to_the_longest() -> None:
    backoff = Backoff(Retries(most=9, first_pause=0.1, longest_pause=0.5), Top())
    assert [backoff.pause(BUSY, retry, time_left=9) for retry in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    drawn = [
        Backoff(Retries(first_pause=0.1), random.Random(seed)).pause(BUSY, 0, 9) or 0.0 for seed in range(200)
    ]
    assert min(drawn) < 0.01 < 0.09 < max(drawn), "full jitter: from nothing to the bound"


def test_what_will_not_pass_is_not_retried() -> None:
    assert Backoff(Retries(), Top()).pause(CacheError("bad-key", status=400), 0, time_left=9) is None


def test_no_more_retries_than_the_most() -> None:
    assert Backoff(Retries(most=2), Top()).pause(BUSY, 2, time_left=9) is None


def test_what_the_service_said_is_waited_for_if_there_is_time_and_else_given_up_at_once() -> None:
    asked = CacheError("overloaded", status=503, retryable=True, retry_after=2.0)
    backoff = Backoff(Retries(first_pause=0.1), Top())
    assert backoff.pause(asked, 0, time_left=3) == pytest.approx(2.1)
    assert backoff.pause(asked, 0, time_left=2) is None


def test_in_an_outage_retries_are_a_share_of_the_requests() -> None:
    backoff = Backoff(Retries(share=0.1, reserve=5, most=10), Top())
    for _ in range(1000):
        backoff.begin()
        for retry in range(10):
            backoff.pause(BUSY, retry, time_left=9)
    assert 99 <= backoff.granted <= 106


def test_profiles_are_values_and_refuse_what_could_never_work() -> None:
    assert LOW_LATENCY.timeout < IN_REGION.timeout < LAPTOP.timeout
    assert all(profile.connect_timeout < profile.timeout for profile in (LAPTOP, IN_REGION, LOW_LATENCY))
    with pytest.raises(AttributeError):
        LAPTOP.timeout = 1.0  # type: ignore[misc]  # the mistake in question
    with pytest.raises(ValueError, match="profile: timeout must be longer than 0"):
        Profile(timeout=0, connect_timeout=1)
    with pytest.raises(ValueError, match="max_loads_without_cache must be at least 1"):
        Profile(timeout=1, connect_timeout=1, max_loads_without_cache=0)
    with pytest.raises(ValueError, match="lease_wait must be 0 or more"):
        Profile(timeout=1, connect_timeout=1, lease_wait=-1)
