"""What all users of one process share."""

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
"""How often a batch draws, at most, for each of its different keys: a source may not have so many."""


class Shared:
    """Made when the load begins: an open loop's schedule counts from then."""

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
        # Two attempts, each as long as a caller waits.
        self.versions = Versions(max_lag=settings.max_lag, longest_read=2 * settings.timeout, clock=monotonic)
        self._keys = keys_of(settings.keys, part, settings.seed)
        self._arrivals = dict(self._schedules(part, sleep))

    def turn(self, kind: str) -> Turn:
        """When a user of this kind is to make a request: now, in a closed loop."""
        arrivals = self._arrivals.get(kind)
        return arrivals.take() if arrivals else CLOSED

    def divide(self, kind: str, part: float) -> None:
        """This process makes so much of the requests of this kind: as much as it has of the users of that kind.

        Processes have equal parts until that is known, which would be too few requests where locust put all users of a kind
        into one of them.
        """
        if kind in self._arrivals:
            self._arrivals[kind].share = self.settings.share_of(kind) * part

    def key(self) -> str:
        return next(self._keys)

    def keys(self, count: int) -> list[str]:
        """Different ones; fewer if the source does not have as many."""
        found: dict[str, None] = {}
        for key in islice(self._keys, count * _DRAWS_PER_KEY):
            found[key] = None
            if len(found) == count:
                break
        return list(found)

    def _schedules(self, part: Part, sleep: Callable[[float], object]) -> Iterator[tuple[str, Arrivals]]:
        """One for each kind of user, in an open loop."""
        if not self.settings.rate:
            return
        for kind in self.settings.mix:
            random = part.random(self.settings.seed, f"arrivals of {kind}")
            share = self.settings.share_of(kind) / part.of
            yield kind, Arrivals(self.settings.rate, share, random, clock=monotonic, sleep=sleep)
