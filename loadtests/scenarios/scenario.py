"""What a scenario is: a load in legs, what breaks meanwhile, and the stretches of time that are judged. Data only.

Times are seconds from the first second of load of their leg. `scaled` makes all of them shorter or longer together.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from loadtests.load.faults import Fault


@dataclass(frozen=True)
class At:
    """A fault and when it is there."""

    begins: float
    ends: float
    fault: Fault


@dataclass(frozen=True)
class Stretch:
    """A part of a leg that thresholds speak of. `begins` leaves out what belongs to neither side of a change."""

    name: str
    begins: float
    ends: float


@dataclass(frozen=True)
class Times:
    """A rate that was measured: so many times the goodput of an earlier stretch of the run."""

    factor: float
    stretch: str


@dataclass(frozen=True)
class Leg:
    """One run of locust."""

    name: str
    seconds: float
    stretches: tuple[Stretch, ...]
    faults: tuple[At, ...] = ()
    users: int = 300
    """In an open loop at least the rate times the longest latency, or requests begin late and are failures for that."""
    rate: float | Times = 300.0
    """Requests a second in an open loop; 0: each user asks again as soon as it is answered."""
    timeout: float = 5.0
    """Seconds that a caller waits."""
    mix: str = "http=6,sdk=3,writer=1"
    keys: str = "zipf:2000:1.1"


@dataclass(frozen=True)
class Scenario:
    name: str
    about: str
    """What it shows, in a line for the table and the plot."""
    legs: tuple[Leg, ...]
    origin: Mapping[str, Any] = field(default_factory=lambda: {"latency": "20ms"})
    """How the origin behaves at first: fields of `loadtests.origin.Behaviour`."""
    namespace: Mapping[str, Any] = field(default_factory=dict)
    """Of the namespace under load, beside its owner and origin: fields of `cachesvc.topology.Namespace`."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of every instance, beside the usual: names and values of its environment."""
    bottleneck: str = ""
    """The one instance that is asked, on a core with L2 and L3, and all else on another: what cannot do more is to be the
    instance, and not the load generator. Empty: all are asked, wherever they run."""
    main: str = ""
    """The stretch whose figures stand in the summary; empty: the last one."""

    @property
    def shown(self) -> str:
        return self.main or self.legs[-1].stretches[-1].name

    @property
    def seconds(self) -> float:
        return sum(leg.seconds for leg in self.legs)

    def stretches(self) -> Iterator[str]:
        return (stretch.name for leg in self.legs for stretch in leg.stretches)

    def scaled(self, factor: float) -> "Scenario":
        """All times so much longer; what is to show must be long enough to be seen."""
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
