"""The figures of a stretch of a run, which thresholds judge and the table shows.

No I/O.

A percentile of a stretch is the median of the percentiles of its seconds: one second in which the
machine was busy with something else does not move it, but a fault that lasts does. `worst_p99_ms`
is the worst second, for limits that even one second must keep.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from loadtests.load.judge_rows import NeighbourRow, Sample, ServerRow, between, servers_between

INVALIDATIONS = "/v1/invalidations"
"""The end of the name of the one route that writes."""
CACHE_TIERS = ("near", "l1", "l2", "l3")

FIGURES: Mapping[str, str] = {
    "rate": "requests a second",
    "goodput": "requests a second that did not fail",
    "failed_share": "share of requests that failed",
    "good_share": "share of requests that did not fail",
    "refused_share": "share of requests refused for overload (503)",
    "unanswered_share": "share of requests that were not answered in time",
    "reads_failed_share": "share of requests that read and failed",
    "writes_failed_share": "share of invalidations that failed",
    "sdk_failed_share": "share of calls of the SDK that failed",
    "sdk_p50_ms": "of calls of the SDK, median of the seconds' p50, ms",
    "p50_ms": "median of the seconds' p50, ms",
    "p95_ms": "median of the seconds' p95, ms",
    "p99_ms": "median of the seconds' p99, ms",
    "served_p95_ms": "of requests that did not fail, median of the seconds' p95, ms",
    "failed_p95_ms": "of requests that failed, median of the seconds' p95, ms",
    "worst_p99_ms": "p99 of the worst second, ms",
    "hit_share": "share of reads answered by L1, L2, L3 or the SDK's near cache",
    "near_share": "share of reads answered by the SDK's near cache",
    "l1_share": "share of reads answered by L1",
    "l2_share": "share of reads answered by L2",
    "l3_share": "share of reads answered by L3",
    "stale_share": "share of reads answered stale, as allowed",
    "too_stale": "reads answered staler than max_lag allows",
    "origin_loads": "loads counted at the origin",
    "origin_loads_per_s": "loads a second, counted at the origin",
    "origin_loads_per_read": "loads at the origin for each read",
    "origin_loads_per_key": "loads at the origin for each different key loaded since the run began",
    "origin_peak": "most loads at once at the origin, since the run began",
    "noise_rate": "requests a second of the noisy neighbour",
    "noise_refused_share": "share of the noisy neighbour's requests that got no value",
    "noise_skipped_share": "share of the noisy neighbour's requests that its load generator was too late for",
    "noise_loads_per_s": "loads a second for the noisy neighbour, counted at the origin",
    "lag_max_s": "the longest staleness bound that an answer named, s",
    "late_p99_ms": "how late requests of an open loop began: median of the seconds' p99, ms",
    "driver_cpu": "share of a core that the load generator used: median of the seconds",
    "starved_share": "share of requests for which the load generator had no free user",
    "instance_cpu": "share of a core that the busiest instance used",
}
"""Every figure by its name in `thresholds.yaml`, with its meaning."""


_REASONS = {"refused_share": "503 overloaded", "unanswered_share": "no answer in time"}
"""For a figure that counts failures of one kind: their reason, as the users record it."""


def figures_of(
    samples: Iterable[Sample],
    servers: Iterable[ServerRow],
    begins: float,
    ends: float,
    neighbours: Iterable[NeighbourRow] = (),
) -> dict[str, float]:
    """The figures of the stretch from `begins` to `ends`, in seconds since the epoch.

    A figure for which nothing was recorded is left out; it is not 0.
    """
    seen = between(samples, begins, ends)
    told = servers_between(servers, begins, ends)
    noise = [row for row in neighbours if row.t >= begins and row.t + 1 <= ends]
    found = {**_of_callers(seen), **_of_origin(told), **_of_instances(told), **_of_neighbours(noise, told)}
    reads = sum(row.reads for row in seen)
    if reads and "origin_loads" in found:
        # Rates, not counts: the callers' seconds and the origin's rows begin and end at different moments.
        found["origin_loads_per_read"] = found["origin_loads_per_s"] / (reads / len(seen))
    return found


def _of_callers(rows: Sequence[Sample]) -> dict[str, float]:
    if not rows:
        return {}
    requests, failures = sum(row.requests for row in rows), sum(row.failures for row in rows)
    found = {
        "rate": requests / len(rows),
        "goodput": (requests - failures) / len(rows),
        "too_stale": float(sum(row.too_stale for row in rows)),
        "driver_cpu": median(row.driver_cpu for row in rows),
        **_latencies(rows),
        **_shares(rows),
    }
    lags = [row.lag_max for row in rows if row.lag_max is not None]
    if lags:
        found["lag_max_s"] = max(lags)
    if requests:
        found["failed_share"] = failures / requests
        found["good_share"] = 1 - found["failed_share"]
        found["starved_share"] = sum(row.starved for row in rows) / requests
        found |= {
            name: sum(row.reasons.get(reason, 0) for row in rows) / requests
            for name, reason in _REASONS.items()
        }
    return found | _by_purpose(rows) | _of_sdk(rows)


def _latencies(rows: Sequence[Sample]) -> dict[str, float]:
    columns = {
        "p50_ms": [row.p50_ms for row in rows],
        "p95_ms": [row.p95_ms for row in rows],
        "p99_ms": [row.p99_ms for row in rows],
        "served_p95_ms": [row.served_p95_ms for row in rows],
        "failed_p95_ms": [row.failed_p95_ms for row in rows],
        "late_p99_ms": [row.late_ms_p99 for row in rows],
    }
    known = {name: [value for value in column if value is not None] for name, column in columns.items()}
    found = {name: median(values) for name, values in known.items() if values}
    if known["p99_ms"]:
        found["worst_p99_ms"] = max(known["p99_ms"])
    return found


def _shares(rows: Sequence[Sample]) -> dict[str, float]:
    reads = sum(row.reads for row in rows)
    if not reads:
        return {}
    by_tier = {f"{tier}_share": sum(row.by_tier.get(tier, 0) for row in rows) / reads for tier in CACHE_TIERS}
    return {
        **by_tier,
        "hit_share": sum(by_tier.values()),
        "stale_share": sum(row.stale for row in rows) / reads,
    }


def _by_purpose(rows: Sequence[Sample]) -> dict[str, float]:
    routes = [(name, route) for row in rows for name, route in row.by_route.items()]
    writes = [route for name, route in routes if name.endswith(INVALIDATIONS)]
    reads = [route for name, route in routes if not name.endswith(INVALIDATIONS)]
    return {
        name: sum(route.failures for route in found) / requests
        for name, found in (("reads_failed_share", reads), ("writes_failed_share", writes))
        if (requests := sum(route.requests for route in found))
    }


def _of_sdk(rows: Sequence[Sample]) -> dict[str, float]:
    routes = [route for row in rows for name, route in row.by_route.items() if "sdk" in name.lower()]
    requests = sum(route.requests for route in routes)
    found = {"sdk_failed_share": sum(route.failures for route in routes) / requests} if requests else {}
    middles = [route.p50_ms for route in routes if route.p50_ms is not None]
    return found | ({"sdk_p50_ms": median(middles)} if middles else {})


def _of_instances(rows: Sequence[ServerRow]) -> dict[str, float]:
    told = [(row.t, row.cpu_seconds) for row in rows if row.cpu_seconds]
    if len(told) < 2:
        return {}
    (began, first), (ended, last) = told[0], told[-1]
    return {"instance_cpu": max(last[name] - first.get(name, 0.0) for name in last) / (ended - began)}


def _of_neighbours(rows: Sequence[NeighbourRow], servers: Sequence[ServerRow]) -> dict[str, float]:
    if not rows:
        return {}
    ended = sum(sum(row.by_answer.values()) for row in rows)
    due, skipped = sum(row.due for row in rows), sum(row.skipped for row in rows)
    found = {"noise_rate": (due - skipped) / len({row.t for row in rows})}
    if due:
        found["noise_skipped_share"] = skipped / due
    if ended:
        found["noise_refused_share"] = 1 - sum(row.by_answer.get("200", 0) for row in rows) / ended
    loads = [
        (row.t, sum(row.origin.by_namespace.get(name, 0) for name in {noisy.namespace for noisy in rows}))
        for row in servers
        if row.origin is not None
    ]
    if len(loads) > 1:
        (began, first), (until, last) = loads[0], loads[-1]
        found["noise_loads_per_s"] = (last - first) / (until - began)
    return found


def _of_origin(rows: Sequence[ServerRow]) -> dict[str, float]:
    told = [(row.t, row.origin) for row in rows if row.origin is not None]
    if len(told) < 2:
        return {}
    (began, first), (ended, last) = told[0], told[-1]
    loads = last.loads - first.loads
    found = {
        "origin_loads": float(loads),
        "origin_loads_per_s": loads / (ended - began),
        "origin_peak": float(last.peak),
    }
    if last.keys:
        found["origin_loads_per_key"] = last.loads / last.keys
    return found
