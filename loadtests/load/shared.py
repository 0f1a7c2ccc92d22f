"""The state that all users of one process share."""

from collections.abc import Callable, Iterator
from itertools import islice
from time import monotonic

from loadtests.load.arrivals import CLOSED, Arrivals, Turn
from loadtests.load.balancing import Balancer
from loadtests.load.changes import Changes
from loadtests.load.keys import Part, keys_of
from loadtests.load.recording import Recorder
from loadtests.load.settings import Settings
from loadtests.load.versions import Versions

_DRAWS_PER_KEY = 10
"""The most draws per wanted key of a batch: the source may have too few different keys."""


class Shared:
    """The shared state. It is made when the load begins: an open loop's schedule starts then."""

    def __init__(
        self,
        settings: Settings,
        part: Part,
        recorder: Recorder,
        changes: Changes,
        *,
        sleep: Callable[[float], object],
    ) -> None:
        self.settings = settings
        self.recorder = recorder
        self.changes = changes
        self.balancer = Balancer(settings.urls, monotonic)
        # A read makes at most two attempts, each as long as a caller waits.
        self.versions = Versions(max_lag=settings.max_lag, longest_read=2 * settings.timeout, clock=monotonic)
        self._keys = keys_of(settings.keys, part, settings.seed)
        self._arrivals = dict(self._schedules(part, sleep))

    def turn(self, kind: str) -> Turn:
        """Waits until a user of this kind has to make a request; at once in a closed loop."""
        arrivals = self._arrivals.get(kind)
        return arrivals.take() if arrivals else CLOSED

    def divide(self, kind: str, part: float) -> None:
        """Sets the part of this kind's requests that this process makes.

        `part` is the process's share of the users of that kind. Until it is known, all processes have
        equal parts. These would give too few requests where locust put all users of a kind into one
        process.
        """
        if kind in self._arrivals:
            self._arrivals[kind].share = self.settings.share_of(kind) * part

    def key(self) -> str:
        """The next key."""
        return next(self._keys)

    def keys(self, count: int) -> list[str]:
        """Different keys, `count` of them if the source has as many."""
        found: dict[str, None] = {}
        for key in islice(self._keys, count * _DRAWS_PER_KEY):
            found[key] = None
            if len(found) == count:
                break
        return list(found)

    def _schedules(self, part: Part, sleep: Callable[[float], object]) -> Iterator[tuple[str, Arrivals]]:
        """Yields a schedule for each kind of user; nothing for a closed loop."""
        if not self.settings.rate:
            return
        for kind in self.settings.mix:
            random = part.random(self.settings.seed, f"arrivals of {kind}")
            share = self.settings.share_of(kind) / part.of
            yield kind, Arrivals(self.settings.rate, share, random, clock=monotonic, sleep=sleep)
