"""From scrapes to rates and quantiles."""

import random

import pytest

from cachesvc.commands.top import units
from cachesvc.commands.top.between import Between, Look
from cachesvc.commands.top.exposition import Exposition
from cachesvc.commands.top.interval import Interval, quantile, share_of, together
from cachesvc.commands.top.scrape import Ready, Scrape, Silence


def exposition(*lines: str) -> Exposition:
    return Exposition.parse("".join(f"cachesvc_{line}\n" for line in lines))


REQUESTS = 'requests_total{namespace="pages",outcome="%s"} %d'


def test_numbers_are_summed_over_what_is_not_asked_for() -> None:
    found = exposition(REQUESTS % ("hit", 7), REQUESTS % ("miss", 2), "l1_items 3")
    assert found.value("requests_total") == 9
    assert found.value("requests_total", outcome="miss") == 2
    assert found.by("requests_total", "outcome", namespace="pages") == {"hit": 7, "miss": 2}
    assert found.value("requests_total", outcome="loaded") is None
    assert found.value("l1_bytes") is None, "what is not there is not 0"


def test_a_rate_is_what_came_in_between() -> None:
    interval = Interval(
        exposition(REQUESTS % ("hit", 10)), exposition(REQUESTS % ("hit", 30), REQUESTS % ("miss", 4)), 2.0
    )
    assert interval.rate("requests_total") == 12
    assert interval.rates("requests_total", "outcome") == {"hit": 10, "miss": 2}
    assert interval.rate("loads_total") is None


def test_after_a_restart_all_that_was_counted_is_new() -> None:
    interval = Interval(exposition(REQUESTS % ("hit", 1000)), exposition(REQUESTS % ("hit", 6)), 2.0)
    assert interval.rate("requests_total") == 3


def test_a_quantile_is_found_between_the_bounds_of_its_bucket() -> None:
    buckets = {0.1: 10.0, 0.2: 30.0, 0.4: 40.0, float("inf"): 40.0}
    assert quantile(0.25, buckets) == pytest.approx(0.1)
    assert quantile(0.5, buckets) == pytest.approx(0.15)
    assert quantile(1.0, buckets) == pytest.approx(0.4)
    assert quantile(0.5, {}) is None
    assert quantile(0.5, {0.1: 0.0, float("inf"): 0.0}) is None
    assert quantile(0.99, {0.1: 1.0, float("inf"): 9.0}) == 0.1, (
        "beyond the last bound nothing is known but that"
    )


def test_quantiles_are_as_fine_as_the_buckets() -> None:
    dice = random.Random(3)
    seen = sorted(dice.expovariate(20) for _ in range(5000))
    bounds = [0.01 * 2**power for power in range(8)]
    buckets = {bound: float(sum(one <= bound for one in seen)) for bound in bounds} | {float("inf"): 5000.0}
    for share in (0.5, 0.9, 0.99):
        truth, found = seen[int(share * 5000)], quantile(share, buckets)
        bound = next(bound for bound in bounds if bound >= truth)
        assert found is not None
        assert bound / 2 <= found <= bound


def test_histograms_of_several_instances_are_one() -> None:
    lines = ['latency_bucket{le="0.1"} %d', 'latency_bucket{le="+Inf"} %d']
    before = exposition(lines[0] % 1, lines[1] % 1)
    intervals = [Interval(before, exposition(lines[0] % 5, lines[1] % 11), 1.0) for _ in range(2)]
    assert together(interval.buckets("latency") for interval in intervals) == {0.1: 8.0, float("inf"): 20.0}


def test_a_share_of_nothing_is_not_known() -> None:
    assert (share_of(3.0, 1.0), share_of(None, 2.0), share_of(0.0, 0.0), share_of(None, None)) == (
        0.75,
        0.0,
        None,
        None,
    )


def scrape(at: float, *lines: str) -> Scrape:
    return Scrape(at, exposition(*lines), Ready(True))


def test_over_instances_rates_add_up_and_whoever_was_silent_has_none_yet() -> None:
    before: Look = {
        "a": scrape(1, "loads_total 10"),
        "b": Silence("refused"),
        "c": scrape(1, "loads_total 7"),
    }
    after: Look = {
        "a": scrape(3, "loads_total 14", "bound 2"),
        "b": scrape(3, "loads_total 90", "bound 5"),
        "c": Silence("refused"),
    }
    seen = Between(before, after)
    assert seen.rate("loads_total") == 2
    assert (seen.sum("bound"), seen.most("bound"), seen.values("bound")) == (7, 5, {"a": 2, "b": 5})
    assert seen.rate("fills_total") is None
    assert seen.alone("b").sum("loads_total") == 90
    assert seen.alone("b").rate("loads_total") is None
    assert repr(seen) == "<Between [2 answered, 1 of them twice]>"


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (units.seconds(0.00048), "480 µs"),
        (units.seconds(0.0032), "3.2 ms"),
        (units.seconds(1.5), "1.5 s"),
        (units.seconds(720), "12 min"),
        (units.seconds(11_160), "3.1 h"),
        (units.rate(0), "0"),
        (units.rate(0.34), "0.3"),
        (units.rate(12.4), "12"),
        (units.rate(4100), "4.1 k"),
        (units.share(0.9876), "98.8 %"),
        (units.size(1000), "1000 B"),
        (units.size(1536), "1.5 KiB"),
        (units.size(64 << 20), "64 MiB"),
        (units.used(1 << 20, 64 << 20), "1 MiB of 64 MiB"),
        (units.used(1 << 20, None), "1 MiB"),
        (units.count(3.0), "3"),
        (
            units.seconds(None) + units.rate(None) + units.share(None) + units.size(None) + units.count(None),
            "–––––",
        ),
    ],
)
def test_numbers_are_shown_in_a_few_characters(shown: str, text: str) -> None:
    assert shown == text
