"""The picture of a run: well formed whatever was recorded, everything in its place, and nothing joined over a gap."""

from xml.etree import ElementTree

import pytest

from loadtests.load.judge_rows import Mark, OriginRow, Sample, ServerRow, Story
from loadtests.load.plot import svg_of
from loadtests.load.plot_axes import Scale, log_reaching, reaching, round_step
from loadtests.load.plot_columns import Point, answered, origin_loads, requests, stale

SVG = "{http://www.w3.org/2000/svg}"


def story(*samples: Sample, servers: list[ServerRow] | None = None, marks: list[Mark] | None = None) -> Story:
    return Story("lost_<cell>", 10.0, list(samples), servers or [], marks or [], {"quiet": (100.0, 104.0)})


def second(t: float, *, stale: int = 0) -> Sample:
    tiers = {"l1": 80, "l2": 0, "origin": 20}
    return Sample(
        t, requests=100, failures=5, by_tier=tiers, stale=stale, p50_ms=1.0, p95_ms=5.0, p99_ms=20.0
    )


def texts(svg: str) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314  our own picture


def test_a_picture_names_its_axes_units_lines_faults_and_stretches() -> None:
    marks = [Mark("cell-eu-1 stopped", 102.0, 104.0)]
    servers = [ServerRow(100.0, OriginRow(0)), ServerRow(101.0, OriginRow(30))]
    shown = texts(svg_of(story(*(second(100 + n) for n in range(6)), servers=servers, marks=marks)))
    heads = [
        "Latency ms, log scale",
        "Requests per second",
        "Who answered % of reads",
        "Origin loads per second",
    ]
    for text in [
        "lost_<cell>",
        *heads,
        "seconds of load",
        "p50",
        "p99",
        "failed",
        "L1",
        "loads",
        "cell-eu-1 stopped",
        "quiet",
    ]:
        assert text in shown


def test_a_run_without_a_sample_is_a_picture_that_says_so() -> None:
    assert "Nothing was recorded." in texts(svg_of(story()))


def test_a_run_of_failures_only_can_be_drawn() -> None:
    assert "failed" in texts(
        svg_of(story(Sample(100, requests=9, failures=9), Sample(101, requests=9, failures=9)))
    )


def test_a_fault_that_is_still_on_reaches_to_the_end() -> None:
    svg = ElementTree.fromstring(svg_of(story(second(100), second(101), marks=[Mark("lost", 101.0)])))  # noqa: S314  our own
    (shade,) = [rect for rect in svg.iter(f"{SVG}rect") if "shade" in rect.get("class", "")]
    assert float(shade.get("x", 0)) + float(shade.get("width", 0)) == pytest.approx(850)


def test_labels_of_faults_that_would_cover_each_other_get_lanes_of_their_own() -> None:
    marks = [
        Mark("eu-a restarts", 100.0, 100.5),
        Mark("eu-b restarts", 100.6, 101.0),
        Mark("us-a restarts", 109.0, 109.5),
    ]
    svg = ElementTree.fromstring(svg_of(story(*(second(100 + n) for n in range(12)), marks=marks)))  # noqa: S314  our own
    lanes = {
        "".join(text.itertext()): text.get("y")
        for text in svg.iter(f"{SVG}text")
        if "fault" in text.get("class", "")
    }
    assert lanes["eu-a restarts"] == lanes["us-a restarts"] != lanes["eu-b restarts"]


def test_a_gap_is_not_joined() -> None:
    svg = ElementTree.fromstring(svg_of(story(second(100), second(101), second(110))))  # noqa: S314  our own picture
    curve = next(path for path in svg.iter(f"{SVG}path") if path.get("class") == "line p50")
    assert [word[0] for word in curve.get("d", "").split()] == ["M", "L", "M"]


def test_shares_are_of_everything_that_was_read_and_tiers_that_never_answered_are_left_out() -> None:
    assert [(line.name, line.points) for line in answered(story(second(100)))] == [
        ("L1", [Point(0.5, 80.0)]),
        ("origin", [Point(0.5, 20.0)]),
    ]
    assert stale(story(second(100))) == []
    assert stale(story(second(100), second(101, stale=3)))[0].points == [Point(0.5, 0.0), Point(1.5, 3.0)]


def test_loads_are_a_rate_between_two_counts_even_over_a_missing_one() -> None:
    servers = [ServerRow(100.0, OriginRow(10)), ServerRow(101.0), ServerRow(102.0, OriginRow(50))]
    (line,) = origin_loads(story(second(100), servers=servers))
    assert line.points == [Point(2.0, 20.0)]


def test_failed_requests_are_not_answered_ones() -> None:
    good, bad = requests(story(second(100)))
    assert (good.points, bad.points) == ([Point(0.5, 95)], [Point(0.5, 5)])


def test_scales_end_at_round_values() -> None:
    assert reaching(187, 0, 100).high == 200
    assert (log_reaching(1.4, 230, 0, 100).low, log_reaching(1.4, 230, 0, 100).high) == (1.0, 1000.0)
    assert log_reaching(0, 0.001, 100, 0).ticks(4) == [0.01, 0.1, 1.0]
    assert [round_step(span, 4) for span in (4, 9, 17, 100)] == [1, 5, 5, 50]


def test_what_is_outside_lands_on_the_edge() -> None:
    assert [Scale(0, 10, 0, 100).place(value) for value in (-5, 5, 50)] == [0, 50, 100]
    assert [Scale(1, 100, 0, 100, is_log=True).place(value) for value in (0, 10, 1000)] == [0, 50, 100]
