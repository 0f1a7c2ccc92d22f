"""Decides when to stop asking a server that does not answer, and how to begin again.

    CLOSED ──it fails──► OPEN ──probe is due──► HALF_OPEN ──all calls let through──► CLOSED
                          ▲                         │
                          └─────a call fails────────┘

Without a breaker, every exchange with a dead server would wait for its whole deadline, and so would
every reader whose keys belong to that server. (Nygard, *Release It!*: the circuit breaker.)

A server fails if it cannot be connected to (that opens the breaker at once), if `failures` calls
in a row fail, or if half of the last `4 * failures` do. A late answer is a failure, too, where the
pool says what is late (`BreakerPool`). Open, the breaker lets one probe through after a pause; the
pauses grow from one failed probe to the next. After a probe that succeeds, a share of the calls
goes through, and doubles with each success: a server that has just begun is not given all load.
"""

import random
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from statistics import median

from cachesvc.config.service import Breakers
from cachesvc.model.errors import TierError, TierTimeoutError, TierUnavailableError

NOT_TRIED = "not tried: its breaker is open"
"""The reason of a call that a breaker did not let through."""
FIRST_SHARE = 0.25
"""The share of calls that are let through after the probe has succeeded."""
JITTER = 0.5
"""The greatest share by which a pause is lengthened at random.

So the instances of a region do not probe a server that comes back all at once."""
LATE_TIMES = 5
"""An answer is late if it took so many times as long as those of the pool's servers do."""
LATE_AMONG = 3
"""The fewest servers of a pool whose times say what is late."""
_MEAN_OF = 16
"""About so many answers make the mean time of a server."""


class BreakerState(StrEnum):
    """The three states of a breaker."""

    CLOSED = "closed"
    """Every call is let through."""
    OPEN = "open"
    """No call is let through until the next probe is due."""
    HALF_OPEN = "half-open"
    """A probe is under way, or has succeeded: then a share of the calls is let through."""


def is_outage(failure: object) -> bool:
    """True for a failure of the server; a plain `TierError` is an answer of the server."""
    return isinstance(failure, (TierTimeoutError, TierUnavailableError))


def is_refused(failure: BaseException | None) -> bool:
    """True if the failure's cause is that nobody listens at the server's address."""
    while failure is not None:
        if isinstance(failure, (ConnectionRefusedError, FileNotFoundError)):
            return True
        failure = failure.__cause__ or failure.__context__
    return False


