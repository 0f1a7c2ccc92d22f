"""Limits that hold for a whole region: the origin budget and the rates.

No instance counts alone: each has a share of every limit, for a short term
(`tiers/shares/share.py`).
"""

import math

from msgspec import Struct

from cachesvc.config.mistakes import Mistakes
from cachesvc.model.units import Size

MOST = 1_000_000_000
"""The largest limit; Lua and floats count exactly up to here."""


class OriginBudget(Struct, frozen=True, forbid_unknown_fields=True):
    """The most loads of a namespace, by all instances of a region together.

    Loads from an `origin` count, and leases that are handed to callers who load by themselves. A load
    beyond the budget is not begun: a stale copy is answered, if the rules allow one, or 503
    `origin-budget`.
    """

    concurrency: int = 0
    """The most loads that run at once. 0: not limited. A lease that a caller holds counts as
    running until it is used, given back or ended."""
    loads_per_second: float = 0.0
    """The most loads that begin in a second, in the long run. 0: not limited."""
    burst: float = 0.0
    """The most loads that may begin at once after a pause. 0: as many as in one second of
    `loads_per_second`, which must then be given."""

    @property
    def most_at_once(self) -> float:
        return self.burst or max(1.0, self.loads_per_second)


class Rate(Struct, frozen=True, forbid_unknown_fields=True):
    """A rate, as a token bucket."""

    per_second: float
    """The most of them in a second, in the long run; above 0."""
    burst: float = 0.0
    """The most of them at once after a pause. 0: as many as in one second."""

    @property
    def most_at_once(self) -> float:
        return self.burst or max(1.0, self.per_second)


class ByteRate(Struct, frozen=True, forbid_unknown_fields=True):
    """A rate of bytes, as a token bucket."""

    per_second: Size
    """The most bytes in a second, in the long run; above 0."""
    burst: Size = Size(0)
    """The most bytes at once after a pause. 0: as many as in one second."""

    @property
    def most_at_once(self) -> float:
        return float(self.burst or self.per_second)


class Rates(Struct, frozen=True, forbid_unknown_fields=True):
    """The rates beyond which requests are refused with 429 `rate-limited`.

    A batch counts by its keys. L1 hits are counted, and refused last: only once they have overdrawn
    the rate by one more `burst`.
    """

    reads: Rate | None = None
    """Keys that are read. Left out: not limited."""
    writes: Rate | None = None
    """Keys that are written, fills included. Left out: not limited."""
    invalidations: Rate | None = None
    """Keys and tags that are invalidated; a purge of a namespace counts as one. Left out: not
    limited."""
    bytes: ByteRate | None = None
    """Bytes of values that are read or written. Left out: not limited."""

    @property
    def named(self) -> dict[str, Rate | ByteRate]:
        """The rates that are given, by their names."""
        rates = {
            "reads": self.reads,
            "writes": self.writes,
            "invalidations": self.invalidations,
            "bytes": self.bytes,
        }
        return {name: rate for name, rate in rates.items() if rate is not None}


def check_origin_budget(budget: OriginBudget, path: str, found: Mistakes) -> None:
    """Notes the rules that an origin budget breaks."""
    concurrency, rate, burst = budget.concurrency, budget.loads_per_second, budget.burst
    found.require(
        bool(concurrency or rate),
        path,
        "limits nothing: give concurrency, loads_per_second or both, or leave it out",
    )
    found.require(0 <= concurrency <= MOST, f"{path}.concurrency", f"{concurrency} is not 0 to {MOST}")
    found.require(_is_rate(rate), f"{path}.loads_per_second", f"{rate} is not 0 to {MOST}")
    found.require(
        burst == 0 or (_is_rate(burst) and burst >= 1),
        f"{path}.burst",
        f"{burst} is not 1 to {MOST}, or 0 for as many as in one second",
    )
    found.require(
        not burst or bool(rate),
        f"{path}.burst",
        "needs loads_per_second, whose burst it is",
        f"{path}.loads_per_second",
    )


def check_rates(rates: Rates, path: str, found: Mistakes) -> None:
    """Notes the rules that the rates of a namespace or of a caller break."""
    found.require(
        bool(rates.named),
        path,
        "limits nothing: give one of reads, writes, invalidations and bytes, or leave it out",
    )
    for name, rate in rates.named.items():
        here = f"{path}.{name}"
        found.require(
            rate.per_second > 0 and _is_rate(rate.per_second),
            f"{here}.per_second",
            f"{rate.per_second} is no rate: above 0, at most {MOST}; leave it out for no limit",
        )
        found.require(
            rate.burst == 0 or (_is_rate(rate.burst) and rate.burst >= 1),
            f"{here}.burst",
            f"{rate.burst} is not 1 to {MOST}, or 0 for as many as in one second",
        )


def _is_rate(value: float) -> bool:
    return math.isfinite(value) and 0 <= value <= MOST
