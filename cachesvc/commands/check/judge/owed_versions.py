"""The versions that reads have to return: from some moment on, one write or a newer one.

Every check of freshness is a set of *debts*: a debt is a moment after which the reads of a scope
(a key everywhere, a key at one instance, a key in one session) must return version `w` or a newer
one. Of all debts that stand when a read starts, only the newest version counts. So the debts of a
scope are folded into steps, each with its newest version, and a read finds its step by bisection:
O(n log n) in all.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable
from heapq import heappop, heappush
from typing import Generic, TypeVar

from msgspec import Struct

from cachesvc.commands.check.history import Record

FOR_EVER = 1 << 63

ScopeT = TypeVar("ScopeT", bound=Hashable)


class Debt(Struct, frozen=True, gc=False):
    """A version that reads owe which start after `since`, and not after `until`.

    A start in the same µs as `since` does not count as later: the clock cannot tell which of the
    two came first.
    """

    since: int
    w: int
    until: int = FOR_EVER
    proof: tuple[Record, ...] = ()
    """The records that made it a debt."""


class Debts(Generic[ScopeT]):
    """Debts by scope. All debts are added before the first is asked for."""

    def __init__(self) -> None:
        self._added: defaultdict[ScopeT, list[Debt]] = defaultdict(list)
        self._steps: dict[ScopeT, _Steps] = {}

    def add(self, scope: ScopeT, debt: Debt) -> None:
        self._added[scope].append(debt)

    def owed(self, scope: ScopeT, moment: int) -> Debt | None:
        """The debt with the newest version for a read that starts at `moment`; None if it owes
        nothing."""
        steps = self._steps.get(scope)
        if steps is None:
            steps = self._steps[scope] = _Steps(self._added.pop(scope, []))
        return steps.at(moment)


class _Steps:
    """The newest debt as a function of time; it changes only where a debt begins or ends."""

    def __init__(self, debts: list[Debt]) -> None:
        self._moments = sorted({debt.since for debt in debts} | {debt.until for debt in debts})
        self._newest = _newest_after_each(self._moments, sorted(debts, key=lambda debt: debt.since))

    def at(self, moment: int) -> Debt | None:
        """The newest debt of a read that starts at `moment`."""
        step = bisect_left(self._moments, moment) - 1
        return self._newest[step] if step >= 0 else None


def _newest_after_each(moments: list[int], debts: list[Debt]) -> list[Debt | None]:
    """The newest debt after each moment. `debts` are ordered by `since`.

    A debt that has ended stays in the heap until it comes to the top.
    """
    newest: list[Debt | None] = []
    standing: list[tuple[int, int]] = []
    begun = 0
    for moment in moments:
        while begun < len(debts) and debts[begun].since <= moment:
            heappush(standing, (-debts[begun].w, begun))
            begun += 1
        while standing and debts[standing[0][1]].until <= moment:
            heappop(standing)
        newest.append(debts[standing[0][1]] if standing else None)
    return newest
