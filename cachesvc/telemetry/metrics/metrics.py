"""The numbers of the table of metrics, and their text for `/metrics`.

Numbers are read only when somebody asks for them; nothing here runs while requests are served.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from time import perf_counter
from typing import NamedTuple, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from cachesvc.telemetry.metrics.histogram import Histogram
from cachesvc.telemetry.metrics.request_counts import Counts
from cachesvc.telemetry.metrics.table import TABLE, Metric

Source: TypeAlias = Callable[[], object]
"""Returns a counters object; for rows with labels a mapping.

The mapping leads from label values to counters objects, or to the numbers themselves.
"""


TURN_SECONDS = 0.001
"""About the longest time for which writing a scrape keeps the event loop to itself."""

_END = b"# EOF\n"

Sample: TypeAlias = tuple[tuple[str, ...], int | float | Histogram]
"""Label values, and the number or the distribution."""


class Reading(NamedTuple):
    """One row of the table with its numbers of now."""

    row: Metric
    samples: Sequence[Sample]


class Metrics:
    """The counters of the HTTP layer, and the sources of all other metrics.

    There is one per process.
    """

    def __init__(self, table: Iterable[Metric] = TABLE) -> None:
        self.counts = Counts()
        self._table = tuple(table)
        self._sources: dict[str, Source] = {}
        self.watch("requests", lambda: self.counts.requests)
        self.watch("batch_keys", lambda: self.counts.batch_keys)
        self.watch("refusals", lambda: {(kind,): count for kind, count in self.counts.refusals.items()})
        self.watch(
            "latency", lambda: {(operation,): found for operation, found in self.counts.latency.items()}
        )
        self._process = ProcessCollector(registry=None)

    def __repr__(self) -> str:
        return f"<Metrics [{', '.join(self._sources)}; {self.counts!r}]>"

    def watch(self, name: str, source: Source) -> None:
        """Reads the rows of source `name` from what `source()` returns at each scrape.

        Raises `ValueError` if no row of the table has this source, or if it is read already.
        """
        if name in self._sources:
            raise ValueError(f"the source {name!r} has two meanings: name one of them otherwise")
        if not any(row.source == name for row in self._table):
            known = ", ".join(sorted({row.source for row in self._table}))
            raise ValueError(f"no metric is read from {name!r}: the table has {known}")
        self._sources[name] = source

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """The text of all metrics, and its content type.

        The format is OpenMetrics if `accept` asks for it, else the Prometheus text format.

        Writing takes about 10 ms. The event loop runs other tasks in between, because otherwise every
        request would wait for these 10 ms. The library's encoder is called once per metric; the last line
        that it writes for OpenMetrics, `# EOF`, is therefore removed each time and put at the end.
        """
        encode, content_type = choose_encoder(accept)
        parts = []
        began = perf_counter()
        for family in chain(map(_family, self.readings()), self._process.collect()):
            parts.append(encode(_Only(family)))
            if perf_counter() - began >= TURN_SECONDS:
                await asyncio.sleep(0)
                began = perf_counter()
        end = _END if parts[0].endswith(_END) else b""
        return b"".join([part.removesuffix(_END) for part in parts]) + end, content_type

    def readings(self) -> Sequence[Reading]:
        """The numbers of every row of the table whose source is watched."""
        found = {name: source() for name, source in self._sources.items()}
        return [
            Reading(row, tuple(_samples(row, found[row.source])))
            for row in self._table
            if row.source in found
        ]


class _Only(Collector):
    """A collector of one family, as the library's encoder wants it."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterable[Family]:
        """The one family."""
        return (self._family,)


def _family(reading: Reading) -> Family:
    row = reading.row
    name = f"cachesvc_{row.name}"
    if row.kind == "histogram":
        histogram = HistogramMetricFamily(name, row.help, labels=row.labels, unit=row.unit)
        for labels, one in reading.samples:
            if isinstance(one, Histogram):
                limits = (*map(str, one.bounds), "+Inf")
                buckets = [
                    (limit, float(count)) for limit, count in zip(limits, one.cumulative(), strict=True)
                ]
                histogram.add_metric(labels, buckets, one.total)
        return histogram
    kind = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
    family = kind(name, row.help, labels=row.labels, unit=row.unit)
    for labels, value in reading.samples:
        if not isinstance(value, Histogram):
            family.add_metric(labels, value)
    return family


def _samples(row: Metric, found: object) -> Iterable[Sample]:
    """Yields the row's samples. A number that is not known now (None) is left out, not 0."""
    for labels, value in _values(row, found):
        if isinstance(value, Histogram):
            yield labels, value
        elif isinstance(value, bool):
            yield labels, int(value)  # OTLP has no points that are true
        elif isinstance(value, int | float):
            yield labels, value if row.per_unit == 1 else value / row.per_unit


def _values(row: Metric, found: object) -> Iterable[tuple[tuple[str, ...], object]]:
    for labels, one in found.items() if isinstance(found, Mapping) else (((), found),):
        if isinstance(row.field, str):
            yield labels, getattr(one, row.field) if row.field else one
        else:
            for value, field in row.field.items():
                yield (*labels, value), getattr(one, field)
