"""Every metric there is, in one table: its name, kind, labels, unit and help, and where its number is read at scrape time.

A number lives as a plain attribute of a counters object (`Tally`, `FenceStatistics`, …). A row names the source it is in and the
attribute; `metrics.py` reads it. Where `field` maps label values to attributes, these are the values of the row's last label.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

Kind = Literal["counter", "gauge", "histogram"]


class Metric(Struct, frozen=True):
    name: str
    """Without the `cachesvc_` prefix, the unit and `_total`."""
    kind: Kind
    source: str
    """What it is read from: the name that `Metrics.watch` was given."""
    field: str | Mapping[str, str]
    """The attribute; empty if the source's values are the numbers themselves."""
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    per_unit: float = 1.0
    """What the attribute is divided by to be in `unit`."""


_TIER_FIELDS = {"hit": "hits", "stale": "stale", "miss": "misses", "refused": "refused", "error": "errors"}

TABLE: tuple[Metric, ...] = (
    # HTTP
    Metric(
        "requests", "counter", "requests", "", "Requests answered.", ("namespace", "operation", "outcome")
    ),
    Metric(
        "batch_keys",
        "counter",
        "batch_keys",
        "",
        "Keys of batches, by outcome.",
        ("namespace", "operation", "outcome"),
    ),
    Metric(
        "request_duration",
        "histogram",
        "latency",
        "",
        "From the parsed request to its reply.",
        ("operation",),
        "seconds",
    ),
    Metric(
        "requests_in_progress", "gauge", "overload", "in_progress", "Requests that wait for something now."
    ),
    Metric(
        "requests_shed",
        "counter",
        "overload",
        "shed",
        "Requests refused because of overload (503 overloaded).",
    ),
    # this instance
    Metric("build_info", "gauge", "build", "", "1, for what is running.", ("version", "python")),
    Metric("ready", "gauge", "ready", "", "1 while /readyz says yes, else 0."),
    Metric("topology_version", "gauge", "topology", "version", "Of the topology that it works under."),
    Metric(
        "max_lag",
        "gauge",
        "namespaces",
        "max_lag",
        "Its contract: the staleness bound to obey.",
        ("namespace",),
        "seconds",
        1e6,
    ),
    Metric(
        "metric_exports_failed", "counter", "otlp", "failed", "Exports of metrics that no OTLP receiver took."
    ),
    # tiers and paths
    Metric(
        "lookups",
        "counter",
        "tiers",
        _TIER_FIELDS,
        "Look-ups of a tier, by what it had.",
        ("tier", "outcome"),
    ),
    Metric("flights", "counter", "paths", "flights", "Flights started: look-ups beyond L1 that reads share."),
    Metric(
        "flights_joined", "counter", "paths", "joined", "Reads that joined a flight instead of starting one."
    ),
    Metric(
        "loads",
        "counter",
        "paths",
        {"ok": "loads_ok", "failed": "loads_failed"},
        "Loads ended.",
        ("outcome",),
    ),
    Metric("loads_begun", "counter", "paths", "loads", "Loads asked of an origin."),
    Metric(
        "leases_granted",
        "counter",
        "paths",
        "leases_granted",
        "Leases handed to callers, or used for loads here.",
    ),
    Metric("lease_waits", "counter", "paths", "lease_waits", "Flights that waited for another's lease."),
    Metric("fills", "counter", "paths", "fills", "Fills offered to L3."),
    Metric(
        "fills_refused", "counter", "paths", "fills_refused", "Fills that L3 refused: their lease was voided."
    ),
    Metric("early_refreshes", "counter", "paths", "early_refreshes", "Refreshes before expiry (XFetch)."),
    Metric(
        "reads_again",
        "counter",
        "paths",
        "reads_again",
        "Reads that looked again because a fence came in between.",
    ),
    Metric(
        "stale_on_error", "counter", "paths", "stale_on_error", "Stale answers because the origin failed."
    ),
    Metric(
        "stale_age",
        "histogram",
        "stale_ages",
        "",
        "Past its freshness, of stale answers.",
        ("namespace",),
        "seconds",
    ),
    Metric(
        "hot_key_share",
        "gauge",
        "hot_keys",
        "share",
        "Of its reads, those of the key read most, at least.",
        ("namespace",),
    ),
    Metric(
        "largest_value",
        "gauge",
        "hot_keys",
        "largest",
        "The largest value seen of late.",
        ("namespace",),
        "bytes",
    ),
    # origins
    Metric(
        "origin_load_duration",
        "histogram",
        "origins",
        "durations",
        "Loads, failed ones too.",
        ("namespace",),
        "seconds",
    ),
    Metric(
        "origin_running", "gauge", "origins", "running", "Loads that an origin works on now.", ("namespace",)
    ),
    Metric("origin_ceiling", "gauge", "origins", "limit", "The most of them at once.", ("namespace",)),
    Metric(
        "origin_waiting", "gauge", "origins", "waiting", "Loads that wait for their turn.", ("namespace",)
    ),
    Metric(
        "origin_refused", "counter", "origins", "refused", "Loads that got no turn in time.", ("namespace",)
    ),
    # L1 and the memcached servers
    Metric("l1_items", "gauge", "l1", "items", "Entries in L1."),
    Metric("l1_size", "gauge", "l1", "bytes", "Values, keys and overhead in L1.", (), "bytes"),
    Metric("l1_budget", "gauge", "l1", "budget", "What bounds them.", (), "bytes"),
    Metric("l1_evictions", "counter", "l1", "evictions", "Entries dropped for room."),
    Metric("l1_expired", "counter", "l1", "expired", "Entries dropped after their last use was over."),
    Metric("l1_rejected", "counter", "l1", "rejected", "Entries too large for L1."),
    Metric(
        "l1_evicted_age",
        "gauge",
        "l1",
        "evicted_age_us",
        "Age of the entry evicted last.",
        (),
        "seconds",
        1e6,
    ),
    Metric(
        "l1_eviction_age",
        "histogram",
        "l1_eviction_ages",
        "",
        "Age at eviction, of one in sixteen.",
        (),
        "seconds",
    ),
    Metric("l1_namespace_items", "gauge", "l1_namespaces", "items", "Entries in L1.", ("namespace",)),
    Metric(
        "l1_namespace_size",
        "gauge",
        "l1_namespaces",
        "bytes",
        "Values, keys and overhead in L1.",
        ("namespace",),
        "bytes",
    ),
    Metric(
        "l1_namespace_evictions",
        "counter",
        "l1_namespaces",
        "evictions",
        "Entries dropped for room.",
        ("namespace",),
    ),
    Metric(
        "server_keys",
        "counter",
        "servers",
        {"hit": "hits", "miss": "misses", "error": "errors"},
        "Keys asked of a memcached server.",
        ("server", "outcome"),
    ),
    Metric(
        "server_dropped",
        "counter",
        "servers",
        "dropped",
        "Entries too large, or past their use, for a memcached server.",
        ("server",),
    ),
    Metric(
        "server_failed_writes",
        "counter",
        "servers",
        "failed_writes",
        "Entries and deletes that a memcached server did not take.",
        ("server",),
    ),
    Metric(
        "server_items",
        "gauge",
        "server_stats",
        "items",
        "Entries on a memcached server, as it says.",
        ("server",),
    ),
    Metric("server_size", "gauge", "server_stats", "bytes", "What they take there.", ("server",), "bytes"),
    Metric("server_limit", "gauge", "server_stats", "limit", "What bounds them.", ("server",), "bytes"),
    Metric(
        "server_evictions",
        "counter",
        "server_stats",
        "evictions",
        "Entries it dropped for room.",
        ("server",),
    ),
    Metric(
        "breaker_open",
        "gauge",
        "breakers",
        "is_open",
        "1 while a memcached server is left alone.",
        ("server",),
    ),
    Metric("polls_failed", "counter", "polls", "failed", "Times one did not say how full it is.", ("kind",)),
    # coherence
    Metric("fences_merged", "counter", "fences", "merged", "Fences merged, from feeds and own."),
    Metric("fences_own", "counter", "fences", "own", "Fences that this instance issued."),
    Metric(
        "fences_clamped",
        "counter",
        "fences",
        "clamped",
        "Times from the future that were cut back: look at the clocks.",
    ),
    Metric(
        "fences_unapplied", "gauge", "fences", "unapplied", "Fences that their home cell has not applied yet."
    ),
    Metric("fences_paced", "gauge", "fences", "paced", "Targets of paced purges that are remembered."),
    Metric(
        "staleness_bound",
        "gauge",
        "fences",
        "bound_us",
        "How stale a copy may be at most.",
        (),
        "seconds",
        1e6,
    ),
    Metric(
        "sketch_false_refusal",
        "gauge",
        "fences",
        "estimate",
        "Share of old entries refused by collision.",
        (),
        "ratio",
    ),
    Metric(
        "floor_raises",
        "counter",
        "fences",
        "floor_raises",
        "Times the floor rose: nothing older is answered any more.",
    ),
    Metric(
        "change_lag",
        "histogram",
        "lags",
        "",
        "How far behind a change a stage was done.",
        ("stage",),
        "seconds",
    ),
    # feeds and subscribers
    Metric(
        "feed_bound",
        "gauge",
        "feeds",
        "",
        "How far a region's feed is behind at most.",
        ("region",),
        "seconds",
        1e6,
    ),
    Metric("feed_fences", "counter", "feed", "fences", "Fences read from the streams."),
    Metric(
        "feed_gaps",
        "counter",
        "feed",
        "gaps",
        "Gaps: items lost before they were read; each raises the floor.",
    ),
    Metric("feed_failures", "counter", "feed", "failures", "Failed exchanges with a queue, reading fences."),
    Metric("fence_subscribers", "gauge", "broadcast", "subscribers", "Subscribers of /v1/fences."),
    Metric(
        "fence_subscribers_lost",
        "counter",
        "broadcast",
        "lost",
        "Subscribers cut off because they were too slow.",
    ),
    # consumer
    Metric(
        "changes_applied", "counter", "consumer", "changes", "Changes this instance applied as a consumer."
    ),
    Metric(
        "changes_redone",
        "counter",
        "consumer",
        "redone",
        "Of these, begun by an invalidate call that did not finish.",
    ),
    Metric(
        "changes_parked",
        "counter",
        "consumer",
        "parked",
        "Times a change was parked: a home cell was out of reach.",
    ),
    Metric("changes_skipped", "counter", "consumer", "skipped", "Events that say nothing changed."),
    Metric(
        "changes_buried",
        "counter",
        "consumer",
        "dead_letters",
        "Events that are out of rule, now on `changes:dead`.",
    ),
    Metric(
        "changes_epochs",
        "counter",
        "consumer",
        "epochs",
        "Times the stream of changes was a new one: all was fenced.",
    ),
    Metric("changes_backlog", "gauge", "consumer", "backlog", "Changes of the region accepted and not done."),
    Metric("changes_waiting", "gauge", "consumer", "waiting", "Changes of the region parked."),
    Metric("changes_dead", "gauge", "consumer", "buried", "Events on the region's dead-letter stream."),
    Metric(
        "consumer_failures",
        "counter",
        "consumer",
        "failures",
        "Failed exchanges with the region's queue, consuming.",
    ),
    # cells
    Metric("cell_exchanges", "counter", "cells", "exchanges", "Script calls to a cell.", ("cell",)),
    Metric("cell_failures", "counter", "cells", "failures", "Exchanges and connects that failed.", ("cell",)),
    Metric(
        "cell_clock_offset",
        "gauge",
        "cells",
        "clock_offset_us",
        "Its clock less ours.",
        ("cell",),
        "seconds",
        1e6,
    ),
    Metric("cell_memory", "gauge", "cell_memory", "used", "What a cell's Redis holds.", ("cell",), "bytes"),
    Metric(
        "cell_memory_limit",
        "gauge",
        "cell_memory",
        "limit",
        "Its maxmemory, if it has one.",
        ("cell",),
        "bytes",
    ),
    # exchanges with memcached servers and cells
    Metric(
        "batches",
        "counter",
        "batchers",
        "batches",
        "Batches sent to a server or cell.",
        ("server", "operation"),
    ),
    Metric("batch_items", "counter", "batchers", "items", "Items in them.", ("server", "operation")),
    Metric(
        "batch_refused",
        "counter",
        "batchers",
        "refused",
        "Items not taken: the queue was full.",
        ("server", "operation"),
    ),
    Metric(
        "batch_waiting",
        "gauge",
        "batchers",
        "waiting",
        "Items waiting for the next batch.",
        ("server", "operation"),
    ),
    Metric(
        "batch_in_flight",
        "gauge",
        "batchers",
        "in_flight",
        "Batches sent and not answered.",
        ("server", "operation"),
    ),
    Metric("batch_size", "histogram", "batch_sizes", "", "Items of a batch.", ("server", "operation")),
    Metric(
        "exchange_duration",
        "histogram",
        "exchanges",
        "",
        "One exchange with a server.",
        ("server", "operation"),
        "seconds",
    ),
    # traces
    Metric("spans_exported", "counter", "spans", "exported", "Spans that the OTLP receiver took."),
    Metric(
        "spans_dropped",
        "counter",
        "spans",
        "dropped",
        "Spans it did not take, or for which there was no room.",
    ),
)
