"""Gathers everything that decides about one key from the live system; changes nothing.

The instance that is asked looks at its own L1, its region's memcached and the key's home, and asks
every other instance for the same, all at once. Whatever takes longer than a person would like to
wait is left out, and named. The words are in `verdict.py`; whether a copy may be answered is
decided by the same `Admission` that reads use, so an explanation cannot disagree with what a read
would do.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import perf_counter
from typing import Protocol, TypeVar

from msgspec.structs import replace

from cachesvc.coherence.admission import Admission
from cachesvc.coherence.merge_history import Merged
from cachesvc.coherence.paced_fences import due_at
from cachesvc.config.topology import Topology
from cachesvc.explain.answer import (
    Copy,
    Explanation,
    FencesSeen,
    Home,
    HomeCell,
    LeaseSeen,
    Memcached,
    Merge,
    Now,
    Question,
    Seen,
    TargetFences,
    Window,
)
from cachesvc.explain.judge import _Judge
from cachesvc.explain.verdict import decide, marked, oldest, verdict
from cachesvc.explain.waits import NoAnswerError, Waits
from cachesvc.model.change import Target
from cachesvc.model.clock import SECONDS
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError, TierTimeoutError
from cachesvc.model.partition import partition
from cachesvc.model.requests import ReadOptions
from cachesvc.tiers.l1.l1 import L1
from cachesvc.tiers.l2.contract import Lookup
from cachesvc.tiers.l3.contract import CellKeyState
from cachesvc.tiers.l3.homes import Homes
from cachesvc.tiers.l3.leases import holder_of

TIER_SECONDS = 0.04
"""The first wait for each of the far tiers of an instance (`waits.py`).

Less than other instances wait for this one (`peers.py`), so that they learn what it does know.
"""
MOST_TIER_SECONDS = 0.64
"""The longest wait for a far tier, for the same reason less than the longest one there."""
MOST_MERGES = 8


T = TypeVar("T")


class PoolView(Protocol):
    """The region's memcached pool as explanations look at it, beside the paths."""

    def memcached_of(self, key: Key) -> Memcached:
        """The place of the key's copies."""
        ...

    async def look(self, key: Key) -> Lookup:
        """The copy in the pool. Nothing changes, not even the pool's breaker."""
        ...


class Peers(Protocol):
    """The other instances of every region."""

    async def ask(self, key: Key, question: Question) -> Sequence[Seen]:
        """The views of every other instance of every region.

        An instance that does not answer in time is there with its reason.
        """
        ...


