"""Of each namespace, the keys read most and the largest values, of the last minute or two.

They are noted in windows of a minute, of which two are kept: the one that runs and the one before it. What is reported is thus
as exact as `heavy_hitters.py` promises, which counts that decay would not be, and it is forgotten after two minutes.
Key text is kept in here, and is personal data: whoever shows it has to decide to whom.
"""

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from cachesvc.model.clock import SECONDS, Clock
from cachesvc.model.entry import Key
from cachesvc.telemetry.popularity.heavy_hitters import HeavyHitters, Hitter, together
from cachesvc.telemetry.popularity.largest import Largest, largest_of

WINDOW_US = 60 * SECONDS
COUNTED = 128
"""Keys counted per window: whatever has more than 0.8 % of a namespace's reads is seen, and its share known to within that."""
TOGETHER = 64
"""Sampled reads that are counted at once."""
ENOUGH = 100
"""Sampled reads below which a share is chance, and no metric."""


class Popularity(Struct, frozen=True):
    """Of one namespace."""

    seconds: float
    """How long it was looked at."""
    sampled: int
    """Reads that were looked at, one in `read_sample.EVERY`."""
    hitters: Sequence[Hitter[str]]
    """By key text, the most frequent first."""
    largest: Sequence[tuple[str, int]]
    """Key text, and bytes of the value; the largest first."""


class PopularityStatistics(Struct, frozen=True):
    share: float | None
    """Of the namespace's reads, those of the key that is read most, at least. None: too few were looked at."""
    largest: int | None
    """Bytes of the largest value. None: none was seen."""


class HotKeys:
    def __init__(self, namespaces: Collection[str], clock: Clock) -> None:
        self._clock = clock
        self._began_us = clock.now_us()
        self._windows = {name: _Windows() for name in namespaces}
        self._looked_at_since_us = self._began_us
        self._uncounted: list[tuple[Key, int]] = []

    def __repr__(self) -> str:
        return f"<HotKeys [{len(self._windows)} namespaces]>"

    def read(self, key: Key, size: int = -1) -> None:
        """A read that was sampled; `size` in bytes, if there was a value.

        Kept to be counted with others: one at a time, between requests, the same work takes three times as long, as none of its
        code and data is in the processor's caches then.
        """
        now = self._clock.now_us()
        if len(self._uncounted) >= TOGETHER or now - self._began_us >= WINDOW_US:
            self._count(now)
        self._uncounted.append((key, size))

    def valued(self, key: Key, size: int) -> None:
        """A value that was seen. Called for every fill, so it leaves the look at the clock to the sampled reads."""
        self._windows[key.namespace].sizes.note(key.text, size)

    def popularity(self, namespace: str) -> Popularity:
        self._count(now := self._clock.now_us())
        windows = self._windows[namespace]
        return Popularity(
            seconds=(now - self._looked_at_since_us) / SECONDS,
            sampled=windows.sampled,
            hitters=together(windows.reads, windows.reads_before),
            largest=largest_of((windows.sizes, windows.sizes_before)),
        )

    def statistics(self) -> Mapping[tuple[str], PopularityStatistics]:
        """By namespace."""
        self._count(self._clock.now_us())
        return {
            (name,): PopularityStatistics(windows.share(), windows.largest())
            for name, windows in self._windows.items()
        }

    def _count(self, now: int) -> None:
        """All that came, into the window that ran then; after that it is turned."""
        for key, size in self._uncounted:
            windows = self._windows[key.namespace]
            windows.reads.note(key.text)
            windows.sizes.note(key.text, size)
        self._uncounted.clear()
        self._turn(now)

    def _turn(self, now: int) -> None:
        """Begin a new window if the running one is over; if nobody looked for longer than that, the one before is empty too."""
        late = now - self._began_us
        if 0 <= late < WINDOW_US:
            return
        for windows in self._windows.values():
            windows.turn(is_long_ago=not 0 <= late < 2 * WINDOW_US)
        self._looked_at_since_us = self._began_us if 0 <= late < 2 * WINDOW_US else now
        self._began_us = now


class _Windows:
    """Of one namespace: the one that runs, and the one before it."""

    def __init__(self) -> None:
        self.reads: HeavyHitters[str] = HeavyHitters(COUNTED)
        self.reads_before: HeavyHitters[str] = HeavyHitters(COUNTED)
        self.sizes = Largest()
        self.sizes_before = Largest()

    @property
    def sampled(self) -> int:
        return self.reads.noted + self.reads_before.noted

    def share(self) -> float | None:
        """Read at each scrape, for every namespace: those that are hardly used cost nothing there."""
        if self.sampled < ENOUGH:
            return None
        return together(self.reads, self.reads_before)[0].surely / self.sampled

    def largest(self) -> int | None:
        found = largest_of((self.sizes, self.sizes_before))
        return found[0][1] if found else None

    def turn(self, *, is_long_ago: bool) -> None:
        self.reads_before = HeavyHitters(COUNTED) if is_long_ago else self.reads
        self.sizes_before = Largest() if is_long_ago else self.sizes
        self.reads = HeavyHitters(COUNTED)
        self.sizes = Largest()
