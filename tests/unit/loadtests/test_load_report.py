"""The report that people read at the end of a run, and while the run goes on."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from loadtests.load.judge import judge
from loadtests.load.judge_rows import Mark, OriginRow, Sample, ServerRow, Story
from loadtests.load.progress import Progress, broken_at, line, phase
from loadtests.load.report import Outcome, keep, print_outcome, print_summary, write_index
from loadtests.load.report_words import shown
from loadtests.load.runner_sampling import metrics_of
from loadtests.load.thresholds import Limit
from loadtests.scenarios import SCENARIOS

STORY = Story(
    "lost_cell",
    60.0,
    [
        Sample(100.0 + n, requests=200, failures=2, by_tier={"l1": 150, "origin": 50}, p50_ms=2, p99_ms=40)
        for n in range(30)
    ],
    [ServerRow(99.5 + n, OriginRow(loads=40 * n)) for n in range(32)],
    [Mark("cell-eu-1 stopped", 120.0)],
    {"quiet": (110.0, 120.0), "lost": (121.0, 140.0)},
)
LIMITS = {"lost": {"failed_share": Limit(at_most=0.001), "hit_share": Limit(at_least=0.5)}}
FIGURES = {"lost": {"failed_share": 0.01, "hit_share": 0.75, "p99_ms": 40.0}}


def outcome(folder: Path, **more: str) -> Outcome:
    folder.mkdir(exist_ok=True)
    return Outcome(SCENARIOS["lost_cell"], folder, FIGURES, judge(LIMITS, FIGURES), **more)


def printed(what: Outcome) -> str:
    out = Console(file=io.StringIO(), width=160)
    print_outcome(out, what)
    print_summary(out, [what])
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_a_missed_limit_is_told_with_its_size_and_the_place_to_look(tmp_path: Path) -> None:
    text = printed(outcome(tmp_path / "lost_cell"))
    assert "lost_cell: 1 of 2 MISSED" in text
    assert "lost: failed_share is 1 %, allowed ≤ 0.1 %, 10.0 times that" in text
    assert "Look at locust_failures.csv" in text


def test_the_summary_has_a_row_with_figures_and_verdict(tmp_path: Path) -> None:
    row = printed(outcome(tmp_path / "lost_cell")).splitlines()[-1].split()
    assert row[:2] == ["lost_cell", "lost"]
    assert row[-4:] == ["1", "of", "2", "MISSED"]


def test_a_scenario_that_did_not_run_is_not_ok_whatever_was_measured(tmp_path: Path) -> None:
    kept = Outcome(SCENARIOS["lost_cell"], tmp_path, FIGURES, [], failure="no load: locust ended at once")
    assert not kept.ok
    assert "NOT RUN" in printed(kept)
    assert "it could not run to its end: no load: locust ended at once" in printed(kept)


def test_a_load_generator_without_cpu_is_remarked(tmp_path: Path) -> None:
    busy = Outcome(SCENARIOS["steady"], tmp_path, {"steady": {"driver_cpu": 0.97}}, [])
    assert "the load generator itself was busy in steady" in printed(busy)


def test_what_is_kept_is_a_verdict_for_machines_a_picture_and_a_page(tmp_path: Path) -> None:
    folder = tmp_path / "lost_cell"
    keep(outcome(folder), STORY)
    verdict = json.loads((folder / "verdict.json").read_text())
    assert (verdict["ok"], verdict["figures"]) == (False, FIGURES)
    assert len(verdict["missed"]) == 1
    assert json.loads((folder / "marks.json").read_text()) == [
        {"what": "cell-eu-1 stopped", "began": 120.0, "ended": None}
    ]
    page = (folder / "plot.html").read_text()
    assert (folder / "plot.svg").read_text() in page
    assert "missed" in page


def test_the_page_of_all_shows_the_latest_run_of_each_that_was_run(tmp_path: Path) -> None:
    keep(outcome(tmp_path / "lost_cell"), STORY)
    page = write_index(tmp_path, SCENARIOS).read_text()
    assert 'src="lost_cell/plot.svg"' in page
    assert "steady/plot.svg" not in page


@pytest.mark.parametrize(
    ("figure", "value", "text"),
    [
        ("failed_share", 0.0, "0 %"),
        ("failed_share", 0.00001, "<0.01 %"),
        ("hit_share", 0.99996, "99.99 %"),
        ("hit_share", 1.0, "100 %"),
        ("p99_ms", 1234.5, "1,234 ms"),
        ("too_stale", 0, "0"),
        ("origin_loads_per_s", None, "–"),
    ],
)
def test_figures_are_read_with_their_units(figure: str, value: float | None, text: str) -> None:
    assert shown(figure, value) == text


def test_progress_says_where_the_run_is_what_it_does_and_what_is_broken() -> None:
    assert phase(STORY) == "lost"
    assert broken_at(STORY, 118) == ""
    assert line(STORY) == (
        "lost_cell: 30 of 60 s (lost): req/s 200, failed 1 %, p50 2 ms, p99 40 ms, hits 75 %, stale 0 %, origin loads/s 40;"
        " cell-eu-1 stopped"
    )


def test_on_a_terminal_progress_is_a_table_of_the_last_seconds() -> None:
    out = Console(file=io.StringIO(), force_terminal=True, width=120)
    with Progress(lambda: STORY, out) as progress:
        progress.show()
    assert isinstance(out.file, io.StringIO)
    assert "origin loads/s" in out.file.getvalue()
    assert "cell-eu-1 stopped" in out.file.getvalue()


def test_in_a_log_progress_is_a_line_now_and_then() -> None:
    out = Console(file=io.StringIO(), width=80)
    with Progress(lambda: STORY, out) as progress:
        progress.show()
        progress.show()
    assert isinstance(out.file, io.StringIO)
    assert len(out.file.getvalue().splitlines()) == 1


def test_metrics_without_labels_are_taken_from_an_exposition() -> None:
    text = b'# HELP cachesvc_loads x\ncachesvc_loads_begun_total 7.0\ncachesvc_lookups_total{tier="l1"} 3.0\npython_info 1.0\n'
    assert metrics_of(text) == {"loads_begun_total": 7.0}
