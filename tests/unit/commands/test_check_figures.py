"""The figures of small histories, counted by hand."""

import pytest

from cachesvc.commands.check.history import Fault, Load, Record
from cachesvc.commands.check.judge import judge
from cachesvc.commands.check.judge.figures import quantile
from cachesvc.commands.check.verdicts import Crowd, Figures, Lag, Recovery
from tests.unit.commands.check_histories import KEY, RUN, call, event, read, write


def figures(*records: Record) -> Figures:
    return judge([RUN, *records]).figures


def lag(tier: str, region: str, *lags: int) -> Lag:
    """The lag of one or two writes."""
    return Lag(
        tier=tier,
        region=region,
        writes=len(lags),
        p50=lags[0],
        p99=lags[-1],
        p9999=lags[-1],
        longest=lags[-1],
    )


def test_a_writes_lag_runs_from_its_commit_to_the_start_of_the_last_read_that_missed_it() -> None:
    assert figures(write(1, 10), read(0, 12), read(0, 15), read(1, 16)).lags == (lag("l1", "eu", 5),)


def test_a_read_that_began_with_the_commit_missed_nothing() -> None:
    seen = figures(write(1, 10), read(0, 10))
    assert (seen.lags, seen.stale_reads) == ((), 0)


def test_an_old_value_misses_every_write_since() -> None:
    """Version 0 at 30 misses 1 (committed at 10) by 20 and 2 (committed at 25) by 5."""
    seen = figures(write(1, 10), write(2, 25), read(0, 30), read(1, 20), read(2, 40))
    assert seen.lags == (lag("l1", "eu", 5, 20),)
    assert (seen.stale_reads, seen.longest_stale) == (1, 20)


def test_lags_are_told_apart_by_tier_and_region() -> None:
    stale = [read(0, 12, "us/us-a", tier="l2"), read(0, 13, tier="l2"), read(0, 14, tier="l1")]
    assert figures(write(1, 10), *stale).lags == (lag("l1", "eu", 4), lag("l2", "eu", 3), lag("l2", "us", 2))


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.99, 99), (0.9999, 100), (1.0, 100), (0.0, 1)], ids=str
)
def test_a_quantile_is_the_least_value_that_the_share_does_not_exceed(share: float, expected: int) -> None:
    assert quantile(range(1, 101), share) == expected


def test_a_quantile_of_nothing_is_zero() -> None:
    assert quantile([], 0.99) == 0


def test_reads_writes_and_errors_are_counted() -> None:
    seen = figures(write(1, 1), event(1, 2, 3), read(1, 4, ended=14), read(None, 5, ended=35))
    assert (seen.reads, seen.writes, seen.announcements, seen.errors) == (2, 1, 1, 1)
    assert (seen.read_p50, seen.read_p99) == (10, 30)


def load(started: int, ended: int, key: str = KEY) -> Load:
    return Load(key=key, w=0, started=started, ended=ended)


def test_loads_that_run_together_are_counted_by_key_and_moment() -> None:
    loads = [load(1, 10), load(5, 20), load(9, 12), load(10, 11), load(30, 31), load(2, 40, "other")]
    seen = figures(call(1, 1, 2), event(2, 3, 4), *loads)
    assert seen.crowds == (
        Crowd(key=KEY, loads=5, announcements=2, overlapping=3, most_at_once=3, at=9),
        Crowd(key="other", loads=1, announcements=0, overlapping=0, most_at_once=1, at=2),
    )
    assert (seen.loads, seen.overlapping_loads) == (6, 3)


def test_a_load_that_took_no_time_was_one_all_the_same() -> None:
    assert figures(load(1, 1)).crowds[0].most_at_once == 1


class TestRecovery:
    FAULT = Fault(what="redis killed", started=5, ended=10)

    def test_it_lasts_until_the_last_read_that_failed_or_missed_what_was_there_before(self) -> None:
        reads = [read(None, 12), read(0, 20), read(1, 21), read(1, 30)]
        assert figures(write(1, 9), write(2, 11), self.FAULT, *reads).recoveries == (
            Recovery(what="redis killed", ended=10, took=11, suffered=2),
        )

    def test_a_fault_that_nobody_noticed_took_no_time(self) -> None:
        assert figures(write(1, 9), self.FAULT, read(1, 11)).recoveries[0].took == 0

    def test_reads_after_the_next_fault_are_that_ones(self) -> None:
        following = Fault(what="memcached stopped", started=20, ended=25)
        seen = figures(self.FAULT, following, read(None, 19), read(None, 20), read(None, 26, ended=30))
        assert [(each.took, each.suffered) for each in seen.recoveries] == [(10, 1), (5, 1)]
