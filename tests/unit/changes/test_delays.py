"""How long changes take, by the ids that the queues gave."""

from cachesvc.changes.delays import ChangeLags
from cachesvc.model.clock import SECONDS
from tests.doubles.clocks import ManualClock


def test_a_change_is_published_after_the_time_between_two_ids_of_its_queue() -> None:
    lags = ChangeLags()
    lags.note_published(["1700000000000-3", "1700000001500-0"], "1700000002000-1")
    assert (sum(lags.published.buckets), lags.published.total) == (2, 2.5)


def test_what_was_not_published_is_no_lag() -> None:
    lags = ChangeLags()
    lags.note_published(["1700000000000-3"], "")
    assert sum(lags.published.buckets) == 0


def test_a_queue_whose_clock_is_ahead_makes_no_negative_lag() -> None:
    lags, now = ChangeLags(), ManualClock().now_us()
    lags.note_merged([now - 2 * SECONDS, now + SECONDS], now)
    assert (sum(lags.merged.buckets), lags.merged.total) == (2, 2.0)
