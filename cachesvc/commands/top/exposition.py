"""One scrape of one instance, as numbers by name and labels."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

Labels = Mapping[str, str]


class Exposition(Struct, frozen=True):
    """The numbers of one scrape. Names lack the prefix `cachesvc_`, as in the metrics table.

    A name without a series gives no number, which is not 0.
    """

    samples: Mapping[str, Sequence[tuple[Labels, float]]]

    @classmethod
    def parse(cls, text: str) -> "Exposition":
        """Parses Prometheus text. Raises `ValueError`."""
        found: defaultdict[str, list[tuple[Labels, float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name.removeprefix("cachesvc_")].append((sample.labels, sample.value))
        return cls(dict(found))

    def matching(self, name: str, wanted: Labels) -> Iterator[tuple[Labels, float]]:
        """Yields labels and value of each series with the wanted labels."""
        for labels, value in self.samples.get(name, ()):
            if wanted.items() <= labels.items():
                yield labels, value

    def value(self, name: str, **wanted: str) -> float | None:
        """The sum of the matching series; None if there is none."""
        found = [value for _, value in self.matching(name, wanted)]
        return sum(found) if found else None

    def by(self, name: str, label: str, **wanted: str) -> dict[str, float]:
        """The sums of the matching series by the values of a label."""
        found: defaultdict[str, float] = defaultdict(float)
        for labels, value in self.matching(name, wanted):
            found[labels.get(label, "")] += value
        return dict(found)