class Explainer:
    """Explains keys of one instance. Changes nothing; any number of calls may run at once."""

    def __init__(
        self,
        *,
        me: tuple[str, str],
        topology: Topology,
        l1: L1,
        pool: PoolView,
        homes: Homes,
        peers: Peers,
        admission: Admission,
        is_overloaded: Callable[[], bool],
        is_unkept: Callable[[Key], bool],
        is_over_budget: Callable[[str], bool],
    ) -> None:
        """`me`: region and name of this instance.

        `is_unkept` tells whether values of a key could not be kept lately, `is_over_budget` whether no
        load of a namespace may begin now.
        """
        self._region, self._instance = me
        self._topology = topology
        self._l1 = l1
        self._pool = pool
        self._homes = homes
        self._peers = peers
        self._admission = admission
        self._fences = admission.fences
        self._clock = admission.clock
        self._is_overloaded = is_overloaded
        self._is_unkept = is_unkept
        self._is_over_budget = is_over_budget
        self._waits = Waits(TIER_SECONDS, MOST_TIER_SECONDS)

    def take(self, topology: Topology) -> None:
        """Explains by another topology from now on."""
        self._topology = topology

    async def answer(self, key: Key, question: Question) -> Explanation | Seen:
        """Returns the view of this instance if the question is `alone`, else an explanation."""
        return await (self.see(key, question) if question.alone else self.explain(key, question))

    async def explain(self, key: Key, question: Question) -> Explanation:
        """Returns everything known of the key, everywhere.

        A place that does not answer is there with its reason.
        """
        began = perf_counter()
        asked, elsewhere = await asyncio.gather(self.see(key, question), self._peers.ask(key, question))
        asked, *elsewhere = marked([asked, *elsewhere])
        home = _home_by_whoever_could(asked, elsewhere)
        found = oldest([asked, *elsewhere], home)
        return Explanation(
            verdict=verdict(asked, elsewhere, found),
            key=key.text,
            namespace=key.namespace,
            owner=self._topology.namespaces[key.namespace].owner,
            digest=f"{key.digest:016x}",
            partition=partition(key.text),
            home_cell=self._home_cell(key),
            memcached_server=asked.memcached.server if asked.memcached else "",
            asked=asked.name,
            clock=asked.clock,
            tiers=asked.tiers,
            memcached=asked.memcached,
            fences=asked.fences,
            home=home,
            now=asked.now,
            oldest=found,
            elsewhere=tuple(elsewhere),
            milliseconds=_milliseconds_since(began),
        )

    async def _in_time(self, asking: Awaitable[T], where: str) -> T | TierError:
        try:
            return await self._waits.within(where, asking)
        except NoAnswerError as error:
            return TierTimeoutError(where, str(error))

    async def see(self, key: Key, question: Question) -> Seen:
        """Returns the view that this instance has of the key."""
        began = perf_counter()
        l1 = self._l1.peek(key)
        asking_l2 = self._in_time(self._pool.look(key), "memcached")
        asking_home = self._in_time(self._inspect(key, l1.tags if l1 else ()), "home")
        l2, home = await asyncio.gather(asking_l2, asking_home)
        judge = _Judge(
            key,
            self._topology.namespaces[key.namespace],
            question,
            self._admission,
        )
        former = None if isinstance(home, CellKeyState) and home.entry else await self._look_at_former(key)
        at_home_copy = judge.at_home(home) if former is None else judge.near(former)
        tiers = {"l1": judge.near(l1), "l2": judge.near(l2), "l3": at_home_copy}
        held = (l1, l2, home.entry if isinstance(home, CellKeyState) else None, former)
        tags = dict.fromkeys(tag for entry in held if isinstance(entry, Entry) for tag in entry.tags)
        memcached, at_home = self._pool.memcached_of(key), self._home(key, home)
        return Seen(
            region=self._region,
            instance=self._instance,
            clock=self._clock.now_us(),
            tiers=tiers,
            memcached=memcached,
            fences=self._seen_fences(key, list(tags), home),
            home=at_home,
            now=self._decided(tiers, at_home, key, memcached, question.options),
            milliseconds=_milliseconds_since(began),
        )

    def _decided(
        self, tiers: dict[str, Copy], home: Home, key: Key, memcached: Memcached, options: ReadOptions
    ) -> Now:
        namespace = self._topology.namespaces[key.namespace]
        asks_l2 = memcached.breaker != "open"
        return decide(
            tiers,
            home,
            namespace,
            asks_l2=asks_l2,
            overloaded=self._is_overloaded(),
            over_budget=self._is_over_budget(key.namespace),
            options=options,
        )

    async def _inspect(self, key: Key, tags: Sequence[str]) -> CellKeyState | TierError:
        try:
            return await self._homes.of(key).inspect(key, tags)
        except TierError as error:
            return error

    async def _look_at_former(self, key: Key) -> Entry | None:
        """Returns the copy of the home that the key's partition has left, if reads ask there."""
        if self._homes.warm_until <= self._clock.now_us():
            return None
        former = self._homes.former_of(key)
        state = await self._in_time(former.inspect(key, ()), "former home") if former is not None else None
        is_held = isinstance(state, CellKeyState) and state.entry and state.entry.as_of > state.refused_until
        return state.entry if isinstance(state, CellKeyState) and is_held else None

    # where it lives ------------------------------------------------------------------------------

    def _home_cell(self, key: Key) -> HomeCell:
        placement, placed = self._homes.placement, partition(key.text)
        name = placement.home(key.text)
        former = placement.former.home(key.text) if placement.former else ""
        return HomeCell(
            name=name,
            region=self._topology.cells[name].region,
            why="pinned"
            if placement.is_pinned(placed)
            else "rendezvous hash over active cells, of its region if a prefix names one: the highest score",
            scores={cell: round(score, 4) for cell, score in placement.scores(placed)},
            former=former if former != name else "",
            master=self._homes.of(key).master,
        )

    def _home(self, key: Key, state: CellKeyState | TierError) -> Home:
        if isinstance(state, TierError):
            return Home(unavailable=str(state))
        instances = (
            (region, name) for region, here in self._topology.regions.items() for name in here.instances
        )
        holder = holder_of(state.lease, (*instances, (self._region, self._instance)))
        return Home(
            lease_held=state.lease_held,
            lease=LeaseSeen(holder, state.lease_as_of, state.lease_until) if state.lease_held else None,
            unkept=self._is_unkept(key),
            key_fence=state.fence_at,
            tag_fences=state.tag_fences,
            namespace_fence=state.namespace_fence,
            broken_at=state.broken_at,
            clock=state.now_us,
            server=f"{state.issuer:x}",
        )

    # fences --------------------------------------------------------------------------------------

    def _seen_fences(self, key: Key, tags: Sequence[str], home: CellKeyState | TierError) -> FencesSeen:
        targets = {"key": Target.key(key.namespace, key.text)}
        targets |= {f"tag {tag}": Target.tag(key.namespace, tag) for tag in tags}
        targets["namespace"] = Target.whole(key.namespace)
        merged = {name: self._fences.log.of(target.digest) for name, target in targets.items()}
        merges = [(name, one) for name, found in merged.items() for one in found]
        merges.sort(key=lambda named: named[1].merged_at, reverse=True)
        digests = [target.digest for name, target in targets.items() if name.startswith("tag ")]
        state = home if isinstance(home, CellKeyState) else None
        return FencesSeen(
            newest_known_here=self._fences.fence_on(key.digest, digests, key.namespace),
            floor=self._fences.floor,
            floor_why=self._why_floor(),
            staleness_bound_seconds=round(self._fences.bound_us(self._clock.now_us()) / SECONDS, 3),
            max_lag_seconds=self._topology.namespaces[key.namespace].max_lag.seconds,
            targets=tuple(
                self._fences_on(key, name, target, state, merged[name]) for name, target in targets.items()
            ),
            merges=tuple(_merge(name, one) for name, one in merges[:MOST_MERGES]),
            merges_forgotten_until=self._fences.log.forgotten_until,
        )

    def _fences_on(
        self, key: Key, name: str, target: Target, home: CellKeyState | None, merged: Iterable[Merged]
    ) -> TargetFences:
        known = self._fences.known(target.digest, key.namespace if name == "namespace" else "")
        at_home, soft_at_home = _stored(home, name) if home else (None, None)
        explained = {one.fence.at for one in merged} | {at_home, known.unapplied}
        return TargetFences(
            target=name,
            at_home=at_home,
            soft_at_home=soft_at_home,
            here=known.hard,
            soft_here=known.soft,
            unapplied=known.unapplied,
            paced=tuple(
                Window(window.at, window.over / SECONDS, due_at(window.start, window.over, key.digest))
                for window in known.windows
            ),
            perhaps_collision=at_home is not None and known.hard > at_home and known.hard not in explained,
        )

    def _why_floor(self) -> str:
        raised = self._fences.floor_raise
        if raised is None:
            return ""
        return (
            "fences were lost before they were read"
            if raised.lost
            else "this instance had just begun to read the fences"
        )


