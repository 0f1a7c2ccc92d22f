"""The scenarios as data: they fit their thresholds, the budget of `make load`, and themselves; and how faults are placed."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cachesvc.config.topology import L1Room
from cachesvc.model.units import Size
from loadtests.load.arrivals import Times
from loadtests.load.faults import Killed, Neighbour, OriginDoes, RollingRestart
from loadtests.load.keys import Part, keys_of
from loadtests.load.runner_stage import SETTINGS, Stage
from loadtests.load.settings import mix_of
from loadtests.load.thresholds import PATH, read_thresholds
from loadtests.origin import ReferenceOrigin
from loadtests.scenarios import SCENARIOS
from loadtests.scenarios.scenario import Scenario

EVERY = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())
START_SECONDS = 12.0
"""Servers, locust and the end of both, for each scenario; and about 4 s for each leg beyond the first."""
ASKED = (
    *("steady", "stampede", "cold_start", "invalidation_storm", "lost_memcached"),
    *("lost_cell", "lost_queue", "slow_origin", "overload", "noisy_neighbour", "rolling_restart"),
)


def test_every_scenario_that_was_asked_for_is_there() -> None:
    assert tuple(SCENARIOS) == ASKED


def test_all_of_them_take_less_than_a_quarter_of_an_hour() -> None:
    legs = sum(len(scenario.legs) for scenario in SCENARIOS.values())
    assert sum(scenario.seconds + START_SECONDS for scenario in SCENARIOS.values()) + 4 * legs < 15 * 60


def test_every_scenario_has_thresholds_for_its_own_stretches() -> None:
    thresholds = read_thresholds(
        PATH, {name: set(scenario.stretches()) for name, scenario in SCENARIOS.items()}
    )
    assert thresholds.keys() == SCENARIOS.keys()


@pytest.mark.parametrize("name", [name for name in ASKED if name not in ("stampede", "cold_start")])
def test_nothing_may_be_too_stale_where_there_are_writers(name: str) -> None:
    limits = read_thresholds(PATH, {name: set(scenario.stretches()) for name, scenario in SCENARIOS.items()})[
        name
    ]
    assert limits[SCENARIOS[name].shown]["too_stale"].at_most == 0


@EVERY
def test_stretches_and_faults_lie_in_their_leg(scenario: Scenario) -> None:
    assert 40 <= scenario.seconds <= 75
    for leg in scenario.legs:
        times = [(each.begins, each.ends) for each in leg.stretches] + [
            (each.begins, each.ends) for each in leg.faults
        ]
        assert all(0 <= begins < ends <= leg.seconds for begins, ends in times)
    assert scenario.shown in scenario.stretches()


@EVERY
def test_the_load_is_one_that_the_generator_takes(scenario: Scenario) -> None:
    for leg in scenario.legs:
        assert mix_of(leg.mix)
        assert next(keys_of(leg.keys, Part(), 1))
        if isinstance(leg.rate, Times):
            assert leg.rate.stretch in scenario.stretches()


@EVERY
def test_the_origin_and_the_namespace_can_be_so(scenario: Scenario) -> None:
    ReferenceOrigin(**scenario.origin)
    for leg in scenario.legs:
        for at in leg.faults:
            if isinstance(at.fault, OriginDoes):
                ReferenceOrigin(**at.fault.behaviour)
                assert at.fault.behaviour.keys() == at.fault.before.keys(), "what is changed is changed back"


def test_a_shorter_run_has_the_same_shape() -> None:
    (leg,) = SCENARIOS["lost_cell"].scaled(0.5).legs
    assert (leg.seconds, leg.faults[0].begins, leg.stretches[0].ends) == (30, 10, 10)
    assert leg.rate == SCENARIOS["lost_cell"].legs[0].rate


class FakeServer:
    """A process that records what was done to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.done: list[str] = []

    def kill(self, number: int) -> None:
        self.done.append(signal.Signals(number).name)

    def start(self) -> None:
        self.done.append("start")

    def restart(self) -> None:
        self.done.append("restart")


class FakePlace:
    namespace = "load"
    folder = Path()

    def __init__(self, *names: str) -> None:
        self.servers = {name: FakeServer(name) for name in names}
        self.told: list[Mapping[str, Any]] = []
        self.marks: list[str] = []

    def server(self, name: str) -> Any:
        return self.servers[name]

    def instances(self) -> Sequence[str]:
        return list(self.servers)

    def urls(self) -> Sequence[str]:
        return []

    def tell_origin(self, behaviour: Mapping[str, Any]) -> None:
        self.told.append(behaviour)

    @contextmanager
    def marked(self, what: str) -> Iterator[None]:
        self.marks.append(what)
        yield


