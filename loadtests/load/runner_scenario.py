"""Runs one scenario on its stage: the legs in order, the faults at their moments.

It also gives the story of all that has happened.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from cachesvc.app.embedded.server_process import ServerProcess, ServerStartError
from loadtests.load.arrivals import Times
from loadtests.load.faults import Fault, Neighbour
from loadtests.load.judge_figures import figures_of
from loadtests.load.judge_rows import Mark, NeighbourRow, Sample, ServerRow, Story, read_rows
from loadtests.load.runner_locust import MORE_SECONDS, locust_process
from loadtests.load.runner_stage import Stage
from loadtests.scenarios.scenario import At, Leg, Scenario

GRACE_SECONDS = 15.0
"""The time that locust gets after its run time to end and to write its reports."""
TICK_SECONDS = 0.5


class LoadError(Exception):
    """A scenario could not run to its end, so nothing can be said about the service."""


class Shown(Protocol):
    """Something that shows progress."""

    def show(self) -> None:
        """Called about twice a second."""
        ...


@dataclass(frozen=True)
class Step:
    """Something to do at a moment of a leg."""

    at: float
    """Seconds since the first second of the leg's load."""
    do: Callable[[], None]


class Run:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario, stage: Stage) -> None:
        self.scenario = scenario
        self.stage = stage
        self._stretches: dict[str, tuple[float, float]] = {}
        self._broken: dict[int, tuple[Fault, Mark | None]] = {}
        """The faults that are on now, in the order in which they began."""

    def story(self) -> Story:
        """All that is known so far. May be called from any thread."""
        folder, legs = self.stage.folder, self.scenario.legs
        samples = [row for leg in legs for row in read_rows(folder / leg.name / "samples.jsonl", Sample)]
        servers = read_rows(folder / "servers.jsonl", ServerRow)
        return Story(
            self.scenario.name,
            self.scenario.seconds,
            samples,
            servers,
            list(self.stage.marks),
            dict(self._stretches),
            read_rows(folder / "neighbour.jsonl", NeighbourRow),
        )

    def figures(self) -> dict[str, dict[str, float]]:
        """The figures of the stretches that have begun: stretch → figure → value."""
        story = self.story()
        return {
            name: figures_of(story.samples, story.servers, *times, story.neighbours)
            for name, times in story.stretches.items()
        }

    def play(self, shown: Shown) -> None:
        """Runs all legs.

        Raises `LoadError` if a leg cannot run to its end, and `ServerStartError` if a server does not
        come back after a fault.
        """
        for leg in self.scenario.legs:
            folder = self.stage.folder / leg.name
            locust = locust_process(leg, self._rate(leg.name, leg.rate), self.stage, folder)
            try:
                _start(locust)
                self._play(leg, locust, read_rows(folder / "samples.jsonl", Sample)[0].t, shown)
            finally:
                locust.stop()
                # Only if the leg was cut short: a storm would go on after its stage is gone.
                for fault, _ in list(self._broken.values()):
                    self._end(fault)

    def _play(self, leg: Leg, locust: ServerProcess, began: float, shown: Shown) -> None:
        self._stretches |= {each.name: (began + each.begins, began + each.ends) for each in leg.stretches}
        for step in sorted(
            (step for at in self._faults(leg) for step in self._steps(at)), key=lambda step: step.at
        ):
            _wait(began + step.at, locust, shown)
            step.do()
        _wait(began + leg.seconds + MORE_SECONDS + GRACE_SECONDS, locust, shown)
        if locust.exit_code != 0:
            raise LoadError(
                f"{leg.name}: locust did not end well (exit {locust.exit_code}): {locust.log_tail()}"
            )

    def _faults(self, leg: Leg) -> Iterator[At]:
        """Yields the leg's faults, with numbers for rates that depend on a measurement."""
        for at in leg.faults:
            fault = at.fault
            if isinstance(fault, Neighbour):
                fault = replace(fault, rate=self._rate(fault.what, fault.rate))
            yield replace(at, fault=fault)

    def _steps(self, at: At) -> Iterator[Step]:
        yield Step(at.begins, partial(self._begin, at.fault))
        yield Step(at.ends, partial(self._end, at.fault))

    def _begin(self, fault: Fault) -> None:
        self._broken[id(fault)] = (fault, self.stage.mark(fault.what) if fault.what else None)
        fault.begin(self.stage)

    def _end(self, fault: Fault) -> None:
        _, mark = self._broken.pop(id(fault))
        fault.end(self.stage)
        if mark is not None:
            mark.ended = time.time()

    def _rate(self, whose: str, rate: float | Times) -> float:
        if not isinstance(rate, Times):
            return rate
        measured = self.figures().get(rate.stretch, {}).get("goodput")
        if not measured:
            raise LoadError(
                f"{whose}: nothing was answered in {rate.stretch}, which its rate is a multiple of"
            )
        return rate.factor * measured


def _start(locust: ServerProcess) -> None:
    try:
        locust.start()
    except ServerStartError as error:
        raise LoadError(f"no load: {error}") from error


def _wait(until: float, locust: ServerProcess, shown: Shown) -> None:
    """Waits until the time `until`, or until locust has ended."""
    while locust.is_running and (left := until - time.time()) > 0:
        time.sleep(min(left, TICK_SECONDS))
        shown.show()