def _stored(home: CellKeyState, name: str) -> tuple[int, int]:
    """The hard and the soft fence stored in the home cell, µs."""
    if name == "key":
        return home.fence_at, home.soft_fence
    if name == "namespace":
        return home.namespace_fence, home.soft_namespace_fence
    tag = name.removeprefix("tag ")
    return home.tag_fences.get(tag, 0), home.soft_tag_fences.get(tag, 0)


def _merge(name: str, merged: Merged) -> Merge:
    fence = merged.fence
    kind = "paced" if fence.over else "soft" if fence.soft else "hard"
    applied_by = {cell: f"{issuer:x}" for cell, issuer in fence.issuers}
    return Merge(name, kind, fence.at, merged.merged_at, merged.region or "here", applied_by)


def _home_by_whoever_could(asked: Seen, elsewhere: Iterable[Seen]) -> Home:
    """The state of the home as this instance was told it, or else as another one was.

    This instance may be cut off from the home while others are not.
    """
    mine = asked.home or Home(unavailable="not asked")
    if not mine.unavailable:
        return mine
    told = (
        (seen.name, seen.home) for seen in elsewhere if seen.home is not None and not seen.home.unavailable
    )
    return next((replace(home, told_by=name) for name, home in told), mine)


def _milliseconds_since(began: float) -> float:
    return round((perf_counter() - began) * 1000, 1)
