"""A run's record has exact sums over seconds, routes and workers, and a line per second."""

import json
from pathlib import Path
from typing import Any

import pytest

from loadtests.load.answers import Read, answered_by
from loadtests.load.arrivals import CLOSED, Turn
from loadtests.load.latencies import Latencies, add, keep, percentiles_ms
from loadtests.load.recording import Record, Recorder, from_report, to_report
from loadtests.load.tally import Tally
from loadtests.load.versions import Versions


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def kept(*seconds: float) -> Latencies:
    latencies: Latencies = {}
    for each in seconds:
        keep(latencies, each)
    return latencies


def samples(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def answered(requests: int, seconds: float = 0.001) -> Tally:
    tally = Tally()
    for _ in range(requests):
        tally.request("GET /k", seconds, "", CLOSED)
    return tally


def test_a_latency_is_kept_at_three_digits_and_never_made_smaller() -> None:
    assert kept(0, 0.000999, 0.0012341, 0.123401, 9.99999) == {
        0: 1,
        999: 1,
        1240: 1,
        124_000: 1,
        10_000_000: 1,
    }


def test_a_percentile_is_the_smallest_that_so_many_did_not_exceed() -> None:
    latencies = kept(*(number / 1000 for number in range(1, 101)))
    assert percentiles_ms(latencies, (0.5, 0.99, 0.999, 1.0)) == [50.0, 99.0, 100.0, 100.0]
    assert percentiles_ms({}, (0.5, 1.0)) == [None, None]


def test_percentiles_of_a_sum_are_those_of_all_requests_and_no_means() -> None:
    fast, slow = kept(*[0.001] * 98), kept(0.5, 0.9)
    add(fast, slow)
    assert percentiles_ms(fast, (0.5, 0.98, 0.99, 1.0)) == [1.0, 1.0, 500.0, 900.0]


@pytest.mark.parametrize(
    ("cache_status", "tier"),
    [
        ("cachesvc-l1; hit; ttl=42", ("l1", False)),
        ("cachesvc-l2; hit; ttl=-3, cachesvc-l1; fwd=uri-miss", ("l2", True)),
        ("cachesvc-l3;hit;ttl=9, cachesvc-l2; fwd=miss, cachesvc-l1; fwd=uri-miss", ("l3", False)),
        ("cachesvc-l1; fwd=uri-miss; detail=hit", ("origin", False)),
        ("", ("origin", False)),
    ],
)
def test_the_tier_that_answered_is_the_one_that_says_hit_or_else_the_origin(
    cache_status: str, tier: tuple[str, bool]
) -> None:
    assert answered_by(cache_status) == tier


def test_a_read_is_too_stale_if_a_newer_version_was_invalidated_long_enough_before_it_began() -> None:
    clock = Clock(50.0)
    versions = Versions(max_lag=2.0, longest_read=10.0, clock=clock)
    versions.written("a", 7)
    assert not versions.is_too_stale("a", 6, asked_at=52.0)
    assert versions.is_too_stale("a", 6, asked_at=52.1)
    assert not versions.is_too_stale("a", 7, asked_at=99.0)
    assert not versions.is_too_stale("a", 8, asked_at=99.0), "another process's writer has been here"
    assert not versions.is_too_stale("b", 1, asked_at=99.0)


def test_writes_of_a_key_that_is_written_all_the_time_are_judged_by_the_one_that_counted_then() -> None:
    clock = Clock(0.0)
    versions = Versions(max_lag=2.0, longest_read=10.0, clock=clock)
    for version in range(1, 101):
        clock.now = float(version)
        versions.written("a", version)
    assert not versions.is_too_stale("a", 97, asked_at=100.0)
    assert versions.is_too_stale("a", 96, asked_at=100.0)
    assert not versions.is_too_stale("a", 88, asked_at=91.0), "a read that was slow to be answered"


def test_of_two_writers_that_finish_in_another_order_the_newer_version_counts() -> None:
    clock = Clock(0.0)
    versions = Versions(max_lag=2.0, longest_read=10.0, clock=clock)
    versions.written("a", 3)
    versions.written("a", 2)
    clock.now = 50.0
    versions.written("a", 4)
    assert versions.is_too_stale("a", 2, asked_at=50.0)


def test_figures_tell_of_all_routes_together_and_of_each() -> None:
    tally = Tally()
    tally.request("GET /k", 0.002, "", Turn(0.001))
    tally.request("GET /k", 0.004, "503 overloaded", Turn(0.003, starved=True))
    tally.request("POST :get", 0.1, "", Turn(0.0))
    tally.reads([Read("l1"), Read("l1", is_stale=True), Read("miss")], lag=0.2)
    tally.reads([Read("origin", is_too_stale=True)], lag=None)
    figures = tally.figures()
    assert (figures["requests"], figures["failures"], figures["reasons"]) == (3, 1, {"503 overloaded": 1})
    assert (figures["p50_ms"], figures["max_ms"], figures["late_ms_p99"]) == (4.0, 100.0, 3.0)
    assert figures["by_tier"] == {"near": 0, "l1": 2, "l2": 0, "l3": 0, "origin": 1, "miss": 1, "error": 0}
    assert (figures["stale"], figures["too_stale"], figures["lag_max"], figures["starved"]) == (1, 1, 0.2, 1)
    assert figures["by_route"]["GET /k"]["failures"] == 1
    assert list(figures["by_route"]) == ["GET /k", "POST :get"]


def test_a_second_without_an_answer_has_a_line_that_says_so(tmp_path: Path) -> None:
    record = Record(tmp_path, delay=0)
    record.add({100: answered(2), 102: answered(1)})
    record.write(102.9)
    lines = samples(tmp_path)
    assert [(line["t"], line["requests"], line["p99_ms"], line["lag_max"]) for line in lines] == [
        (100, 2, 1.0, None),
        (101, 0, None, None),
    ]
    record.close({})
    assert [line["t"] for line in samples(tmp_path)] == [100, 101, 102]


def test_parts_of_a_second_that_come_from_several_workers_are_one_line(tmp_path: Path) -> None:
    record = Record(tmp_path, delay=8)
    record.add({100: answered(2)})
    record.write(107.0)
    assert samples(tmp_path) == []
    record.add(from_report(to_report({100: answered(98, seconds=0.5), 101: answered(1)})))
    record.write(109.0)
    (line,) = samples(tmp_path)
    assert (line["t"], line["requests"], line["p50_ms"]) == (100, 100, 500.0)


def test_what_comes_after_its_line_is_in_the_summary_all_the_same(tmp_path: Path) -> None:
    record = Record(tmp_path, delay=0)
    record.add({100: answered(1)})
    record.write(101.0)
    record.add({99: answered(1), 100: answered(3), 101: answered(1)})
    record.close({"users": 4})
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["requests"], summary["came_late"], summary["seconds"], summary["begun"]) == (6, 2, 2, 100)
    assert (summary["requests_per_second"], summary["about"]) == (3.0, {"users": 4})


