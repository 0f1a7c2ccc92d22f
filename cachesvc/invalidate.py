"""The invalidate path: append the change → apply it in its home cells → publish the fence → merge it here → answer.

Why the change is appended first: if this process dies between applying and publishing, the region's consumers find the change
open and do all of it again (COHERENCE-TRACES, 6). Applying twice costs misses; skipping once would serve old values.
"""

import asyncio
from collections.abc import Container, Iterable, Sequence

from msgspec import Struct

from cachesvc.clock import MILLISECONDS, SECONDS, Clock
from cachesvc.dialogue import Receipt
from cachesvc.errors import RequestError, TierError
from cachesvc.fences import Fences
from cachesvc.flight import Flights
from cachesvc.homes import Homes
from cachesvc.interfaces import Cell, Changes, FenceStream
from cachesvc.model import Change, Fence, Key, Target, TargetKind
from cachesvc.shelf import Shelf

HOLD_US = 2 * SECONDS
"""How long the region's consumers leave a change to the call that appended it: well above what a call takes, so that nothing is
applied twice in normal running, and short beside `max_lag` plus what a dead instance may cost."""


class Applied(Struct, frozen=True):
    """What applying changes came to: the fences to publish. Those of homes out of reach are `unapplied`."""

    fences: Sequence[Fence]

    @property
    def missed(self) -> frozenset[int]:
        """Digests of the targets that some home has not taken: their changes must stay open."""
        return frozenset(fence.digest for fence in self.fences if fence.unapplied)


class Applier:
    """Applies changes in their home cells and says which fences to publish. Used by the API and by the region's consumers."""

    def __init__(self, homes: Homes, clock: Clock, skew_us: int) -> None:
        self._homes = homes
        self._clock = clock
        self._lead_us = 2 * skew_us + MILLISECONDS

    async def apply(self, changes: Sequence[Change]) -> Applied:
        """One call per cell for hard targets and one for soft ones. Home out of reach: the fallback `at`, marked unapplied."""
        hard = _unique(target for change in changes if not change.soft for target in change.targets())
        soft = _unique(target for change in changes if change.soft for target in change.targets())
        done = await asyncio.gather(self._apply(hard, soft=False), self._apply(soft, soft=True))
        return Applied([*done[0], *done[1]])

    async def _apply(self, targets: Sequence[Target], *, soft: bool) -> list[Fence]:
        at = self._clock.now_us() + self._lead_us  # for tags and namespaces, and for keys whose home cannot issue one
        issued: dict[int, int] = {}
        missed: set[int] = set()
        batches = [
            self._apply_in(cell, batch, least, soft=soft)
            for cell, groups in self._by_cell(targets).items()
            for batch, least in ((groups[0], 0), (groups[1], at))
            if batch
        ]
        for batch, ats in await asyncio.gather(*batches):
            for target, answer in zip(batch, ats, strict=True):
                if isinstance(answer, TierError):
                    missed.add(target.digest)
                else:
                    issued[target.digest] = max(answer, issued.get(target.digest, 0))
        for digest in missed:
            issued[digest] = max(at, issued.get(digest, 0))
        return [self._fence(target, issued[target.digest], soft, missed) for target in targets]

    def fallback(self, target: Target) -> Fence:
        return self._fence(target, self._clock.now_us() + self._lead_us, False, {target.digest})

    def _by_cell(self, targets: Sequence[Target]) -> dict[Cell, tuple[list[Target], list[Target]]]:
        """For each cell: the keys (it issues their `at`), and the tags and namespaces (issued here)."""
        cells: dict[Cell, tuple[list[Target], list[Target]]] = {}
        for target in targets:
            for cell in self._homes.of_target(target):
                cells.setdefault(cell, ([], []))[target.kind is not TargetKind.KEY].append(target)
        return cells

    @staticmethod
    async def _apply_in(
        cell: Cell, batch: Sequence[Target], least: int, *, soft: bool
    ) -> tuple[Sequence[Target], Sequence[int | TierError]]:
        return batch, await cell.fence_many(batch, soft=soft, least=least)

    @staticmethod
    def _fence(target: Target, at: int, soft: bool, missed: set[int]) -> Fence:
        namespace = target.namespace if target.kind is TargetKind.NAMESPACE else ""
        return Fence(target.digest, at, soft=soft, namespace=namespace, unapplied=target.digest in missed)


