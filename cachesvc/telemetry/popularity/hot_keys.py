"""Each namespace's most read keys and largest values, of the last minute or two.

They are noted in windows of a minute. Two windows are kept: the one that runs and the one before
it. So a report is as exact as `heavy_hitters.py` promises, which counts that decay would not be,
and it is forgotten after two minutes. The windows hold key text, which is personal data: code that
shows a report has to decide to whom.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec import Struct

from cachesvc.model.clock import SECONDS, Clock
from cachesvc.model.entry import Key
from cachesvc.telemetry.popularity.heavy_hitters import HeavyHitters, Hitter, together
from cachesvc.telemetry.popularity.largest import Largest, largest_of
from cachesvc.telemetry.popularity.spread import Spread

WINDOW_US = 60 * SECONDS
"""Length of a window."""
COUNTED = 128
"""Keys counted per window: a key with more than 0.8 % of a namespace's reads is always
among them, and its share is known to within 0.8 %."""
TOGETHER = 64
"""Sampled reads that are counted at once."""
ENOUGH = 100
"""Sampled reads below which a share is chance, and is not given as a metric."""


class Popularity(Struct, frozen=True):
    """The report of one namespace."""

    seconds: float
    """The time that the report covers."""
    sampled: int
    """Reads in the sample: one in `read_sample.EVERY`."""
    hitters: Sequence[Hitter[str]]
    """Counts by key text, the most frequent key first."""
    largest: Sequence[tuple[str, int]]
    """Key text, and bytes of the value; the largest value first."""


class PopularityStatistics(Struct, frozen=True):
    """The metrics of one namespace."""

    share: float | None
    """The share of the namespace's reads that the most read key has, at least. None if too few
    reads were sampled."""
    largest: int | None
    """Bytes of the largest value; None if no value was seen."""


NOTHING_SEEN = PopularityStatistics(None, None)


class HotKeys:
    """Notes the reads and values of all namespaces."""

    def __init__(
        self, namespaces: Collection[str], clock: Clock, *, share: float = 0.0, instances: int = 1
    ) -> None:
        """`share` and `instances`: those of `Spread`; unless given, no key is ever spread."""
        self._clock = clock
        self.spread = Spread(share, instances)
        """The keys that readers are to spread over several instances, by digest."""
        self._began_us = clock.now_us()
        self._windows = defaultdict[str, _Windows](_Windows)
        """By namespace with reads or values; a read may end after its namespace has gone."""
        self._namespaces = namespaces
        self._looked_at_since_us = self._began_us
        self._uncounted: list[tuple[Key, int]] = []

    def __repr__(self) -> str:
        return f"<HotKeys [{len(self._namespaces)} namespaces]>"

    def take(self, namespaces: Collection[str]) -> None:
        """Reports these namespaces from now on; what was noted of others is forgotten."""
        self._namespaces = namespaces
        for name in self._windows.keys() - set(namespaces):
            del self._windows[name]

    def read(self, key: Key, size: int = -1) -> None:
        """Notes a sampled read; `size` in bytes, if there was a value.

        The read is kept, to be counted with others. Counted one at a time, between requests, it would take
        three times as long, because none of the code and data would be in the processor's caches then.
        """
        now_us = self._clock.now_us()
        if len(self._uncounted) >= TOGETHER or now_us - self._began_us >= WINDOW_US:
            self._count(now_us)
        self._uncounted.append((key, size))

    def valued(self, key: Key, size: int) -> None:
        """Notes the size of a value, in bytes.

        It is called for every fill, so reading the clock is left to the sampled reads.
        """
        self._windows[key.namespace].sizes.note(key.text, size)

    def noter_of_values(self, namespace: str) -> Callable[[str, int], None]:
        """Returns `valued` for the texts of keys of this namespace, to be used at once."""
        return self._windows[namespace].sizes.note

    def popularity(self, namespace: str) -> Popularity:
        """Returns the report of a namespace."""
        self._count(now_us := self._clock.now_us())
        windows = self._windows[namespace]
        return Popularity(
            seconds=(now_us - self._looked_at_since_us) / SECONDS,
            sampled=windows.sampled,
            hitters=together(windows.reads, windows.reads_before),
            largest=largest_of((windows.sizes, windows.sizes_before)),
        )

    def spread_keys(self) -> int:
        """Returns how many keys are spread now."""
        return self.spread.keys(self._clock.now_us())

    def statistics(self) -> Mapping[tuple[str], PopularityStatistics]:
        """The metrics by namespace."""
        self._count(self._clock.now_us())
        return {
            (name,): PopularityStatistics(windows.share(), windows.largest())
            if (windows := self._windows.get(name)) is not None
            else NOTHING_SEEN
            for name in self._namespaces
        }

    def _count(self, now_us: int) -> None:
        """Counts the kept reads in the window that ran when they came, then turns the windows."""
        for key, size in self._uncounted:
            windows = self._windows[key.namespace]
            windows.reads.note(key.text)
            windows.sizes.note(key.text, size)
            self.spread.note(key.digest)
        self._uncounted.clear()
        self.spread.judge(now_us)
        self._turn(now_us)

    def _turn(self, now_us: int) -> None:
        """Begins a new window if the running one is over.

        If that one ended a whole window ago, or the clock went back, the window before is empty, too.
        """
        late_us = now_us - self._began_us
        if 0 <= late_us < WINDOW_US:
            return
        for windows in self._windows.values():
            windows.turn(is_long_ago=not 0 <= late_us < 2 * WINDOW_US)
        self._looked_at_since_us = self._began_us if 0 <= late_us < 2 * WINDOW_US else now_us
        self._began_us = now_us


class _Windows:
    """One namespace's running window, and the window before it."""

    def __init__(self) -> None:
        self.reads: HeavyHitters[str] = HeavyHitters(COUNTED)
        self.reads_before: HeavyHitters[str] = HeavyHitters(COUNTED)
        self.sizes = Largest()
        self.sizes_before = Largest()

    @property
    def sampled(self) -> int:
        return self.reads.noted + self.reads_before.noted

    def share(self) -> float | None:
        """Returns the sure share of the most read key; None if too few reads were sampled.

        It is computed at each scrape for every namespace: a namespace with few reads costs nothing here.
        """
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
