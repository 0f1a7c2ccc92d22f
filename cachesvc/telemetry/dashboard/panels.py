"""The panels of the dashboard.

First the few panels that answer "is the service well, and if not, where?", then one panel for
every row of the table of metrics.

A panel is PromQL and words. Queries select by `$site` and `$instance`, the target labels of
`config/prometheus`. Queries on recorded series rely on the rules there.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from msgspec import Struct

from cachesvc.telemetry.metrics.table import TABLE, Metric


class Query(Struct, frozen=True):
    """One PromQL query of a panel, and how its series are named."""

    expression: str
    legend: str
    """The name of each series, with label names in `{{ }}`."""


class Panel(Struct, frozen=True):
    """One diagram: its queries, their unit, and what the diagram means."""

    title: str
    queries: tuple[Query, ...]
    unit: str
    """The unit, as Grafana names units."""
    help: str


class Row(Struct, frozen=True):
    """Panels under one title."""

    title: str
    panels: tuple[Panel, ...]


SELECTED = 'site=~"$site", instance=~"$instance"'
_SITE = 'site=~"$site"'
_RATE = "[$__rate_interval]"
_UNITS = {"seconds": "s", "bytes": "bytes", "ratio": "percentunit", "": "short"}
_QUANTILES = ((0.5, "p50"), (0.99, "p99"))

_TITLES: Mapping[str, str] = {
    "requests": "Requests",
    "batch_keys": "Requests",
    "latency": "Requests",
    "overload": "Requests",
    "connections": "Requests",
    "in_flight": "Requests",
    "inspections": "Requests",
    "identities": "Requests",
    "callers": "Requests",
    "build": "Instances",
    "ready": "Instances",
    "workers": "Instances",
    "topology": "Instances",
    "namespaces": "Instances",
    "otlp": "Telemetry itself",
    "spans": "Telemetry itself",
    "polls": "Telemetry itself",
    "refusals": "Requests",
    "tiers": "Tiers and paths",
    "paths": "Tiers and paths",
    "stale_ages": "Tiers and paths",
    "origins": "Origins",
    "l1": "L1",
    "l1_eviction_ages": "L1",
    "l1_namespaces": "L1",
    "hot_keys": "Hot and large keys",
    "spread": "Hot and large keys",
    "beyond_l1": "Namespaces",
    "copies_refused": "Namespaces",
    "reuse": "Namespaces",
    "live_bytes": "Namespaces",
    "ghosts": "Namespaces",
    "servers": "Memcached servers",
    "server_stats": "Memcached servers",
    "zone": "Instances",
    "server_zones": "Memcached servers",
    "cross_zone": "Memcached servers",
    "breakers": "Breakers",
    "fences": "Fences",
    "lags": "Fences",
    "feeds": "Feeds and subscribers",
    "feed": "Feeds and subscribers",
    "broadcast": "Feeds and subscribers",
    "consumer": "Changes",
    "cells": "Cells",
    "cell_memory": "Cells",
    "batchers": "Batches and exchanges",
    "batch_sizes": "Batches and exchanges",
    "exchanges": "Batches and exchanges",
    "settings": "Settings of servers",
    "cdc": "PostgreSQL",
    "cdc_rows": "PostgreSQL",
}
"""Title of the dashboard's row, by source of the metrics.

