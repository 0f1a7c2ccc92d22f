"""Distributions: which bucket, and what adds up."""

from cachesvc.telemetry.metrics.histogram import AGES, DURATIONS, LAGS, SIZES, Histogram


def test_an_observation_counts_in_the_first_bucket_whose_bound_it_does_not_exceed() -> None:
    found = Histogram.of((1.0, 2.0))
    for value in (0, 1.0, 1.5, 2.0, 3.0):
        found.observe(value)
    assert (found.buckets, found.total) == ([2, 2, 1], 7.5)
    assert found.cumulative() == [2, 4, 5]


def test_bounds_rise() -> None:
    for bounds in (DURATIONS, LAGS, AGES, SIZES):
        assert list(bounds) == sorted(set(bounds))
