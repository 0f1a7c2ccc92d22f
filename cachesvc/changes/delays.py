"""How long changes take from stage to stage, in seconds: accepted → fence published → merged here.

Stream ids begin with the milliseconds of their queue's clock at which an item was appended.
"""

from collections.abc import Iterable

from cachesvc.changes.contract import position_of
from cachesvc.model.clock import MILLISECONDS, SECONDS
from cachesvc.telemetry.metrics.histogram import LAGS, Histogram


class ChangeLags:
    """One per instance; it counts what passes through this one."""

    def __init__(self) -> None:
        self.published = Histogram.of(LAGS)
        """From the acceptance of a change on the region's `changes` to its fence on `fences`: one clock, the queue's."""
        self.merged = Histogram.of(LAGS)
        """From an item's publication on any region's `fences` to its merge here: two clocks, so a lag below 0 counts as 0."""

    def note_published(self, changes: Iterable[str], fence: str) -> None:
        """These changes, by their ids, were published up to this position; empty: nothing was."""
        if fence:
            at_ms, _ = position_of(fence)
            for change in changes:
                self.published.observe(max(0, at_ms - position_of(change)[0]) * MILLISECONDS / SECONDS)

    def note_merged(self, published: Iterable[int], now_us: int) -> None:
        """Items that were published then, µs, are merged now."""
        for at_us in published:
            self.merged.observe(max(0, now_us - at_us) / SECONDS)
