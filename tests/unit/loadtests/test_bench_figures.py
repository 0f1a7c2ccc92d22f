"""The arithmetic behind the benchmark table, and what it refuses to call a number."""

import json

import pytest

from loadtests.bench.drivers import answers_per_second
from loadtests.bench.figures import BenchError, Goal, Result, Sample, percentile
from loadtests.bench.report import Failed, result_line


def row(*pairs: tuple[float, float], goal: Goal | None = None) -> Result:
    return Result(
        "row",
        "requests/s",
        goal or Goal(0.85),
        tuple((Sample(ours), Sample(theirs)) for ours, theirs in pairs),
    )


def test_the_ratio_is_the_median_of_the_pairs_ratios_and_not_the_ratio_of_the_medians() -> None:
    slow_spell = row((90, 100), (9, 10), (80, 100), (100, 50), (8, 10))
    assert slow_spell.ratio == pytest.approx(0.9)
    assert slow_spell.ours / slow_spell.theirs == pytest.approx(1.6)


def test_a_rate_must_reach_and_a_cost_must_not_exceed() -> None:
    assert [row((85, 100)).ok, row((84, 100)).ok] == [True, False]
    cost = Goal(1.5, at_most=True)
    assert [row((15, 10), goal=cost).ok, row((16, 10), goal=cost).ok] == [True, False]
    assert [str(Goal(0.85)), str(cost)] == ["≥ 0.85", "≤ 1.5"]


def test_json_rows_have_the_fields_that_the_issue_names() -> None:
    written = json.loads(json.dumps(row((90, 100), (80, 100), (85, 100)).as_json()))
    named = {name: written[name] for name in ("name", "ours", "theirs", "ratio", "reach", "ok")}
    assert named == {"name": "row", "ours": 85, "theirs": 100, "ratio": 0.85, "reach": 0.85, "ok": True}


def test_a_comparison_without_a_number_is_not_ok_and_says_why() -> None:
    failed = Failed("l2_get", "l2 was to answer")
    assert failed.as_json()["ok"] is False
    assert result_line(failed) == "l2_get             NO NUMBER: l2 was to answer"


@pytest.mark.parametrize(
    ("sample", "bound", "contended"),
    [
        (Sample(1.0, process_share=0.99, server_busy=1.0, load_busy=1.0), False, False),
        (Sample(1.0, process_share=0.7, server_busy=0.7, load_busy=1.0), True, False),
        (Sample(1.0, process_share=0.6, server_busy=1.0, load_busy=0.5), False, True),
        (Sample(1.0), False, False),
    ],
)
def test_a_row_says_when_the_load_or_other_processes_held_a_side_back(
    sample: Sample, bound: bool, contended: bool
) -> None:
    disturbed = Result("row", "", Goal(1), ((sample, Sample(1.0)),))
    assert (disturbed.load_bound, disturbed.contended) == (bound, contended)


def test_the_ratio_per_cpu_second_holds_when_others_take_half_of_one_sides_core() -> None:
    pair = (Sample(45, process_share=0.5), Sample(100, process_share=1.0))
    halved = Result("row", "", Goal(0.85), (pair,), cpu_bound=True)
    assert (halved.ratio, halved.ratio_per_cpu) == (0.45, 0.9)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)])
def test_percentile_is_the_nearest_rank(share: float, value: int) -> None:
    assert percentile(list(range(1, 101)), share) == value


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


def summary(**changed: int) -> str:
    told = {
        "requests": 1000,
        "microseconds": 2_000_000,
        "bytes": 700_000,
        "socket_errors": 0,
        "not_2xx": 0,
    } | changed
    return f"Running 2s test\nBENCH {json.dumps(told)}\n"


def test_wrks_rate_is_answers_over_the_time_it_measured() -> None:
    assert answers_per_second(summary(), least_body=512) == 500


@pytest.mark.parametrize(
    "changed", [{"not_2xx": 1}, {"socket_errors": 1}, {"requests": 0}, {"bytes": 511_999}]
)
def test_wrks_rate_is_refused_when_an_answer_failed_or_bytes_are_missing(changed: dict[str, int]) -> None:
    with pytest.raises(BenchError):
        answers_per_second(summary(**changed), least_body=512)
