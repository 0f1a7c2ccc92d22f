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
from itertools import accumulate
from typing import Generic, TypeVar

from msgspec import Struct

from cachesvc.commands.check.history import Record

ScopeT = TypeVar("ScopeT", bound=Hashable)


class Debt(Struct, frozen=True, gc=False):
    """A version that reads owe which start after `since`.

    A start in the same µs as `since` does not count as later: the clock cannot tell which of the
    two came first.
    """

    since: int
    w: int
    proof: tuple[Record, ...] = ()
    """The records that made it a debt."""
    until: int | None = None
    """Owed only by reads that had ended by then; None if for ever."""


class Debts(Generic[ScopeT]):
    """Debts by scope. All debts are added before the first is asked for.

    Debts that end are few (one per outage), and are looked through one by one.
    """

    def __init__(self) -> None:
        self._lasting: defaultdict[ScopeT, list[Debt]] = defaultdict(list)
        self._ending: defaultdict[ScopeT, list[Debt]] = defaultdict(list)
        self._steps: dict[ScopeT, _Steps] = {}

    def add(self, scope: ScopeT, debt: Debt) -> None:
        (self._lasting if debt.until is None else self._ending)[scope].append(debt)

    def owed(self, scope: ScopeT, started: int, ended: int = 0) -> Debt | None:
        """The debt with the newest version for a read from `started` to `ended`; None if it owes
        nothing. `ended` counts only where debts end."""
        steps = self._steps.get(scope)
        if steps is None:
            steps = self._steps[scope] = _Steps(self._lasting.pop(scope, []))
        newest = steps.at(started)
        for debt in self._ending.get(scope, ()):
            stands = debt.since < started and (debt.until is None or ended <= debt.until)
            if stands and (newest is None or debt.w > newest.w):
                newest = debt
        return newest


class _Steps:
    """The newest lasting debt as a function of time; it changes only where a debt begins."""

    def __init__(self, debts: list[Debt]) -> None:
        debts.sort(key=lambda debt: debt.since)
        self._moments = [debt.since for debt in debts]
        self._newest = list(accumulate(debts, _newer))

    def at(self, moment: int) -> Debt | None:
        """The newest debt of a read that starts at `moment`."""
        step = bisect_left(self._moments, moment) - 1
        return self._newest[step] if step >= 0 else None


def _newer(newest: Debt, debt: Debt) -> Debt:
    return debt if debt.w > newest.w else newest
