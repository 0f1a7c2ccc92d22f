"""Figures of a stretch, limits, and what is said when one is missed."""

from pathlib import Path

import pytest

from loadtests.load.judge import judge
from loadtests.load.judge_figures import figures_of
from loadtests.load.judge_rows import NeighbourRow, OriginRow, Route, Sample, ServerRow, read_rows
from loadtests.load.thresholds import Limit, ThresholdError, read_thresholds


def second(t: float, **seen: object) -> Sample:
    return Sample(t, **{"requests": 100, "by_tier": {"l1": 90, "origin": 10}, **seen})  # type: ignore[arg-type]  # by field


def asked(t: float, loads: int, *, keys: int = 10, peak: int = 1) -> ServerRow:
    return ServerRow(t, OriginRow(loads=loads, keys=keys, peak=peak))


def test_a_second_belongs_to_a_stretch_if_it_lies_wholly_in_it() -> None:
    rows = [second(t, requests=t) for t in range(10)]
    assert figures_of(rows, [], 2.5, 6)["rate"] == (3 + 4 + 5) / 3


def test_shares_are_of_all_reads_of_the_stretch_and_failed_keys_are_none() -> None:
    rows = [
        second(0, by_tier={"l1": 6, "l2": 2, "error": 5}, stale=1),
        second(1, by_tier={"l3": 1, "miss": 1}),
    ]
    figures = figures_of(rows, [], 0, 2)
    assert (figures["l1_share"], figures["l2_share"], figures["l3_share"], figures["hit_share"]) == (
        0.6,
        0.2,
        0.1,
        0.9,
    )
    assert figures["stale_share"] == 0.1


def test_one_noisy_second_moves_the_worst_percentile_only() -> None:
    rows = [second(t, p99_ms=900.0 if t == 3 else 10.0) for t in range(9)]
    figures = figures_of(rows, [], 0, 9)
    assert (figures["p99_ms"], figures["worst_p99_ms"]) == (10.0, 900.0)


def test_loads_are_what_the_origin_counted_in_the_stretch() -> None:
    servers = [
        asked(0.2, 10),
        asked(1.2, 20),
        ServerRow(2.2),
        asked(4.2, 60, keys=30, peak=7),
        asked(5.2, 900),
    ]
    figures = figures_of([second(1), second(2)], servers, 1, 5)
    assert figures["origin_loads"] == 40
    assert figures["origin_loads_per_s"] == pytest.approx(40 / 3)
    assert figures["origin_loads_per_read"] == pytest.approx(40 / 3 / 100)
    assert (figures["origin_loads_per_key"], figures["origin_peak"]) == (2, 7)


def test_calls_of_the_sdk_are_told_apart() -> None:
    routes = {"SDK lookup": Route(40, 1, 2.5), "GET /v1/{ns}/{key}": Route(60, 30)}
    figures = figures_of([second(0, failures=31, by_route=routes)], [], 0, 1)
    assert (figures["sdk_failed_share"], figures["sdk_p50_ms"], figures["failed_share"]) == (
        1 / 40,
        2.5,
        0.31,
    )


def test_reads_and_writes_are_told_apart() -> None:
    routes = {
        "SDK lookup": Route(40, 1),
        "GET /v1/{ns}/{key}": Route(60, 4),
        "POST /v1/{ns}:get": Route(25, 0),
        "POST /v1/invalidations": Route(10, 5),
    }
    figures = figures_of([second(0, by_route=routes)], [], 0, 1)
    assert (figures["reads_failed_share"], figures["writes_failed_share"]) == (5 / 125, 0.5)
    assert "writes_failed_share" not in figures_of([second(0)], [], 0, 1)


def test_what_was_not_recorded_is_left_out_and_not_nought() -> None:
    assert figures_of([], [], 0, 10) == {}
    assert "p99_ms" not in figures_of([second(0)], [], 0, 1)


@pytest.mark.parametrize(
    ("limit", "value", "ok"),
    [
        (Limit(at_most=0.1), 0.1, True),
        (Limit(at_most=0.1), 0.11, False),
        (Limit(at_least=0.9), 0.89, False),
        (Limit(at_most_times=2, of="quiet", plus=5), 25, True),
        (Limit(at_most_times=2, of="quiet", plus=5), 25.1, False),
        (Limit(at_least_times=0.5, of="quiet"), 4.9, False),
        (Limit(at_most_times=0, of="quiet", plus=3), 2.0, True),
    ],
)
def test_a_limit_is_a_number_or_a_multiple_of_another_stretch(limit: Limit, value: float, ok: bool) -> None:
    (finding,) = judge({"lost": {"p99_ms": limit}}, {"quiet": {"p99_ms": 10.0}, "lost": {"p99_ms": value}})
    assert finding.ok is ok


