"""Counts of requests, of one second or of a whole run.

Tallies of the same time can be added up.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct, field

from loadtests.load.answers import TIERS, Read
from loadtests.load.arrivals import Turn
from loadtests.load.latencies import Latencies, add, keep, percentiles_ms

PERCENTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "p999_ms": 0.999, "max_ms": 1.0}


class RouteTally(Struct):
    """Counts of one route. A request that failed has a latency, too."""

    requests: int = 0
    failures: int = 0
    latencies: Latencies = field(default_factory=dict)

    def add(self, other: "RouteTally") -> None:
        """Adds the counts of `other`."""
        self.requests += other.requests
        self.failures += other.failures
        add(self.latencies, other.latencies)

    def figures(self) -> dict[str, Any]:
        """The figures of the route."""
        return {"requests": self.requests, "failures": self.failures, **_percentiles(self.latencies)}


class Tally(Struct):
    """Counts of all routes."""

    routes: dict[str, RouteTally] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    """The number of failures by reason."""
    tiers: dict[str, int] = field(default_factory=dict)
    """Reads by answerer, in keys (a batch request reads many)."""
    stale: int = 0
    too_stale: int = 0
    lag_max: float | None = None
    """The longest staleness bound that an instance named; None if none named one."""
    served: Latencies = field(default_factory=dict)
    """Latencies of the requests that did not fail."""
    failed: Latencies = field(default_factory=dict)
    """Latencies of the requests that failed: how soon callers knew."""
    late: Latencies = field(default_factory=dict)
    """The lateness of requests of an open loop; empty in a closed loop."""
    starved: int = 0
    """Requests of an open loop that found no free user when they were due."""
    failovers: int = 0
    """Requests that met a broken connection and were sent to another instance."""
    driver_cpu: float = 0.0
    """Share of a core that the load generator used; of several processes, the busiest one.

    Near 1, the latencies are the generator's own.
    """

    def request(self, route: str, seconds: float, reason: str, turn: Turn) -> None:
        """Counts a request that was answered, or that failed for `reason` (empty: it did not
        fail).

        `seconds` count from the moment at which the request was due.
        """
        tally = self.routes.setdefault(route, RouteTally())
        tally.requests += 1
        keep(tally.latencies, seconds)
        keep(self.failed if reason else self.served, seconds)
        if reason:
            tally.failures += 1
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if turn.late is not None:
            keep(self.late, turn.late)
            self.starved += turn.starved

    def reads(self, reads: Iterable[Read], lag: float | None) -> None:
        """Counts the keys of one answer, and the staleness bound that came with the answer."""
        for read in reads:
            self.tiers[read.tier] = self.tiers.get(read.tier, 0) + 1
            self.stale += read.is_stale
            self.too_stale += read.is_too_stale
        self.lag_max = _greater(self.lag_max, lag)

    def add(self, other: "Tally") -> None:
        """Adds the counts of `other`, of the same time."""
        for route, tally in other.routes.items():
            self.routes.setdefault(route, RouteTally()).add(tally)
        _add_counts(self.reasons, other.reasons)
        _add_counts(self.tiers, other.tiers)
        add(self.served, other.served)
        add(self.failed, other.failed)
        add(self.late, other.late)
        self.stale += other.stale
        self.too_stale += other.too_stale
        self.starved += other.starved
        self.failovers += other.failovers
        self.lag_max = _greater(self.lag_max, other.lag_max)
        self.driver_cpu = max(self.driver_cpu, other.driver_cpu)

    def figures(self) -> dict[str, Any]:
        """The figures as they stand in `samples.jsonl` and `summary.json`; None for unknown ones."""
        whole = RouteTally()
        for route in self.routes.values():
            whole.add(route)
        return {
            **whole.figures(),
            "by_tier": {tier: self.tiers.get(tier, 0) for tier in TIERS},
            "stale": self.stale,
            "too_stale": self.too_stale,
            "lag_max": self.lag_max,
            "served_p95_ms": percentiles_ms(self.served, (0.95,))[0],
            "failed_p95_ms": percentiles_ms(self.failed, (0.95,))[0],
            "late_ms_p99": percentiles_ms(self.late, (0.99,))[0],
            "starved": self.starved,
            "failovers": self.failovers,
            "driver_cpu": round(self.driver_cpu, 3),
            "by_route": {route: tally.figures() for route, tally in sorted(self.routes.items())},
            "reasons": self.reasons,
        }


def _percentiles(latencies: Mapping[int, int]) -> dict[str, float | None]:
    return dict(zip(PERCENTILES, percentiles_ms(latencies, tuple(PERCENTILES.values())), strict=True))


def _add_counts(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        counts[name] = counts.get(name, 0) + count


def _greater(one: float | None, other: float | None) -> float | None:
    return max((lag for lag in (one, other) if lag is not None), default=None)
