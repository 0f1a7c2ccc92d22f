"""The table of all metrics: name, kind, labels, unit, help, and where the number is read.

A number is a plain attribute of a counters object (`Tally`, `FenceStatistics`, …). A row names
the source that gives this object, and the attribute; `metrics.py` reads it at scrape time. Where
`field` maps label values to attributes, these are the values of the row's last label.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

Kind = Literal["counter", "gauge", "histogram"]


class Metric(Struct, frozen=True):
    """One row: a metric, and where its number is read."""

    name: str
    """The name without the prefix `cachesvc_`, the unit and `_total`."""
    kind: Kind
    source: str
    """The name under which `Metrics.watch` was given the source."""
    field: str | Mapping[str, str]
    """The attribute; empty if the source's values are the numbers themselves."""
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    per_unit: float = 1.0
    """The number of the attribute's own units in one `unit`, such as 1e6 for µs in seconds."""


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
        "Keys of batch requests, by outcome.",
        ("namespace", "operation", "outcome"),
    ),
    Metric(
        "request_duration",
        "histogram",
        "latency",
        "",
        "Time from the parsed request to its reply.",
        ("operation",),
        "seconds",
    ),
    Metric(
        "requests_in_progress",
        "gauge",
        "overload",
        "in_progress",
        "Requests that wait for another task, tier or origin now.",
    ),
    Metric(
        "requests_shed",
        "counter",
        "overload",
        "shed",
        "Requests refused because of overload (503 overloaded).",
    ),
    Metric("connections", "gauge", "connections", "open", "Connections of callers that are open now."),
    Metric(
        "connections_closed",
        "counter",
        "connections",
        {"idle": "closed_idle", "refused": "refused", "untaken": "untaken"},
        "Connections that a limit ended, by the limit.",
        ("reason",),
    ),
    Metric(
        "bytes_in_flight",
        "gauge",
        "in_flight",
        "held",
        "Bytes of bodies that are on their way now.",
        unit="bytes",
    ),
    Metric(
        "requests_without_room",
        "counter",
        "in_flight",
        "refused",
        "Requests refused: too many bytes were on their way.",
    ),
    Metric(
        "inspections_refused",
        "counter",
        "inspections",
        "refused",
        "Explanations and dry runs refused: too many in a second.",
    ),
    # this instance
    Metric(
        "build_info",
        "gauge",
        "build",
        "",
        "Always 1; the labels name the versions that run.",
        ("version", "python"),
    ),
    Metric("ready", "gauge", "ready", "", "1 while /readyz answers 200, else 0."),
    Metric(
        "topology_version",
        "gauge",
        "topology",
        "version",
        "Version of the topology that the instance works under.",
    ),
    Metric(
        "max_lag",
        "gauge",
        "namespaces",
        "max_lag",
        "The namespace's max_lag: the staleness bound to keep.",
        ("namespace",),
        "seconds",
        1e6,
    ),
    Metric(
        "metric_exports_failed",
        "counter",
        "otlp",
        "failed",
        "Exports of metrics that the OTLP receiver did not accept.",
    ),
    Metric(
        "loop_failures",
        "counter",
        "loops",
        "failures",
        "Failed steps of a background loop; the loop goes on.",
        ("loop",),
    ),
    Metric(
        "loop_troubled",
        "gauge",
        "loops",
        "is_troubled",
        "1 if a background loop has ended, keeps failing, or is stuck.",
        ("loop",),
    ),
    # tiers and paths
    Metric(
        "lookups",
        "counter",
        "tiers",
        _TIER_FIELDS,
        "Look-ups in a tier, by what the tier had.",
        ("tier", "outcome"),
    ),
    Metric(
        "flights",
        "counter",
        "paths",
        "flights",
        "Flights started: look-ups beyond L1 that reads of a key share.",
    ),
    Metric(
        "flights_joined", "counter", "paths", "joined", "Reads that joined a flight instead of starting one."
    ),
    Metric(
        "loads",
        "counter",
        "paths",
        {"ok": "loads_ok", "failed": "loads_failed", "refused": "loads_refused"},
        "Loads that ended at an origin.",
        ("outcome",),
    ),
    Metric(
        "older_forgotten",
        "counter",
        "paths",
        "older_forgotten",
        "Keys invalidated because a newer answer may not be kept.",
    ),
    Metric("loads_begun", "counter", "paths", "loads", "Loads that began at an origin."),
    Metric(
        "leases_granted",
        "counter",
        "paths",
        "leases_granted",
        "Leases granted to callers, or used for this instance's own loads.",
    ),
    Metric(
        "lease_waits",
        "counter",
        "paths",
        "lease_waits",
        "Flights that waited for a lease that another caller held.",
    ),
    Metric(
        "lease_waits_spared",
        "counter",
        "paths",
        "lease_waits_spared",
        "Flights that did not wait: a fill of the key will not come.",
    ),
    Metric(
        "leases_released",
        "counter",
        "paths",
        "leases_released",
        "Leases that callers gave back, or whose fills were refused.",
    ),
    Metric(
        "values_unkept",
        "counter",
        "paths",
        "values_unkept",
        "Loaded values that could not be kept, whoever loaded them.",
    ),
    Metric("fills", "counter", "paths", "fills", "Loaded values that L3 stored."),
    Metric(
        "fills_refused",
        "counter",
        "paths",
        "fills_refused",
        "Loaded values that L3 refused because their lease was voided.",
    ),
    Metric(
        "early_refreshes",
        "counter",
        "paths",
        "early_refreshes",
        "Refreshes that began before the copy expired (XFetch).",
    ),
    Metric(
        "reads_again",
        "counter",
        "paths",
        "reads_again",
        "Reads that looked again because a fence arrived meanwhile.",
    ),
    Metric(
        "stale_on_error",
        "counter",
        "paths",
        "stale_on_error",
        "Stale answers because the origin was late or failed.",
    ),
    Metric(
        "stale_age",
        "histogram",
        "stale_ages",
        "",
        "Time by which stale answers were past their freshness.",
        ("namespace",),
        "seconds",
    ),
    Metric(
        "hot_key_share",
        "gauge",
        "hot_keys",
        "share",
        "Least share of the namespace's reads that its most read key has.",
        ("namespace",),
    ),
    Metric(
        "largest_value",
        "gauge",
        "hot_keys",
        "largest",
        "The largest value seen in the last minute or two.",
        ("namespace",),
        "bytes",
    ),
    # origins
    Metric(
        "origin_load_duration",
        "histogram",
        "origins",
        "durations",
        "Duration of loads, failed ones included.",
        ("namespace",),
        "seconds",
    ),
    Metric(
        "origin_running", "gauge", "origins", "running", "Loads that an origin works on now.", ("namespace",)
    ),
    Metric(
        "origin_ceiling",
        "gauge",
        "origins",
        "limit",
        "The most loads that run at an origin at once.",
        ("namespace",),
    ),
    Metric(
        "origin_waiting",
        "gauge",
        "origins",
        "waiting",
        "Loads that wait for their turn at an origin.",
        ("namespace",),
    ),
    Metric(
        "origin_refused", "counter", "origins", "refused", "Loads that got no turn in time.", ("namespace",)
    ),
    # L1 and the memcached servers
    Metric("l1_items", "gauge", "l1", "items", "Entries in L1."),
    Metric("l1_size", "gauge", "l1", "bytes", "Size of values, keys and overhead in L1.", (), "bytes"),
    Metric("l1_budget", "gauge", "l1", "budget", "The largest size that L1 may have.", (), "bytes"),
    Metric("l1_evictions", "counter", "l1", "evictions", "Entries evicted from L1 to make room."),
    Metric(
        "l1_expired",
        "counter",
        "l1",
        "expired",
        "Entries removed from L1 because no read may use them any more.",
    ),
    Metric("l1_rejected", "counter", "l1", "rejected", "Entries that were too large for L1."),
    Metric(
        "l1_evicted_age",
        "gauge",
        "l1",
        "evicted_age_us",
        "Age of the entry that L1 evicted last.",
        (),
        "seconds",
        1e6,
    ),
    Metric(
        "l1_eviction_age",
        "histogram",
        "l1_eviction_ages",
        "",
        "Age of entries at their eviction from L1, one in sixteen.",
        (),
        "seconds",
    ),
    Metric(
        "l1_namespace_items",
        "gauge",
        "l1_namespaces",
        "items",
        "Entries of the namespace in L1.",
        ("namespace",),
    ),
    Metric(
        "l1_namespace_size",
        "gauge",
        "l1_namespaces",
        "bytes",
        "Size of the namespace's values, keys and overhead in L1.",
        ("namespace",),
        "bytes",
    ),
    Metric(
        "l1_namespace_evictions",
        "counter",
        "l1_namespaces",
        "evictions",
        "Entries of the namespace evicted from L1 for room.",
        ("namespace",),
    ),
    Metric(
        "server_keys",
        "counter",
        "servers",
        {"hit": "hits", "miss": "misses", "error": "errors"},
        "Keys asked of a memcached server, by outcome.",
        ("server", "outcome"),
    ),
    Metric(
        "server_dropped",
        "counter",
        "servers",
        "dropped",
        "Entries too large or too old to be sent to a memcached server.",
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
        "server_damaged",
        "counter",
        "servers",
        "damaged",
        "Copies of a memcached server with a wrong checksum.",
        ("server",),
    ),
    Metric(
        "server_items",
        "gauge",
        "server_stats",
        "items",
        "Entries on a memcached server, as the server reports.",
        ("server",),
    ),
    Metric(
        "server_size",
        "gauge",
        "server_stats",
        "bytes",
        "Size of these entries, as the server reports.",
        ("server",),
        "bytes",
    ),
    Metric(
        "server_limit",
        "gauge",
        "server_stats",
        "limit",
        "The largest size that a memcached server may have.",
        ("server",),
        "bytes",
    ),
    Metric(
        "server_evictions",
        "counter",
        "server_stats",
        "evictions",
        "Entries that a memcached server evicted to make room.",
        ("server",),
    ),
    Metric(
        "breaker_open",
        "gauge",
        "breakers",
        "is_open",
        "1 while the breaker keeps requests from a memcached server.",
        ("server",),
    ),
    Metric(
        "polls_failed",
        "counter",
        "polls",
        "failed",
        "Questions for a server's fullness or clock that got no answer.",
        ("kind",),
    ),
    # coherence
    Metric(
        "fences_merged",
        "counter",
        "fences",
        "merged",
        "Fences merged, from feeds and of this instance's own.",
    ),
    Metric("fences_own", "counter", "fences", "own", "Fences that this instance issued."),
    Metric(
        "fences_clamped",
        "counter",
        "fences",
        "clamped",
        "Fence times in the future that were cut back: check the clocks.",
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
        "The longest time by which an answered copy can be stale.",
        (),
        "seconds",
        1e6,
    ),
    Metric(
        "sketch_false_refusal",
        "gauge",
        "fences",
        "estimate",
        "Estimated share of old entries refused by collision.",
        (),
        "ratio",
    ),
    Metric(
        "floor_raises",
        "counter",
        "fences",
        "floor_raises",
        "Times the floor rose; what is older than the floor is refused.",
    ),
    Metric(
        "change_lag",
        "histogram",
        "lags",
        "",
        "Time that a stage of a change took.",
        ("stage",),
        "seconds",
    ),
    # feeds and subscribers
    Metric(
        "feed_bound",
        "gauge",
        "feeds",
        "",
        "The longest time by which a region's feed can be behind.",
        ("region",),
        "seconds",
        1e6,
    ),
    Metric("feed_fences", "counter", "feed", "fences", "Fences read from the regions' streams."),
    Metric(
        "feed_gaps",
        "counter",
        "feed",
        "gaps",
        "Gaps in feeds: items were lost, so the floor was raised.",
    ),
    Metric(
        "feed_failures", "counter", "feed", "failures", "Failed exchanges with a queue while reading fences."
    ),
    Metric(
        "fence_subscribers",
        "gauge",
        "broadcast",
        "subscribers",
        "Clients that are subscribed to /v1/fences now.",
    ),
    Metric(
        "fence_subscribers_lost",
        "counter",
        "broadcast",
        "lost",
        "Subscribers that were cut off because they read too slowly.",
    ),
    # consumer
    Metric(
        "changes_applied",
        "counter",
        "consumer",
        "changes",
        "Changes that this instance applied as a consumer.",
    ),
    Metric(
        "changes_redone",
        "counter",
        "consumer",
        "redone",
        "Applied changes that an unfinished invalidate call had begun.",
    ),
    Metric(
        "changes_parked",
        "counter",
        "consumer",
        "parked",
        "Times a change was parked because a home cell was out of reach.",
    ),
    Metric("changes_skipped", "counter", "consumer", "skipped", "Events that say that nothing changed."),
    Metric(
        "changes_buried",
        "counter",
        "consumer",
        "dead_letters",
        "Events that break the rules, moved to `changes:dead`.",
    ),
    Metric(
        "changes_epochs",
        "counter",
        "consumer",
        "epochs",
        "Times the stream of changes was a new one: all was fenced.",
    ),
    Metric(
        "changes_backlog",
        "gauge",
        "consumer",
        "backlog",
        "Changes that the region accepted and has not finished.",
    ),
    Metric("changes_waiting", "gauge", "consumer", "waiting", "Changes of the region that are parked now."),
    Metric("changes_dead", "gauge", "consumer", "buried", "Events on the region's dead-letter stream."),
    Metric(
        "consumer_failures",
        "counter",
        "consumer",
        "failures",
        "Failed exchanges with the region's queue while consuming changes.",
    ),
    # cells
    Metric("cell_exchanges", "counter", "cells", "exchanges", "Script calls to a cell.", ("cell",)),
    Metric(
        "cell_failures",
        "counter",
        "cells",
        "failures",
        "Failed exchanges with a cell and failed connects.",
        ("cell",),
    ),
    Metric(
        "cell_damaged",
        "counter",
        "cells",
        "damaged",
        "Records of a cell with a wrong checksum.",
        ("cell",),
    ),
    Metric(
        "cell_clock_offset",
        "gauge",
        "cells",
        "clock_offset_us",
        "The cell's clock minus this instance's clock.",
        ("cell",),
        "seconds",
        1e6,
    ),
    Metric(
        "queue_clock_offset",
        "gauge",
        "queue_clocks",
        "",
        "The clock of a region's queue minus this instance's clock.",
        ("region",),
        "seconds",
        1e6,
    ),
    Metric(
        "cell_memory", "gauge", "cell_memory", "used", "Memory that a cell's Redis uses.", ("cell",), "bytes"
    ),
    Metric(
        "cell_memory_limit",
        "gauge",
        "cell_memory",
        "limit",
        "The maxmemory of a cell's Redis, if it has one.",
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
    Metric(
        "batch_items",
        "counter",
        "batchers",
        "items",
        "Items in the batches that were sent.",
        ("server", "operation"),
    ),
    Metric(
        "batch_refused",
        "counter",
        "batchers",
        "refused",
        "Items that were refused because the queue was full.",
        ("server", "operation"),
    ),
    Metric(
        "batch_waiting",
        "gauge",
        "batchers",
        "waiting",
        "Items that wait for the next batch.",
        ("server", "operation"),
    ),
    Metric(
        "batch_in_flight",
        "gauge",
        "batchers",
        "in_flight",
        "Batches that were sent and are not answered yet.",
        ("server", "operation"),
    ),
    Metric(
        "batch_size", "histogram", "batch_sizes", "", "Number of items in a batch.", ("server", "operation")
    ),
    Metric(
        "exchange_duration",
        "histogram",
        "exchanges",
        "",
        "Duration of one exchange with a server.",
        ("server", "operation"),
        "seconds",
    ),
    # traces
    Metric("spans_exported", "counter", "spans", "exported", "Spans that the OTLP receiver accepted."),
    Metric(
        "spans_dropped",
        "counter",
        "spans",
        "dropped",
        "Spans that were refused, or that found the queue full.",
    ),
)