def test_a_run_in_which_nothing_was_asked_has_a_summary(tmp_path: Path) -> None:
    Record(tmp_path / "deep" / "er", delay=0).close({})
    assert json.loads((tmp_path / "deep" / "er" / "summary.json").read_text())["requests"] == 0


def test_a_request_belongs_to_the_second_in_which_it_ended_and_is_handed_on_once() -> None:
    clock = Clock(99.9)
    recorder = Recorder(clock, cpu=Clock(0.0))
    recorder.request("GET /k", 0.5, "", CLOSED)
    clock.now = 100.0
    recorder.request("GET /k", 0.5, "", CLOSED)
    recorder.failover()
    seconds = recorder.drain()
    assert {at: tally.figures()["requests"] for at, tally in seconds.items()} == {99: 1, 100: 1}
    assert seconds[100].failovers == 1
    assert recorder.drain() == {}


def test_the_drivers_cpu_is_its_share_since_the_last_look_and_of_several_drivers_the_busiest() -> None:
    clock, cpu = Clock(100.0), Clock(3.0)
    recorder = Recorder(clock, cpu)
    clock.now, cpu.now = 102.0, 4.5
    recorder.measure_cpu()
    tally = recorder.drain()[102]
    assert tally.driver_cpu == 0.75
    tally.add(Tally(driver_cpu=0.2))
    assert tally.driver_cpu == 0.75
