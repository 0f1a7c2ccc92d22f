"""The origin budget of a namespace at one instance: its shares of the region's limits.

Every load takes a turn before it begins, whoever does it: this instance, or a caller under a lease.
The turns of an instance are its shares of the loads that may run at once and of the loads that may
begin in a second. Turns are given first come first served; a load that waits longer than its
patience is refused, without having reached the origin.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from math import ceil, inf

from cachesvc.config.limits import OriginBudget
from cachesvc.model.errors import OriginError
from cachesvc.model.problems import ProblemKind
from cachesvc.tiers.shares.bucket import Bucket
from cachesvc.tiers.shares.share import FLOOR_SHARE, Limit, Share

LONGEST_RETRY_SECONDS = 60
"""The longest time after which a refused caller is asked to try again."""
SOON_SECONDS = 0.001
"""The least time of a timer: one that is due at once might be early by rounding."""


class Turns:
    """The loads of one namespace at one instance, under the budget of its region."""

    def __init__(
        self,
        namespace: str,
        budget: OriginBudget,
        *,
        instances: int,
        longest_load_us: int,
        most_here: float = inf,
        want: Callable[[], None] = lambda: None,
    ) -> None:
        """`instances`: those of the region. `want` is called when a load waits for a larger share.

        `most_here`: the loads at once that this instance can use, whatever its share is.
        """
        self.namespace = namespace
        self.running = 0
        """Loads that have a turn now."""
        self._budget = budget
        self._most_here = most_here
        self.want = want
        self._at_once: Share | None = None
        self._per_second: Share | None = None
        if budget.concurrency:
            self._at_once = Share(
                Limit("namespace", namespace, "loads-at-once"),
                budget.concurrency,
                instances=instances,
                floor_share=FLOOR_SHARE,
                least=1.0,
                outlast_us=longest_load_us,
            )
            self._at_once.demand_now, self._at_once.running = self._peak_of_late, lambda: self.running
            self._at_once.changed = self._let_in
        if budget.loads_per_second:
            self._per_second = Share(
                Limit("namespace", namespace, "loads"),
                budget.loads_per_second,
                instances=instances,
                floor_share=FLOOR_SHARE,
            )
            self._per_second.demand_now = self._begun_of_late
            self._per_second.changed = self._change_rate
        self._bucket: Bucket | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._peak = 0
        """The most loads that ran or waited since the lessor was last asked."""
        self._tried = 0
        """Loads that asked for a turn since the lessor was last asked."""
        self._tried_since = 0.0

    def __repr__(self) -> str:
        shares = ", ".join(f"{share.in_force:g} of {share.amount:g}" for share in self.shares)
        return f"<Turns of {self.namespace} [{self.running} running, {self.waiting} waiting, {shares}]>"

    @property
    def shares(self) -> list[Share]:
        return [share for share in (self._at_once, self._per_second) if share is not None]

    def change(self, budget: OriginBudget) -> None:
        """Takes the numbers of another budget that limits the same things; else does nothing."""
        if (bool(budget.concurrency), bool(budget.loads_per_second)) != (
            self._at_once is not None,
            self._per_second is not None,
        ):
            return
        self._budget = budget
        if self._at_once is not None:
            self._at_once.resize(budget.concurrency)
        if self._per_second is not None:
            self._per_second.resize(budget.loads_per_second)
            self._change_rate()

    @property
    def refused(self) -> int:
        """Loads that got no turn in time."""
        return sum(share.refused for share in self.shares)

    @property
    def waiting(self) -> int:
        """Loads that wait for their turn now."""
        return len(self._waiting)

    @property
    def is_used_up(self) -> bool:
        """True if a load would have to wait for its turn now."""
        return bool(self._waiting) or not self._has_turn()

    # one load -------------------------------------------------------------------------------------

    def has_one(self) -> bool:
        """True if a load may begin now; else a refusal is counted, and more is asked for."""
        if not self.is_used_up:
            return True
        self._note_try()
        self._lacking.refuse()
        self.want()
        return False

    async def take(self, patience_seconds: float) -> None:
        """Takes a turn, after at most so many seconds.

        Raises `OriginError` (`origin-budget`). A caller that is cancelled has no turn.
        """
        self._note_try()
        if not self._waiting and self._has_turn():
            self._begin()
            return
        self.want()
        if patience_seconds <= 0:
            raise self._refusal()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._let_in()  # a turn may have come due since the timer was set
        try:
            async with asyncio.timeout(patience_seconds):
                await turn
        except BaseException as error:
            has_turn = turn.done() and not turn.cancelled()
            if isinstance(error, TimeoutError) and has_turn:
                return  # its turn came in the same tick of the loop
            if has_turn:
                self.give_back()
            else:
                turn.cancel()
                if turn in self._waiting:
                    self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise self._refusal() from error
            raise

    def give_back(self) -> None:
        """Ends a load that had a turn."""
        self.running -= 1
        self._let_in()

    # who is let in --------------------------------------------------------------------------------

    def _has_turn(self) -> bool:
        if self._at_once is not None and self.running + 1 > self._at_once.in_force + 1e-6:
            return False
        return self._per_second is None or self._tokens().has_one(self._now())

    def _begin(self) -> None:
        self.running += 1
        for share in self.shares:
            share.used += 1
        if self._per_second is not None:
            self._tokens().charge(1, self._now())

    def _let_in(self) -> None:
        """Gives turns to the loads that wait, as far as there are any."""
        while self._waiting:
            if self._waiting[0].done():  # its caller has gone, and has not run since
                self._waiting.popleft()
            elif self._has_turn():
                self._begin()
                self._waiting.popleft().set_result(None)
            else:
                break
        self._wake_in_time()

    def _wake_in_time(self) -> None:
        """Has `_let_in` called when the next token comes in, if a load waits for one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting or self._per_second is None:
            return
        seconds = self._tokens().seconds_until_one(self._now())
        if 0 < seconds < LONGEST_RETRY_SECONDS:
            self._timer = asyncio.get_running_loop().call_later(max(seconds, SOON_SECONDS), self._let_in)

    def _tokens(self) -> Bucket:
        if self._bucket is None:
            self._bucket = Bucket(*self._rate(), self._now())
        return self._bucket

    def _rate(self) -> tuple[float, float]:
        assert self._per_second is not None  # noqa: S101  asked only with a rate
        share = self._per_second.in_force
        return share, self._budget.most_at_once * share / self._per_second.amount

    def _change_rate(self) -> None:
        self._tokens().change(*self._rate(), self._now())
        self._let_in()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _refusal(self) -> OriginError:
        self._lacking.refuse()
        seconds = 1.0 if self._per_second is None else self._tokens().seconds_until_one(self._now())
        return OriginError(
            f"all loads that its origin budget allows in this region are taken ({self._shares_said()})",
            kind=ProblemKind.ORIGIN_BUDGET,
            retry_after=ceil(min(max(seconds, 1.0), LONGEST_RETRY_SECONDS)),
        )

    @property
    def _lacking(self) -> Share:
        """The share that has no turn now."""
        at_once, per_second = self._at_once, self._per_second
        if at_once is not None and (per_second is None or self.running + 1 > at_once.in_force):
            return at_once
        assert per_second is not None  # noqa: S101  a budget has one of both
        return per_second

    def _shares_said(self) -> str:
        said = []
        if self._at_once is not None:
            said.append(
                f"{self._at_once.in_force:g} of {self._at_once.amount:g} at once are of this instance"
            )
        if self._per_second is not None:
            share = self._per_second
            said.append(f"{share.in_force:.3g} of {share.amount:g} per second are of this instance")
        return ", ".join(said)

    # what the lessor is told ----------------------------------------------------------------------

    def _note_try(self) -> None:
        self._tried += 1
        self._peak = max(self._peak, self.running + len(self._waiting) + 1)

    def _peak_of_late(self) -> float:
        peak = max(self._peak, self.running + len(self._waiting))
        self._peak = self.running + len(self._waiting)
        return min(peak, self._most_here)

    def _begun_of_late(self) -> float:
        now = self._now()
        seconds, tried = now - self._tried_since, self._tried
        self._tried_since, self._tried = now, 0
        return tried / max(seconds, SOON_SECONDS)
