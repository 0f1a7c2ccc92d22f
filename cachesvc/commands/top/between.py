"""All instances between two looks: sums and rates over the instances that answered."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from cachesvc.commands.top.interval import Buckets, Interval, together
from cachesvc.commands.top.scrape import Scrape, Silence

Look = Mapping[str, Scrape | Silence]
"""The answer of each instance, by its name."""


class Between:
    """Two looks at all instances.

    An instance that did not answer in one of the two has no rates. A number that no instance
    knows is None. Keyword arguments select series by their labels.
    """

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
        """The same for one instance."""
        return Between(_only(instance, self._before), _only(instance, self._after))

    def names(self, metric: str, label: str, **wanted: str) -> list[str]:
        """All values of a metric's label."""
        found = (scrape.metrics.by(metric, label, **wanted) for scrape in self.scrapes.values())
        return sorted({name for names in found for name in names})

    def sum(self, metric: str, **wanted: str) -> float | None:
        """The sum over all instances."""
        return _over(sum, self.values(metric, **wanted).values())

    def most(self, metric: str, **wanted: str) -> float | None:
        """The largest number that an instance gives, for a thing that every instance measures."""
        return _over(max, self.values(metric, **wanted).values())

    def values(self, metric: str, **wanted: str) -> dict[str, float]:
        """The number of each instance that knows it, by its name."""
        found = {name: scrape.metrics.value(metric, **wanted) for name, scrape in self.scrapes.items()}
        return {name: value for name, value in found.items() if value is not None}

    def rate(self, metric: str, **wanted: str) -> float | None:
        """The rate per second of all instances together."""
        return _over(sum, self.rates_at(metric, **wanted).values())

    def most_rate(self, metric: str, **wanted: str) -> float | None:
        """The largest rate per second of an instance."""
        return _over(max, self.rates_at(metric, **wanted).values())

    def rates_at(self, metric: str, **wanted: str) -> dict[str, float]:
        """The rate per second of each instance, by its name."""
        found = {name: interval.rate(metric, **wanted) for name, interval in self.intervals.items()}
        return {name: rate for name, rate in found.items() if rate is not None}

    def rates(self, metric: str, label: str, **wanted: str) -> dict[str, float]:
        """The rates per second of all instances together, by the values of a label."""
        found: defaultdict[str, float] = defaultdict(float)
        for interval in self.intervals.values():
            for value, rate in interval.rates(metric, label, **wanted).items():
                found[value] += rate
        return dict(found)

    def buckets(self, metric: str, **wanted: str) -> Buckets:
        """The buckets of a histogram, of all instances together."""
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