class Breaker:
    """Counts what becomes of the calls to one server. Synchronous; belongs to one event loop."""

    def __init__(
        self,
        settings: Breakers | None = None,
        *,
        jitter: float = JITTER,
        may_open: Callable[[], bool] = lambda: True,
        is_late: Callable[[float], bool] = lambda seconds: False,
        now: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """Makes a closed breaker.

        `may_open` says whether one more breaker of the pool may open now, `is_late` whether an answer after
        so many seconds counts as a failure. `now` returns seconds on a clock that never steps.
        """
        settings = settings or Breakers()
        self.state = BreakerState.CLOSED
        self.failures_in_a_row = 0
        self.times_opened = 0
        """Times that the breaker opened: after failures, and again after each failed probe."""
        self.refused = 0
        """Calls that were not let through."""
        self.kept_closed = 0
        """Failures that did not open the breaker because too much of the pool was left alone."""
        self.mean_seconds = 0.0
        """The mean time of the last answers; 0 before the first."""
        self._failures = settings.failures
        self._first_pause = settings.first_probe.seconds
        self._longest_pause = settings.longest_probe.seconds
        self._pause = self._first_pause
        self._window = (1 << (4 * settings.failures)) - 1
        self._last = 0
        """The last calls, the newest in the lowest bit: 1 for a failure."""
        self._jitter = jitter
        self._may_open = may_open
        self._is_late = is_late
        self._now = now
        self._rng = rng or random.Random()  # noqa: S311  spreads load, guards no secret
        self._probe_at = 0.0
        self._share = 0.0
        """The share of calls that are let through; 0 until the probe has succeeded."""
        self._credit = 0.0
        self._is_on_trial = False
        """True after `seen`, until a call succeeds: then the next failure opens the breaker."""

    @property
    def is_open(self) -> bool:
        """True if calls are kept from the server, all of them or a share."""
        return self.state is not BreakerState.CLOSED

    @property
    def is_troubled(self) -> bool:
        """True if a failure is remembered: only then does a success need to be told."""
        return self._last != 0 or self.is_open or self._is_on_trial

    @property
    def is_silent(self) -> bool:
        """True if calls are kept from the server, and a call would have told whether it is well.

        False once a probe has been due for the longest pause: then nobody asks, and nothing is known.
        """
        return self.is_open and self._now() < self._probe_at + self._longest_pause

    def admits(self) -> bool:
        """True if this call may go through.

        While the breaker is not closed, the outcome of an admitted call must be told by `succeeded` or
        `failed`. A probe that never tells (its caller was cancelled) blocks other calls for one pause, not
        for ever.
        """
        if self.state is BreakerState.CLOSED:
            return True
        if self._share:
            self._credit += self._share
            if self._credit < 1:
                self.refused += 1
                return False
            self._credit -= 1
            return True
        if self._now() < self._probe_at:
            self.refused += 1
            return False
        self.state = BreakerState.HALF_OPEN
        self._probe_at = self._next_probe()
        return True

    def answered(self, seconds: float) -> None:
        """Notes an answer after so many seconds, which is a failure if that is late."""
        self.mean_seconds += (seconds - self.mean_seconds) / (_MEAN_OF if self.mean_seconds else 1)
        if self._is_late(seconds):
            self.failed()
        elif self.is_troubled:
            self.succeeded()

    def ended(self, failure: TierError | None = None, *, at_once: bool = False) -> None:
        """Notes the end of an admitted call; a `failure` that is an answer of the server is none."""
        if failure is not None and is_outage(failure):
            self.failed(at_once=at_once)
        elif self.is_troubled:
            self.succeeded()

    def succeeded(self) -> None:
        """Notes a success; the breaker closes by shares if it is not closed."""
        self.failures_in_a_row = 0
        self._last = (self._last << 1) & self._window
        self._is_on_trial = False
        if self.state is BreakerState.CLOSED:
            return
        self.state = BreakerState.HALF_OPEN
        self._share = max(FIRST_SHARE, 2 * self._share)
        if self._share >= 1:
            self._close()

    def seen(self) -> None:
        """Closes the breaker: the server has answered a question that is no call.

        Without calls there is no probe, and the server of an idle instance would stay left alone. A server
        that answers questions only is left alone again after the next failed call.
        """
        if self.is_open:
            pause = self._pause
            self._close()
            self._pause, self._is_on_trial = pause, True

    def failed(self, *, at_once: bool = False) -> None:
        """Counts a failure, which may open the breaker; that of a connect does so `at_once`."""
        self.failures_in_a_row += 1
        self._last = (self._last << 1 | 1) & self._window
        if self.state is BreakerState.OPEN:
            return  # the failed call began before the breaker opened
        if self.state is BreakerState.HALF_OPEN or self._is_on_trial:
            self._pause = min(2 * self._pause, self._longest_pause)
            self._open()
        elif at_once or self._fails:
            if self._may_open():
                self._open()
            else:
                self.kept_closed += 1

    @property
    def _fails(self) -> bool:
        return self.failures_in_a_row >= self._failures or self._last.bit_count() >= 2 * self._failures

    def _open(self) -> None:
        self.state = BreakerState.OPEN
        self.times_opened += 1
        self._share = self._credit = 0.0
        self._is_on_trial = False
        self._probe_at = self._next_probe()

    def _close(self) -> None:
        self.state = BreakerState.CLOSED
        self.failures_in_a_row = self._last = 0
        self._share = self._credit = 0.0
        self._pause = self._first_pause
        self._is_on_trial = False

    def _next_probe(self) -> float:
        return self._now() + self._pause * (1 + self._jitter * self._rng.random())

    def __repr__(self) -> str:
        return f"<Breaker {self.state} [{self.failures_in_a_row} failures in a row]>"


class BreakerPool:
    """The breakers of the servers of one kind, by name.

    At most `out_at_most` of them are open at once, but one always may be: where most servers fail, the
    fault is likely here, and to leave them alone would not help.
    """

    def __init__(
        self,
        settings: Breakers,
        *,
        late_from_seconds: float = float("inf"),
        now: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """`late_from_seconds`: an answer that took no longer than that is never late."""
        self._settings = settings
        self._late_from = late_from_seconds
        self._now = now
        self._rng = rng
        self._breakers: dict[str, Breaker] = {}

    def make(self) -> Breaker:
        """Returns a breaker of a server that is to be added."""
        return Breaker(
            self._settings, may_open=self._may_open, is_late=self._is_late, now=self._now, rng=self._rng
        )

    def add(self, name: str, made: Breaker | None = None) -> Breaker:
        """Returns the breaker of one more server, or of another one of this name."""
        self._breakers[name] = made = made or self.make()
        return made

    def remove(self, name: str) -> None:
        """Forgets the breaker of a server that is not used any more."""
        self._breakers.pop(name, None)

    def __getitem__(self, name: str) -> Breaker:
        return self._breakers[name]

    def get(self, name: str) -> Breaker | None:
        """Returns the breaker of a server; None if the server has none."""
        return self._breakers.get(name)

    def items(self) -> Iterator[tuple[str, Breaker]]:
        """Yields each server's name and breaker."""
        yield from self._breakers.items()

    def _may_open(self) -> bool:
        out = sum(breaker.is_open for breaker in self._breakers.values())
        return out < max(1, int(self._settings.out_at_most * len(self._breakers)))

    def _is_late(self, seconds: float) -> bool:
        if seconds <= self._late_from:
            return False
        means = [one.mean_seconds for one in self._breakers.values() if one.mean_seconds]
        return len(means) >= LATE_AMONG and seconds > LATE_TIMES * median(means)

    def __repr__(self) -> str:
        return f"<BreakerPool {self._breakers}>"


def not_tried(where: str) -> TierError:
    """Returns the failure of a call that a breaker did not let through."""
    return TierUnavailableError(where, NOT_TRIED)
