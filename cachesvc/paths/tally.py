"""The counters of the paths: plain integers, incremented on the event loop.

Telemetry reads them at scrape time. Arithmetic that holds: `lookups of a tier = hits + stale +
misses + refused + errors`; `loads = loads_ok + loads_failed + loads_refused +
loads_over_budget` once no load is running; `joined` flights saved as many loads or look-ups.
"""

from msgspec import Struct, field

from cachesvc.model.clock import SECONDS
from cachesvc.telemetry.metrics.histogram import AGES, Histogram


class TierTally(Struct):
    """The look-ups in one tier, by what they found."""

    hits: int = 0
    """Fresh and admissible copies (positive or negative)."""
    stale: int = 0
    """Admissible copies past their freshness, or behind a soft fence."""
    misses: int = 0
    refused: int = 0
    """Copies refused by a fence, the floor, a token or `max_lag`."""
    errors: int = 0
    """The tier did not answer."""


class Tally(Struct):
    """The counts of one instance since its start."""

    l1: TierTally
    l2: TierTally
    l3: TierTally
    former: TierTally
    """The look-ups in former homes of partitions that have moved."""
    flights: int = 0
    joined: int = 0
    """Reads that joined a flight instead of starting one."""
    loads: int = 0
    """Loads asked of an origin."""
    loads_ok: int = 0
    loads_failed: int = 0
    loads_refused: int = 0
    """Loads that the origin answered without a value (401, 403, 429, a redirect)."""
    loads_over_budget: int = 0
    """Loads that were not begun, because the origin budget was used up."""
    older_forgotten: int = 0
    """Keys invalidated because the origin's newer answer may not be kept."""
    leases_granted: int = 0
    """Leases handed to callers (look-aside) or used for loads here."""
    leases_over_budget: int = 0
    """Leases that callers did not get, because the origin budget was used up."""
    lease_waits: int = 0
    """Flights that had to wait for another's lease."""
    lease_waits_spared: int = 0
    """Flights that did not wait for another's lease, because the key's values cannot be kept."""
    leases_released: int = 0
    """Leases that callers gave back unfilled, or whose fills were refused."""
    values_unkept: int = 0
    """Loaded values that could not be kept, whoever loaded them."""
    fills: int = 0
    fills_refused: int = 0
    """Fills that L3 refused (`fenced`)."""
    early_refreshes: int = 0
    reads_again: int = 0
    """Reads that had to look again because a fence came in between."""
    stale_on_error: int = 0
    beyond: dict[tuple[str, str], int] = field(default_factory=dict)
    """By namespace and who answered: the answers to reads that L1 did not answer as fresh.

    Who answered is a tier, `origin`, `miss`, or `error`.
    """
    refusals: dict[tuple[str, str], int] = field(default_factory=dict)
    """By namespace and reason (`RefusedBy`): the copies that were refused."""
    stale_ages: dict[str, Histogram] = field(default_factory=dict)
    """By namespace: the seconds past its freshness at which a copy was answered stale.

    0 for a copy that a soft fence made stale before its time.
    """

    def answered_stale(self, namespace: str, overdue_us: int) -> None:
        """Counts a stale answer, `overdue_us` past the copy's freshness."""
        ages = self.stale_ages.get(namespace)
        if ages is None:
            self.stale_ages[namespace] = ages = Histogram.of(AGES)
        ages.observe(max(0, overdue_us) / SECONDS)

    def answered_beyond(self, namespace: str, by: str, count: int = 1) -> None:
        """Counts answers to reads that L1 did not answer as fresh."""
        self.beyond[namespace, by] = self.beyond.get((namespace, by), 0) + count

    def refused_copy(self, namespace: str, reason: str) -> None:
        """Counts a copy that was refused."""
        self.refusals[namespace, reason] = self.refusals.get((namespace, reason), 0) + 1

    @classmethod
    def zero(cls) -> "Tally":
        return cls(TierTally(), TierTally(), TierTally(), TierTally())