def test_a_killed_server_is_started_again() -> None:
    place, fault = FakePlace("memcached-eu-m1"), Killed("memcached-eu-m1")
    fault.begin(place)
    fault.end(place)
    assert place.servers["memcached-eu-m1"].done == ["SIGKILL", "start"]


def test_an_origin_is_told_and_told_back() -> None:
    place, fault = FakePlace(), OriginDoes("slow", {"latency": "1s"}, {"latency": "0ms"})
    fault.begin(place)
    fault.end(place)
    assert place.told == [{"latency": "1s"}, {"latency": "0ms"}]


def test_a_rolling_restart_takes_the_instances_in_turn_and_marks_each() -> None:
    place = FakePlace("instance-eu-a", "instance-us-a")
    RollingRestart(pause_seconds=0).begin(place)
    assert [server.done for server in place.servers.values()] == [["restart"], ["restart"]]
    assert place.marks == ["eu-a restarts", "us-a restarts"]


def test_every_server_that_is_broken_is_one_of_the_two_regions() -> None:
    document = msgspec.yaml.decode(Path("config/two-regions.yaml").read_bytes())
    pools = [f"memcached-{name}" for region in document["regions"].values() for name in region["pool"]]
    queues = [f"queue-{name}" for name in document["regions"]]
    known = {*pools, *queues, *(f"cell-{name}" for name in document["cells"])}
    faults = [at.fault for scenario in SCENARIOS.values() for leg in scenario.legs for at in leg.faults]
    named = {str(vars(fault)["server"]) for fault in faults if "server" in vars(fault)}
    assert named
    assert named <= known


def noisy() -> list[Neighbour]:
    faults = [at.fault for leg in SCENARIOS["noisy_neighbour"].legs for at in leg.faults]
    return [fault for fault in faults if isinstance(fault, Neighbour)]


def test_the_noisy_neighbour_scans_overloads_and_floods_one_after_the_other() -> None:
    scenario = SCENARIOS["noisy_neighbour"]
    leg = scenario.legs[-1]
    assert [fault.what for fault in noisy()] == ["scan", "overload", "origin flood"]
    times = [(at.begins, at.ends) for at in leg.faults]
    assert all(ended < begins for (_, ended), (begins, _) in pairwise(times))
    for (begins, ends), stretch in zip(times, leg.stretches[1:], strict=True):
        assert begins < stretch.begins < stretch.ends <= ends, "the noise is there for the whole stretch"
    assert leg.stretches[0].ends <= times[0][0], "and before it there is none"
    assert noisy()[1].rate == Times(3, "saturation")


def test_the_noisy_neighbour_scans_ten_times_l1_and_the_other_one_fits_its_room() -> None:
    scenario = SCENARIOS["noisy_neighbour"]
    entry_bytes = 512 + 475
    l1_bytes = Size.parse(SETTINGS["CACHESVC_L1_BUDGET"])
    assert scenario.stored[noisy()[0].namespace] * entry_bytes >= 10 * l1_bytes
    room = msgspec.convert(scenario.namespace["l1"], L1Room, dec_hook=lambda kind, text: kind.parse(text))
    assert scenario.stored["load"] * entry_bytes < room.guaranteed.of(l1_bytes)


def test_the_limits_of_the_noisy_neighbour_are_those_that_were_asked_for() -> None:
    limits = read_thresholds(PATH, {name: set(each.stretches()) for name, each in SCENARIOS.items()})
    for stretch in ("scan", "overload", "flood"):
        kept = limits["noisy_neighbour"][stretch]
        assert {"l1_share", "hit_share", "good_share", "p99_ms", "too_stale"} <= kept.keys()
        assert all(kept[name].of == "alone" for name in ("l1_share", "hit_share", "good_share", "p99_ms"))
        assert (kept["l1_share"].at_least_times, kept["l1_share"].plus) == (1, -0.02)
        assert (kept["good_share"].at_least_times, kept["p99_ms"].at_most_times) == (0.95, 2)
    budget = SCENARIOS["noisy_neighbour"].others["noisy"]["origin_budget"]["loads_per_second"]
    assert limits["noisy_neighbour"]["flood"]["noise_loads_per_s"].at_most == budget * 1.05


def test_the_document_of_a_scenario_with_neighbours_can_be_read(tmp_path: Path) -> None:
    stage = Stage(SCENARIOS["noisy_neighbour"], tmp_path / "run")
    namespaces = stage.fleet.topology.namespaces
    steady, noise = namespaces["load"], namespaces["noisy"]
    assert steady.origin
    assert noise.origin
    assert noise.origin.url == f"{steady.origin.url}?for=noisy"
    assert steady.rates
    assert noise.origin_budget