class Merger:
    """Takes fences in: the sketch, the flights that must be forgotten. One instance, one merger: own fences and the feeds'."""

    def __init__(self, fences: Fences, flights: Flights) -> None:
        self._fences = fences
        self._flights = flights

    def merge(self, fences: Sequence[Fence], *, own: bool = False) -> None:
        """`own`: issued by this instance, for counting."""
        self._flights.forget(self._fences.merge(fences, own))


class Invalidator:
    def __init__(
        self,
        *,
        region: str,
        changes: Changes,
        stream: FenceStream,
        applier: Applier,
        merger: Merger,
        shelf: Shelf,
        clock: Clock,
        namespaces: Container[str],
    ) -> None:
        self._region = region
        self._changes = changes
        self._stream = stream
        self._applier = applier
        self._merger = merger
        self._shelf = shelf
        self._clock = clock
        self._namespaces = namespaces

    async def invalidate(self, change: Change) -> Receipt:
        """Invalidate keys, tags or a whole namespace. When it returns, this instance never again answers what was loaded
        before; the others follow as soon as they read the fence.

        Raises `RequestError`: 503 `queue-unavailable` if the change could not be accepted (nothing was promised), 503
        `fence-not-published` if it was accepted but its fence is not out yet (the region's consumers go on with it).
        Cancelled between the two, the consumers finish it as well.
        """
        if change.namespace not in self._namespaces:
            raise RequestError(404, "no-such-namespace", f"no namespace {change.namespace!r} is declared", field="namespace")
        if not (change.keys or change.tags or change.all):
            raise RequestError(400, "nothing-to-invalidate", "name keys, tags, or all: true", field="keys")
        id_ = await self.announce(change)
        applied = await self._applier.apply([change])
        await self.publish(applied, id_)
        if not change.soft:
            await self._shelf.drop([Key.of(change.namespace, text) for text in change.keys])
        return Receipt(f"{self._region}:{id_}", tuple((fence.digest, fence.at) for fence in applied.fences), not applied.missed)

    async def announce(self, change: Change) -> str:
        """Append a change that this process is about to apply by itself; its id."""
        try:
            return await self._changes.append(change, held_until_us=self._clock.now_us() + HOLD_US)
        except TierError as error:
            why = f"the queue of region {self._region!r} did not take the change, nothing was done: {error.why}"
            raise RequestError(503, "queue-unavailable", why, retryable=True, retry_after=1) from error

    async def publish(self, applied: Applied, id_: str) -> None:
        """Merge here, tell everybody, and close the change if every home has it. Merging first is safe and sooner."""
        self._merger.merge(applied.fences, own=True)
        try:
            await self._stream.publish(applied.fences, done=() if applied.missed else [id_])
        except TierError as error:
            why = "the change was accepted, but its fence could not be published yet; the region's consumers go on with it"
            token = tuple((fence.digest, fence.at) for fence in applied.fences)
            raise RequestError(503, "fence-not-published", why, retryable=True, retry_after=1, token=token) from error

    def fallback(self, key: Key) -> Fence:
        """The fence of a key whose home cannot be reached now; its change stays open until the home has it."""
        return self._applier.fallback(Target.key(key.namespace, key.text))

    async def forgo(self, id_: str) -> None:
        """Nothing was changed after all: close the announced change. If that fails it is applied, which costs a miss."""
        try:
            await self._changes.acknowledge([id_])
        except TierError:
            return


def _unique(targets: Iterable[Target]) -> list[Target]:
    return list({target.id: target for target in targets}.values())
