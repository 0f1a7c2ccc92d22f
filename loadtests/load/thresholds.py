"""The limits that a run must keep: `thresholds.yaml`, by scenario, stretch and figure.

    lost_memcached:
      lost:                                   # the stretch, as the scenario names it
        p99_ms: {at_most_times: 4, of: quiet, plus: 30, why: "…"}
        failed_share: {at_most: 0.001}

A limit is a number, or a multiple of the same figure in another stretch of the same run. Relative
limits exist because the machines are small and shared, and noise is in both stretches. `why` is
printed when the limit is missed.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
import yaml

from loadtests.load.judge_figures import FIGURES

PATH = Path(__file__).with_name("thresholds.yaml")


class ThresholdError(Exception):
    """A mistake in the thresholds. The message has the place and the mistake."""


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exactly one of the four bounds is given; `of` and `plus` only with a relative bound."""

    at_most: float | None = None
    at_least: float | None = None
    at_most_times: float | None = None
    at_least_times: float | None = None
    of: str = ""
    """The stretch that a relative bound refers to."""
    plus: float = 0.0
    """A constant that is added to a relative bound, in the figure's unit.

    It leaves some room where the other stretch has a value near 0.
    """
    why: str = ""

    @property
    def is_relative(self) -> bool:
        """True if the bound is a multiple of a figure."""
        return self.at_most_times is not None or self.at_least_times is not None

    @property
    def is_upper(self) -> bool:
        """True if the figure must not be above the bound."""
        return self.at_most is not None or self.at_most_times is not None

    def bound(self, other: float) -> float:
        """The number to keep; `other` is the figure in the stretch `of`."""
        if self.is_relative:
            return (self.at_most_times or self.at_least_times or 0.0) * other + self.plus
        return next(value for value in (self.at_most, self.at_least) if value is not None)

    def met_by(self, value: float, bound: float) -> bool:
        """True if `value` keeps the bound."""
        return value <= bound if self.is_upper else value >= bound


Limits = Mapping[str, Mapping[str, Limit]]
"""The limits of one scenario: stretch → figure → limit."""


def read_thresholds(path: Path, stretches: Mapping[str, Iterable[str]]) -> dict[str, Limits]:
    """The limits of every scenario in `stretches`, which has the stretches of each.

    Raises `ThresholdError`.
    """
    try:
        document = msgspec.convert(yaml.safe_load(path.read_text()), dict[str, dict[str, dict[str, Limit]]])
    except (msgspec.ValidationError, yaml.YAMLError) as error:
        raise ThresholdError(f"{path.name}: {error}") from error
    for problem in _problems(document, {name: set(known) for name, known in stretches.items()}):
        raise ThresholdError(f"{path.name}: {problem}")
    return {**document}


def _problems(document: Mapping[str, Limits], stretches: Mapping[str, set[str]]) -> Iterator[str]:
    yield from (
        f"{scenario}: no limits, so nothing would be decided"
        for scenario in stretches
        if not document.get(scenario)
    )
    for scenario, limits in document.items():
        if scenario not in stretches:
            yield f"{scenario}: no such scenario; there are {', '.join(stretches)}"
            continue
        for stretch, figures in limits.items():
            for figure, limit in figures.items():
                yield from (
                    f"{scenario}.{stretch}.{figure}: {wrong}"
                    for wrong in _wrong(stretch, figure, limit, stretches[scenario])
                )


def _wrong(stretch: str, figure: str, limit: Limit, known: set[str]) -> Iterator[str]:
    if stretch not in known:
        yield f"the scenario has no stretch {stretch!r}; it has {', '.join(sorted(known))}"
    if figure not in FIGURES:
        yield f"no such figure; there are {', '.join(FIGURES)}"
    bounds = (limit.at_most, limit.at_least, limit.at_most_times, limit.at_least_times)
    if sum(bound is not None for bound in bounds) != 1:
        yield "give one of at_most, at_least, at_most_times, at_least_times"
    if limit.is_relative != bool(limit.of):
        yield "`of` names the stretch of a relative bound, and of no other"
    elif limit.of and limit.of not in known:
        yield f"of: the scenario has no stretch {limit.of!r}"
    if limit.plus and not limit.is_relative:
        yield "`plus` belongs to a relative bound"