def test_a_figure_that_was_not_recorded_is_a_miss() -> None:
    (finding,) = judge({"lost": {"p99_ms": Limit(at_most=10)}}, {"lost": {}})
    assert not finding.ok
    assert "nothing was recorded" in finding.reason()


def test_nothing_to_compare_with_is_a_miss() -> None:
    (finding,) = judge({"lost": {"p99_ms": Limit(at_most_times=2, of="quiet")}}, {"lost": {"p99_ms": 1.0}})
    assert not finding.ok


def test_the_reason_says_what_by_how_much_and_where_to_look() -> None:
    limit = Limit(at_most_times=2, of="quiet", plus=5, why="l2.timeout is 100 ms")
    (finding,) = judge({"lost": {"p99_ms": limit}}, {"quiet": {"p99_ms": 10.0}, "lost": {"p99_ms": 75.0}})
    assert finding.reason() == (
        "lost: p99_ms is 75 ms, allowed ≤ 25 ms (2 × quiet + 5 ms), 3.0 times that: median of the seconds' p99, ms"
        " (l2.timeout is 100 ms). Look at plot.html, then locust.html (which route) and the instances' logs in fleet/"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steady: {steady: {p99_ms: {at_most: 1, at_least: 2}}}", "give one of"),
        ("steady: {steady: {p99_ms: {}}}", "give one of"),
        ("steady: {steady: {p99: {at_most: 1}}}", "no such figure"),
        ("steady: {calm: {p99_ms: {at_most: 1}}}", "no stretch 'calm'"),
        ("steady: {steady: {p99_ms: {at_most_times: 2}}}", "`of` names the stretch"),
        ("steady: {steady: {p99_ms: {at_most_times: 2, of: quiet}}}", "no stretch 'quiet'"),
        ("steady: {steady: {p99_ms: {at_most: 2, plus: 1}}}", "`plus` belongs"),
        ("steady: {steady: {p99_ms: {atmost: 2}}}", "atmost"),
        ("steady: {}", "no limits"),
        ("steady: {steady: {p99_ms: {at_most: 1}}}\ncalm: {}", "no such scenario"),
        ("steady: [", "thresholds.yaml"),
    ],
)
def test_a_mistake_in_the_thresholds_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "thresholds.yaml"
    path.write_text(text)
    with pytest.raises(ThresholdError, match=told):
        read_thresholds(path, {"steady": ["steady"]})


def test_a_line_that_is_being_written_is_not_read_yet(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    assert read_rows(path, Sample) == []
    path.write_text('{"t": 1, "requests": 5, "something": "new"}\n{"t": 2, "requ')
    assert read_rows(path, Sample) == [Sample(1, requests=5)]


def test_the_figures_of_a_noisy_neighbour_have_names_of_their_own() -> None:
    noise = [
        NeighbourRow(1, "noisy", due=60, skipped=10, by_answer={"200": 10, "503 overloaded": 30}),
        NeighbourRow(2, "noisy", due=40, by_answer={"200": 10}),
        NeighbourRow(9, "noisy", due=900),
    ]
    servers = [
        ServerRow(1.5, OriginRow(loads=50, by_namespace={"noisy": 40})),
        ServerRow(3.5, OriginRow(loads=500, by_namespace={"noisy": 120})),
    ]
    figures = figures_of([second(1), second(2)], servers, 1, 4, noise)
    assert (figures["noise_rate"], figures["noise_skipped_share"]) == (45, 0.1)
    assert (figures["noise_refused_share"], figures["noise_loads_per_s"]) == (0.6, 40)
    assert figures["rate"] == 100, "the neighbour's requests are not the callers'"
    assert not figures_of([second(1)], servers, 1, 4).keys() & {"noise_rate", "noise_loads_per_s"}


def test_points_below_another_stretch_are_named_as_such() -> None:
    limit = Limit(at_least_times=1, of="alone", plus=-0.02)
    (kept,) = judge({"scan": {"l1_share": limit}}, {"alone": {"l1_share": 1.0}, "scan": {"l1_share": 0.985}})
    (lost,) = judge({"scan": {"l1_share": limit}}, {"alone": {"l1_share": 1.0}, "scan": {"l1_share": 0.97}})
    assert kept.ok
    assert not lost.ok
    assert lost.allowed == "≥ 98 % (1 × alone - 2 %)"
