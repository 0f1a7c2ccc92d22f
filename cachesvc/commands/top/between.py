"""All instances between two looks at them: sums and rates over those that answered."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from cachesvc.commands.top.interval import Buckets, Interval, together
from cachesvc.commands.top.scrape import Scrape, Silence

Look = Mapping[str, Scrape | Silence]
"""By instance."""


class Between:
    """Whoever was silent in one of the two has no rates; a number that no instance knows is None."""

    def __init__(self, before: Look, after: Look) -> None:
        self._before = before
        self._after = after
        self.scrapes = {name: found for name, found in after.items() if isinstance(found, Scrape)}
        self.intervals = {
            name: interval
            for name, found in self.scrapes.items()
            if (interval := _interval(before.get(name), found))
        }

    def __repr__(self) -> str:
        return f"<Between [{len(self.scrapes)} answered, {len(self.intervals)} of them twice]>"

    def alone(self, instance: str) -> "Between":
        """The same of one instance."""
        return Between(_only(instance, self._before), _only(instance, self._after))

    def names(self, metric: str, label: str) -> list[str]:
        """All values of a label."""
        return sorted({name for scrape in self.scrapes.values() for name in scrape.metrics.by(metric, label)})

    def sum(self, metric: str, **wanted: str) -> float | None:
        return _over(sum, self.values(metric, **wanted).values())

    def most(self, metric: str, **wanted: str) -> float | None:
        """Of what each instance says of one and the same thing."""
        return _over(max, self.values(metric, **wanted).values())

    def values(self, metric: str, **wanted: str) -> dict[str, float]:
        """By instance."""
        found = {name: scrape.metrics.value(metric, **wanted) for name, scrape in self.scrapes.items()}
        return {name: value for name, value in found.items() if value is not None}

    def rate(self, metric: str, **wanted: str) -> float | None:
        return _over(sum, self.rates_at(metric, **wanted).values())

    def most_rate(self, metric: str, **wanted: str) -> float | None:
        return _over(max, self.rates_at(metric, **wanted).values())

    def rates_at(self, metric: str, **wanted: str) -> dict[str, float]:
        """By instance."""
        found = {name: interval.rate(metric, **wanted) for name, interval in self.intervals.items()}
        return {name: rate for name, rate in found.items() if rate is not None}

    def rates(self, metric: str, label: str, **wanted: str) -> dict[str, float]:
        """By the values of a label."""
        found: defaultdict[str, float] = defaultdict(float)
        for interval in self.intervals.values():
            for value, rate in interval.rates(metric, label, **wanted).items():
                found[value] += rate
        return dict(found)

    def buckets(self, metric: str, **wanted: str) -> Buckets:
        return together(interval.buckets(metric, **wanted) for interval in self.intervals.values())


def _only(instance: str, look: Look) -> Look:
    return {name: found for name, found in look.items() if name == instance}


def _interval(before: Scrape | Silence | None, after: Scrape) -> Interval | None:
    if not isinstance(before, Scrape) or after.at <= before.at:
        return None
    return Interval(before.metrics, after.metrics, after.at - before.at)


def _over(choose: Callable[[Iterable[float]], float], found: Iterable[float]) -> float | None:
    found = list(found)
    return choose(found) if found else None
