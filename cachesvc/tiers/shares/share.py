"""One instance's share of a limit that holds for a whole region.

A limit of a region is split into shares, one for each instance, by demand. The region's queue
hands them out (`changes/redis/lua/shares.lua`), and each instance asks for its share anew twice a
second. What holds:

1. The shares in force are never more than the limit. A share that shrinks is free for others only
   once its instance has said, with its next request, that it uses no more than the smaller one.
2. An instance that dies says nothing any more: its share is free once its term has ended on the
   server's clock. Its own term began before the request was sent, on its own monotonic clock, so it
   has ended earlier, whatever became of the answer.
3. An instance that is cut off from the queue keeps its last share until its term ends
   (`KEEP_SECONDS`). After that it may use its *floor*, for as long as it is cut off: its part of a
   quarter of the limit, and one load at least. Floors are no addition to the limit: for ten minutes
   the server keeps back the floor of an instance that fell silent. So if the queue is away for all,
   a quarter of the limit is still used.
4. What was begun under a share may outlast it: the server's term is longer than the instance's by
   the longest time that a load may take.
5. A queue that lost its state, or another server under its name, grants nobody more than it uses
   until every share of the old server has ended.

An instance that starts has no share before it has asked for one, and its floor if nobody has
answered for a term.

Rates have no floor (`floor_share` 0): an instance that is cut off keeps its last share until the
queue is back. To refuse the requests of a region because its queue is away would be worse than to
count them less exactly meanwhile.

The idea is that of a lease (Gray & Cheriton, SOSP 1989), applied to parts of a quantity; the split
by demand is max-min fairness (Bertsekas & Gallager, Data Networks, 6.5.2).
"""

from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from cachesvc.tiers.shares.contract import Ask, Grant

KEEP_SECONDS = 10.0
"""The time for which a share is in force after it was asked for.

A queue that restarts or fails over is back within it, as a rule; the share of an instance that died
is missed for as long.
"""
FLOOR_SHARE = 0.25
"""The part of a limit that instances which are cut off may use together."""
DECAY = 0.7
"""The part of its last demand for which a share asks at the least.

A short lull then does not give away what will be needed again.
"""


class Limit(NamedTuple):
    """The name of a limit."""

    of: str
    """`namespace` or `caller`."""
    name: str
    """The name of the namespace or of the caller."""
    what: str
    """The thing that is limited, such as `reads`."""

    def __str__(self) -> str:
        return f"{self.what} of {self.of} {self.name}"


class Share:
    """A share of one limit. On the event loop only."""

    def __init__(
        self,
        limit: Limit,
        amount: float,
        *,
        instances: int,
        floor_share: float = 0.0,
        least: float = 0.0,
        outlast_us: int = 0,
    ) -> None:
        """Makes a share that is nothing until the first grant; without a floor, an equal part.

        `outlast_us`: the longest time for which something begun under the share goes on after its end.
        """
        self.limit = limit
        self.amount = amount
        self.in_force = 0.0 if floor_share else amount / instances
        """The part of the limit that may be used now."""
        self.is_cut_off = False
        """True once the term has ended without a new grant."""
        self.used = 0
        """All that was used under this limit since the start."""
        self.refused = 0
        """All that was refused because of this limit since the start."""
        self.refused_at = float("-inf")
        """The time of the last refusal, as `time.monotonic` counts."""
        self.demand_now: Callable[[], float] = lambda: 0.0
        """Returns what the instance could use, as of now."""
        self.running: Callable[[], float] = lambda: 0.0
        """Returns what is used now and cannot be given back at once."""
        self.changed: Callable[[], None] = lambda: None
        """Called when `in_force` has changed."""
        self._floor_share = floor_share
        self._least = least
        self._outlast_us = outlast_us
        self._floor = max(least, amount * floor_share / instances)
        self._has_grant = False
        self._demand = 0.0

    def __repr__(self) -> str:
        cut_off = ", cut off" if self.is_cut_off else ""
        return f"<Share {self.in_force:g} of {self.amount:g} {self.limit}{cut_off}>"

    def ask(self, keep_seconds: float) -> Ask:
        """Returns what to ask the lessor."""
        self._demand = max(self.demand_now(), self._demand * DECAY)
        return Ask(
            str(self.limit),
            self.amount,
            round(keep_seconds * 1e6) + self._outlast_us,
            self._floor_share,
            self._least,
            max(self.in_force, self.running()),
            self._demand,
        )

    def grant(self, grant: Grant) -> bool:
        """Takes a grant; returns True if the share has shrunk, which others wait to hear.

        A server that grants more than there is grants all of it: it may be hostile.
        """
        share = min(grant.share, self.amount)
        shrank = share < self.in_force
        self._floor, self.is_cut_off, self._has_grant = min(grant.floor, self.amount), False, True
        self._put_in_force(share)
        return shrank

    def resize(self, amount: float) -> None:
        """Changes the whole limit; the share stays the same part of it until the next grant."""
        part = amount / self.amount
        self.amount = amount
        self._floor = max(self._least, self._floor * part)
        self._put_in_force(self.in_force * part)

    def refuse(self) -> None:
        """Counts a refusal."""
        self.refused += 1
        self.refused_at = monotonic()

    def lapse(self) -> None:
        """Notes that the term has ended without a new grant."""
        self.is_cut_off = True
        if self._floor_share:
            self._put_in_force(min(self.in_force, self._floor) if self._has_grant else self._floor)

    def _put_in_force(self, share: float) -> None:
        if share != self.in_force:
            self.in_force = share
            self.changed()
