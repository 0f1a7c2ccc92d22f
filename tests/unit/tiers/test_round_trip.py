"""The estimate of the way to a server, by which time limits follow what the server shows."""

import pytest

from cachesvc.tiers.round_trip import RoundTrip


def of(*samples: float, at_most: float = 1.0) -> RoundTrip:
    way = RoundTrip(at_most)
    for sample in samples:
        way.saw(sample)
    return way


def test_a_server_that_showed_nothing_has_no_time_for_the_way() -> None:
    assert (of().seconds, of().way_seconds, of().way_of(3)) == (0, 0, 0)


def test_the_first_sample_is_the_mean_and_half_of_it_the_jitter() -> None:
    """RFC 6298, 2.2."""
    way = of(0.1)
    assert (way.seconds, way.jitter_seconds) == (0.1, 0.05)
    assert way.way_seconds == pytest.approx(3 * 0.1 + 4 * 0.05)


def test_a_later_sample_moves_the_mean_by_an_eighth_and_the_jitter_by_a_quarter() -> None:
    """RFC 6298, 2.3: the deviation is that from the mean before the sample."""
    way = of(0.1, 0.18)
    assert way.seconds == pytest.approx(0.11)
    assert way.jitter_seconds == pytest.approx(0.75 * 0.05 + 0.25 * 0.08)


@pytest.mark.parametrize("round_trip", [0.0002, 0.005, 0.04, 0.08, 0.2])
def test_a_steady_way_has_time_for_a_packet_that_is_lost(round_trip: float) -> None:
    """TCP sends it again after a round trip and 200 ms: two round trips, far away."""
    assert of(*[round_trip] * 50).way_seconds == pytest.approx(3 * round_trip, rel=0.01)


def test_a_further_round_trip_of_an_exchange_adds_only_itself() -> None:
    way = of(*[0.1] * 50)
    assert way.way_of(4) == pytest.approx(way.way_seconds + 0.3)


def test_a_way_that_becomes_longer_is_followed_by_the_first_answer() -> None:
    """Exchanges time out at first; the greeting of the next connection is a sample."""
    way = of(*[0.02] * 50, 0.3)
    assert way.way_seconds > 0.3


def test_what_a_slow_server_shows_is_bounded() -> None:
    way = of(*[30.0] * 50)
    assert (way.seconds, way.way_seconds) == (1.0, 1.0)
    assert of(*[30.0] * 50, *[0.001] * 50).way_seconds < 0.05
    assert of(0.1, at_most=0).way_seconds == 0
