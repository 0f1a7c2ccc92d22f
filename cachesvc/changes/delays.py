"""How long changes take between stages: accepted → fence published → merged here.

All lags are in seconds. A stream id begins with the milliseconds of its queue's clock at which the
item was appended.
"""

from collections.abc import Iterable

from cachesvc.changes.contract import position_of
from cachesvc.model.clock import MILLISECONDS, SECONDS
from cachesvc.telemetry.metrics.histogram import LAGS, Histogram


class ChangeLags:
    """The lags of the changes that pass through this instance."""

    def __init__(self) -> None:
        self.published = Histogram.of(LAGS)
        """Lags from the acceptance of a change on the region's `changes` to its fence on `fences`.
        Both times come from one clock, the queue's."""
        self.merged = Histogram.of(LAGS)
        """Lags from an item's publication on any region's `fences` to its merge here. The times
        come from two clocks, so a lag below 0 counts as 0."""

    def note_published(self, changes: Iterable[str], fence: str) -> None:
        """Notes that the changes with these ids were published, up to the position `fence`.

        An empty position says that nothing was published.
        """
        if fence:
            at_ms, _ = position_of(fence)
            for change in changes:
                self.published.observe(max(0, at_ms - position_of(change)[0]) * MILLISECONDS / SECONDS)

    def note_merged(self, published: Iterable[int], now_us: int) -> None:
        """Notes that the items published at these times (µs) are merged now."""
        for at_us in published:
            self.merged.observe(max(0, now_us - at_us) / SECONDS)
