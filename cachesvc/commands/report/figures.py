"""The figures of each namespace, from the metrics of all instances since their starts."""

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt

from msgspec import Struct

from cachesvc.commands.top.exposition import Exposition

ANSWERED = ("hit", "stale", "loaded", "absent", "miss")
"""The outcomes of reads that were answered; failures are none of them."""
READS = (("requests_total", "get"), ("requests_total", "head"), ("batch_keys_total", "get_many"))
TIERS = ("l1", "l2", "l3")
ENOUGH = 50
"""The least number of followed keys with another number of misses.

With fewer, an estimate is chance, and is not given.
"""

METHOD = (
    "half_ttl and twice_ttl: the hits that half and twice the TTL would have had, less those of the TTL as "
    "it is, as a share of the reads. Replayed for a sample of the keys (spatial, by digest, as in SHARDS) "
    "with copies that are only remembered, as if none were evicted and none answered stale; the estimate "
    "is Horvitz-Thompson's over the keys' misses, and error is two of its standard errors. never_read and "
    "live_bytes are estimates by the same keys. All else is counted, since the instances started."
)


class Change(Struct, frozen=True):
    """The change of the hit ratio with another TTL: an estimate."""

    points: float
    """Share of the reads, 0.01 for one percentage point; above 0: more hits."""
    error: float
    """Two standard errors of `points`: it is within them in 95 of 100 cases."""


class NamespaceFigures(Struct, frozen=True):
    """One namespace. Ratios are 0 to 1; None if nothing is known."""

    namespace: str
    reads: int
    """Keys that were read and answered."""
    hit_ratio: float | None
    """The share of the reads that a tier answered, fresh or stale."""
    answered_by: Mapping[str, float]
    """The share of the reads by who answered: `l1`, `l2`, `l3`, `origin` or `miss`."""
    l1_bytes: int
    live_bytes: int
    """Bytes of values that are fresh. An estimate.

    L3 holds about as much for these instances, and so does L2, up to its limit of a value.
    """
    never_read: float | None
    """The share of the new copies that ended before anybody read them. An estimate."""
    half_ttl: Change | None
    twice_ttl: Change | None
    loads: int
    """Loads at the origin; where callers load, reads that were answered with a miss."""
    loads_avoided: int
    """Reads that would each have been a load without the cache, less the loads."""
    refusals: Mapping[str, int]
    """Copies that were refused, by reason, the most frequent first."""


def figures_of(instances: Sequence[Exposition]) -> list[NamespaceFigures]:
    """The figures of all namespaces that an instance tells of, by name."""
    names = sorted({name for one in instances for name in one.by("max_lag_seconds", "namespace") if name})
    return [_of(name, instances) for name in names]


def _of(name: str, instances: Sequence[Exposition]) -> NamespaceFigures:
    reads = sum(
        one.value(metric, namespace=name, operation=operation, outcome=outcome) or 0.0
        for one in instances
        for metric, operation in READS
        for outcome in ANSWERED
    )
    beyond = _by(instances, "answers_beyond_l1_total", "by", name)
    beyond.pop("error", None)
    # What the counters of one instance said of the last reads may be a moment apart.
    fresh = max(0.0, reads - sum(beyond.values()))
    by = {**dict.fromkeys((*TIERS, "origin", "miss"), 0.0), **beyond}
    by["l1"] += fresh
    loads = _sum(instances, "origin_load_duration_seconds_count", name) or by["miss"]
    return NamespaceFigures(
        name,
        round(reads),
        sum(by[tier] for tier in TIERS) / reads if reads else None,
        {who: count / reads for who, count in by.items()} if reads else {},
        round(_sum(instances, "l1_namespace_size_bytes", name)),
        round(_sum(instances, "live_values_bytes", name)),
        _share(_sum(instances, "copies_never_read_total", name), _sum(instances, "copies_new_total", name)),
        _change(instances, name, "half", reads),
        _change(instances, name, "twice", reads),
        round(loads),
        max(0, round(reads - loads)),
        _most_first(_by(instances, "copies_refused_total", "reason", name)),
    )


def _change(instances: Iterable[Exposition], name: str, ttl: str, reads: float) -> Change | None:
    """The change of the hit ratio with another TTL; None if too few keys differ."""
    less = keys = variance = 0.0
    for one in instances:
        misses = one.by("ttl_misses_total", "ttl", namespace=name)
        less += misses.get("same", 0.0) - misses.get(ttl, 0.0)
        variance += one.value("ttl_misses_variance", namespace=name, ttl=ttl) or 0.0
        keys += one.value("ttl_misses_keys", namespace=name, ttl=ttl) or 0.0
    if keys < ENOUGH or not reads:
        return None
    return Change(less / reads, 2 * sqrt(max(0.0, variance)) / reads)


def _sum(instances: Iterable[Exposition], metric: str, name: str) -> float:
    return sum(one.value(metric, namespace=name) or 0.0 for one in instances)


def _by(instances: Iterable[Exposition], metric: str, label: str, name: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in instances:
        for value, count in one.by(metric, label, namespace=name).items():
            found[value] = found.get(value, 0.0) + count
    return found


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _most_first(counts: Mapping[str, float]) -> dict[str, int]:
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return {reason: round(count) for reason, count in ordered if count}
