"""The whole deployment between two looks: makes rows from numbers, and does no I/O."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from msgspec import Struct

from cachesvc.commands.top.between import Between, Look
from cachesvc.commands.top.interval import quantile, share_of, together
from cachesvc.commands.top.rows import (
    FeedRow,
    HotRow,
    InstanceRow,
    LagRow,
    NamespaceRow,
    OriginRow,
    Queue,
    ServerRow,
)
from cachesvc.commands.top.scrape import HotKeys, Scrape, Silence, master_of
from cachesvc.commands.top.servers import server_rows

READS = ("get", "head", "get_many")
CACHED = ("hit", "stale", "absent")
"""The outcomes of reads that a tier answered."""
LOOKED_FOR = (*CACHED, "loaded", "miss", "error", "failed")
HOTTEST = 8


class Picture(Struct, frozen=True):
    """Everything that the view shows, but for the last changes."""

    instances: Sequence[InstanceRow]
    servers: Sequence[ServerRow]
    feeds: Sequence[FeedRow]
    lags: Sequence[LagRow]
    queue: Queue
    namespaces: Sequence[NamespaceRow]
    """The namespaces, the one with the lowest hit ratio first."""
    origins: Sequence[OriginRow]
    hot: Sequence[HotRow]
    tokens_refused_at: Sequence[str]
    """Instances whose debug token is another than the one they were sent."""


def picture_of(before: Look, after: Look) -> Picture:
    """The picture of the time between two looks at the same instances."""
    seen = Between(before, after)
    return Picture(
        instances=[_instance(name, found, seen.alone(name)) for name, found in after.items()],
        servers=server_rows(seen),
        feeds=_feeds(seen.scrapes),
        lags=_lags(seen),
        queue=Queue(
            seen.most("changes_backlog"),
            seen.most("changes_waiting"),
            seen.rate("changes_buried_total"),
            seen.most("changes_overflowed"),
        ),
        namespaces=_namespaces(seen),
        origins=[_origin(name, seen) for name in seen.names("origin_ceiling", "namespace")],
        hot=_hot([hot for scrape in seen.scrapes.values() for hot in scrape.hot]),
        tokens_refused_at=[name for name, scrape in seen.scrapes.items() if scrape.refuses_token],
    )


def _instance(name: str, found: Scrape | Silence, seen: Between) -> InstanceRow:
    if isinstance(found, Silence):
        return InstanceRow(name, silent=found.why)
    latency = together(seen.buckets("request_duration_seconds", operation=operation) for operation in READS)
    return InstanceRow(
        name,
        ready=found.ready.ready,
        requests=seen.rate("requests_total"),
        p50=quantile(0.5, latency),
        p99=quantile(0.99, latency),
        hit_ratio=_hit_ratio(_outcomes(seen)),
        l1_bytes=seen.sum("l1_size_bytes"),
        l1_budget=seen.sum("l1_budget_bytes"),
        l1_eviction_age=seen.sum("l1_evicted_age_seconds") or None,
        in_progress=seen.sum("requests_in_progress"),
        shed=seen.rate("requests_shed_total"),
        topology_version=seen.sum("topology_version"),
        document=_document(seen),
        clock_offsets=_clock_offsets(seen),
        loops=found.ready.loops,
        rivals=found.ready.rivals,
        changes_lost=seen.sum("changes_lost_total"),
        settings=found.ready.settings,
        conditions=found.ready.conditions,
        troubles=found.ready.troubles,
        host=next(iter(seen.names("workers", "host")), ""),
        zone=next(iter(seen.names("zone", "zone")), ""),
    )


def _document(seen: Between) -> tuple[str, str] | None:
    version, content = (next(iter(seen.names("document_info", label)), "") for label in ("version", "hash"))
    return (version, content) if content else None


def _clock_offsets(seen: Between) -> Sequence[float]:
    """The clocks of the cells and queues minus that of the instance."""
    return [
        offset
        for metric, label in (("cell_clock_offset_seconds", "cell"), ("queue_clock_offset_seconds", "region"))
        for name in seen.names(metric, label)
        if (offset := seen.sum(metric, **{label: name})) is not None
    ]


def _feeds(scrapes: Mapping[str, Scrape]) -> Sequence[FeedRow]:
    regions = sorted({region for scrape in scrapes.values() for region in scrape.ready.fence_feeds})
    return [_feed(region, scrapes) for region in regions]


def _feed(region: str, scrapes: Mapping[str, Scrape]) -> FeedRow:
    found = {
        name: scrape.metrics.value("feed_bound_seconds", region=region) for name, scrape in scrapes.items()
    }
    bounds = {name: bound for name, bound in found.items() if bound is not None}
    worst = max(bounds, key=bounds.__getitem__, default="")
    states = {
        name: state for name, scrape in scrapes.items() if (state := scrape.ready.fence_feeds.get(region))
    }
    offsets = [
        scrape.metrics.value("queue_clock_offset_seconds", region=region) for scrape in scrapes.values()
    ]
    offset = max((one for one in offsets if one is not None), key=abs, default=None)
    master = master_of(f"queue {region}", scrapes.values())
    return FeedRow(region, bounds.get(worst), worst, states, offset, master)


def _lags(seen: Between) -> Sequence[LagRow]:
    lags = {
        stage: seen.buckets("change_lag_seconds", stage=stage)
        for stage in seen.names("change_lag_seconds_count", "stage")
    }
    return [LagRow(stage, quantile(0.5, lag), quantile(0.99, lag)) for stage, lag in lags.items()]


def _namespaces(seen: Between) -> Sequence[NamespaceRow]:
    declared = seen.names("max_lag_seconds", "namespace") or seen.names("requests_total", "namespace")
    rows = [_namespace(name, seen) for name in declared if name]
    return sorted(rows, key=lambda row: (row.hit_ratio is None, row.hit_ratio or 0.0, -row.reads, row.name))


def _namespace(name: str, seen: Between) -> NamespaceRow:
    outcomes = _outcomes(seen, namespace=name)
    reads = sum(outcomes.get(outcome, 0.0) for outcome in LOOKED_FOR)
    return NamespaceRow(
        name,
        reads=reads,
        hit_ratio=_hit_ratio(outcomes),
        stale=outcomes.get("stale", 0.0) / reads if reads else None,
        errors=outcomes.get("error", 0.0) + outcomes.get("failed", 0.0),
        l1_bytes=seen.sum("l1_namespace_size_bytes", namespace=name),
        max_lag=seen.most("max_lag_seconds", namespace=name),
        l1_guaranteed=seen.sum("l1_namespace_guaranteed_bytes", namespace=name),
    )


def _origin(name: str, seen: Between) -> OriginRow:
    """The row of an origin: of the instance where most loads wait or run, as each instance has
    a ceiling of its own."""
    running, waiting = (
        seen.values("origin_running", namespace=name),
        seen.values("origin_waiting", namespace=name),
    )
    ceilings = seen.values("origin_ceiling", namespace=name)
    worst = max(ceilings, key=lambda instance: (waiting.get(instance, 0.0), running.get(instance, 0.0)))
    latency = seen.buckets("origin_load_duration_seconds", namespace=name)
    return OriginRow(
        name,
        running=running.get(worst, 0.0),
        ceiling=ceilings[worst],
        waiting=waiting.get(worst, 0.0),
        worst_at=worst,
        loads=seen.rate("origin_load_duration_seconds_count", namespace=name),
        refused=seen.rate("origin_refused_total", namespace=name),
        p50=quantile(0.5, latency),
        p99=quantile(0.99, latency),
    )


def _hot(documents: Sequence[HotKeys]) -> Sequence[HotRow]:
    """The hottest keys of all instances together.

    A share weighs as much as the reads that its instance sampled, which are the same part of all
    reads everywhere.
    """
    sampled: defaultdict[str, float] = defaultdict(float)
    hits: defaultdict[tuple[str, str], float] = defaultdict(float)
    reads: defaultdict[tuple[str, str], float] = defaultdict(float)
    for document in documents:
        sampled[document.namespace] += document.reads_sampled
        for hot in document.hot:
            name = document.namespace, hot.key or hot.digest
            hits[name] += hot.share * document.reads_sampled
            reads[name] += hot.reads_per_second
    rows = [HotRow(*name, hits[name] / sampled[name[0]], reads[name]) for name in hits]
    return sorted(rows, key=lambda row: (-row.reads, row.name))[:HOTTEST]


def _outcomes(seen: Between, **wanted: str) -> Mapping[str, float]:
    """Reads per second by outcome: requests for one key, and the keys of batches."""
    found: defaultdict[str, float] = defaultdict(float)
    for metric, operation in (
        ("requests_total", "get"),
        ("requests_total", "head"),
        ("batch_keys_total", "get_many"),
    ):
        for outcome, rate in seen.rates(metric, "outcome", operation=operation, **wanted).items():
            found[outcome] += rate
    return found


def _hit_ratio(outcomes: Mapping[str, float]) -> float | None:
    cached = sum(outcomes.get(outcome, 0.0) for outcome in CACHED)
    return share_of(cached, sum(outcomes.get(outcome, 0.0) for outcome in LOOKED_FOR) - cached)
