"""The form of a scenario: legs of load, faults, and the stretches of time that are judged.

Data only. Times are seconds from the first second of load of their leg. `scaled` makes all of
them shorter or longer together.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from loadtests.load.arrivals import Times
from loadtests.load.faults import Fault


@dataclass(frozen=True)
class At:
    """A fault, and the times of its begin and end."""

    begins: float
    ends: float
    fault: Fault


@dataclass(frozen=True)
class Stretch:
    """A part of a leg that thresholds judge.

    `begins` leaves out the seconds that belong to neither side of a change.
    """

    name: str
    begins: float
    ends: float


@dataclass(frozen=True)
class Leg:
    """One run of locust."""

    name: str
    seconds: float
    stretches: tuple[Stretch, ...]
    faults: tuple[At, ...] = ()
    users: int = 300
    """The number of users.

    In an open loop it must be at least the rate times the longest latency. With fewer users, requests
    begin late, and some fail for that reason.
    """
    rate: float | Times = 300.0
    """Requests per second in an open loop; 0: each user asks again as soon as it is answered."""
    timeout: float = 5.0
    """Seconds that a caller waits."""
    mix: str = "http=6,sdk=3,writer=1"
    keys: str = "zipf:2000:1.1"
    namespace: str = ""
    """The namespace that is read; empty: the scenario's own."""


@dataclass(frozen=True)
class Scenario:
    """One scenario: its load, its faults, and its set-up."""

    name: str
    about: str
    """The purpose, in one line for the table and the plot."""
    legs: tuple[Leg, ...]
    origin: Mapping[str, Any] = field(default_factory=lambda: {"latency": "20ms"})
    """The origin's behaviour at first: fields of `loadtests.origin.Behaviour`."""
    namespace: Mapping[str, Any] = field(default_factory=dict)
    """The namespace under load, without owner and origin.

    The fields are those of `Namespace` in `cachesvc/config/topology.py`.
    """
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further namespaces by name, in the form of `namespace`.

    The origin counts the loads of each by its name.
    """
    stored: Mapping[str, int] = field(default_factory=dict)
    """The number of keys that are written before the load, by namespace: `doc-0` and on."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings of every instance, added to the usual ones: environment variables."""
    bottleneck: str = ""
    """The name of the one instance that gets all requests; empty: all instances get requests.

    This instance runs on a core with L2 and L3, and everything else on another core. So the part that
    reaches its limit is the instance, not the load generator.
    """
    main: str = ""
    """The stretch whose figures stand in the summary; empty: the last stretch."""

    @property
    def shown(self) -> str:
        """The stretch whose figures stand in the summary."""
        return self.main or self.legs[-1].stretches[-1].name

    @property
    def seconds(self) -> float:
        """The duration of all legs together."""
        return sum(leg.seconds for leg in self.legs)

    def stretches(self) -> Iterator[str]:
        """The names of all stretches."""
        return (stretch.name for leg in self.legs for stretch in leg.stretches)

    def scaled(self, factor: float) -> "Scenario":
        """The scenario with all times multiplied by `factor`.

        What the scenario is to show must still be long enough to be seen.
        """
        return replace(self, legs=tuple(_scaled(leg, factor) for leg in self.legs))


def _scaled(leg: Leg, factor: float) -> Leg:
    return replace(
        leg,
        seconds=leg.seconds * factor,
        stretches=tuple(
            replace(each, begins=each.begins * factor, ends=each.ends * factor) for each in leg.stretches
        ),
        faults=tuple(
            replace(each, begins=each.begins * factor, ends=each.ends * factor) for each in leg.faults
        ),
    )
