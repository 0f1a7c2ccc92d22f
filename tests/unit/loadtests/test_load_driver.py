"""When a run is refused a verdict, because it shows the load generator and not the service."""

import pytest

from loadtests.load.judge_driver import doubt_of
from loadtests.scenarios import SCENARIOS

FAIR = {"driver_cpu": 0.6, "late_p99_ms": 20.0, "starved_share": 0.0, "instance_cpu": 0.98}


def doubt(**overload: float) -> str:
    return doubt_of(SCENARIOS["overload"], {"saturation": FAIR, "overload": {**FAIR, **overload}})


def test_an_instance_without_time_and_a_generator_with_room_are_judged() -> None:
    assert doubt() == ""


@pytest.mark.parametrize(
    ("figure", "value", "told"),
    [
        ("driver_cpu", 0.97, "in overload the load generator used 97 % of a core"),
        ("late_p99_ms", 400.0, "in overload requests began 400 ms late"),
        ("starved_share", 0.2, "in overload 20 % of the requests waited for a user of the load generator"),
        ("instance_cpu", 0.4, "in overload the instance used only 40 % of its core"),
    ],
)
def test_what_else_was_slow_is_told(figure: str, value: float, told: str) -> None:
    assert doubt(**{figure: value}) == told


def test_scenarios_that_are_not_about_a_limit_are_judged_by_their_thresholds_alone() -> None:
    assert doubt_of(SCENARIOS["steady"], {"steady": {"driver_cpu": 1.0}}) == ""