A source that is not here gets a row of its own, named after the source.
"""

_OVERVIEW = (
    Panel(
        "Budget burn of reads",
        (
            Query(f"site:cachesvc_reads_bad:ratio_rate1h{{{_SITE}}} / 0.001", "{{site}} 1 h"),
            Query(f"site:cachesvc_reads_bad:ratio_rate6h{{{_SITE}}} / 0.001", "{{site}} 6 h"),
        ),
        "short",
        "Reads that failed or took more than 250 ms, as a multiple of the 0.1 % that are allowed."
        " Pages at 14.4 (1 h) and 6 (6 h).",
    ),
    Panel(
        "Budget burn of freshness",
        (
            Query(f"site:cachesvc_merges_late:ratio_rate1h{{{_SITE}}} / 0.001", "{{site}} 1 h"),
            Query(f"site:cachesvc_merges_late:ratio_rate6h{{{_SITE}}} / 0.001", "{{site}} 6 h"),
        ),
        "short",
        "Fences merged more than 1 s after their publication, as a multiple of the 0.1 % that are allowed.",
    ),
    Panel(
        "Firing alerts",
        (
            Query(
                'ALERTS{alertname=~"Cachesvc.*", alertstate="firing"}',
                "{{alertname}} {{site}} {{instance}} {{namespace}}",
            ),
        ),
        "short",
        "Each has its section in docs/operate.md.",
    ),
    Panel(
        "Reads by outcome",
        (
            Query(
                f'sum by (outcome) (rate(cachesvc_requests_total{{operation=~"get|head", {SELECTED}}}{_RATE})'
                f' or rate(cachesvc_batch_keys_total{{operation="get_many", {SELECTED}}}{_RATE}))',
                "{{outcome}}",
            ),
        ),
        "ops",
        "Keys that were read, batches included.",
    ),
    Panel(
        "Hit ratio by tier",
        (Query(f"site_tier:cachesvc_lookups_hit:ratio_rate5m{{{_SITE}}}", "{{site}} {{tier}}"),),
        "percentunit",
        "Share of each tier's look-ups that found a copy.",
    ),
    Panel(
        "Hit ratio by namespace",
        (Query(f"site_namespace:cachesvc_reads_hit:ratio_rate10m{{{_SITE}}}", "{{site}} {{namespace}}"),),
        "percentunit",
        "Share of reads for which neither an origin nor a caller had to load.",
    ),
    Panel(
        "Loads of origins",
        (
            Query(f"sum by (outcome) (rate(cachesvc_loads_total{{{SELECTED}}}{_RATE}))", "{{outcome}}"),
            Query(
                f"sum(rate(cachesvc_flights_joined_total{{{SELECTED}}}{_RATE}))", "spared: joined a flight"
            ),
        ),
        "ops",
        "Loads that reach the origins, and reads that joined a flight instead.",
    ),
    Panel(
        "Origins against their ceilings",
        (
            Query(
                f"sum by (site, namespace) (cachesvc_origin_running{{{SELECTED}}})"
                f" / sum by (site, namespace) (cachesvc_origin_ceiling{{{SELECTED}}})",
                "{{site}} {{namespace}}",
            ),
        ),
        "percentunit",
        "Running loads, as a share of the most that may run at once.",
    ),
    Panel(
        "Staleness bound",
        (
            Query(f"max by (site) (cachesvc_staleness_bound_seconds{{{SELECTED}}})", "{{site}}"),
            Query(f"min(cachesvc_max_lag_seconds{{{SELECTED}}})", "smallest max_lag"),
        ),
        "s",
        "How stale a copy may be at most. Above max_lag, copies are refused.",
    ),
)


def rows(table: Iterable[Metric] = TABLE) -> list[Row]:
    """The overview, then rows that together have a panel for every metric of the table.

    Rows come in the table's order. Metrics whose sources share a title share the row that stands at
    the place of the first of them.
    """
    placed: dict[str, list[Panel]] = {}
    for title, metrics in groupby(table, key=_title):
        placed.setdefault(title, []).extend(map(panel_of, metrics))
    return [Row("Overview", _OVERVIEW), *(Row(title, tuple(panels)) for title, panels in placed.items())]


def panel_of(metric: Metric) -> Panel:
    """The panel of one metric.

    A counter is shown as a rate, a histogram as its p50 and p99, a gauge as it is.
    """
    name = exposed_name(metric)
    unit = "ops" if metric.kind == "counter" else _UNITS[metric.unit]
    return Panel(name, tuple(_queries(metric, name)), unit, metric.help)


def exposed_name(metric: Metric) -> str:
    """The metric's name in `/metrics`; for a histogram without `_bucket`."""
    unit = f"_{metric.unit}" if metric.unit else ""
    return f"cachesvc_{metric.name}{unit}{'_total' if metric.kind == 'counter' else ''}"


def _queries(metric: Metric, name: str) -> Iterator[Query]:
    labels = ", ".join(("site", *metric.labels))
    values = " ".join(f"{{{{{label}}}}}" for label in metric.labels)
    if metric.kind == "gauge":
        yield Query(f"{name}{{{SELECTED}}}", f"{{{{instance}}}} {values}".strip())
    elif metric.kind == "counter":
        yield Query(
            f"sum by ({labels}) (rate({name}{{{SELECTED}}}{_RATE}))", f"{{{{site}}}} {values}".strip()
        )
    else:
        for quantile, word in _QUANTILES:
            buckets = f"sum by (le, {labels}) (rate({name}_bucket{{{SELECTED}}}{_RATE}))"
            yield Query(f"histogram_quantile({quantile}, {buckets})", f"{word} {{{{site}}}} {values}".strip())


def _title(metric: Metric) -> str:
    return _TITLES.get(metric.source, metric.source.replace("_", " ").capitalize())
