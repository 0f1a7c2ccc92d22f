"""Applies changes in their home cells: which cells, in which order, and which fences.

A change that some cells have missed is applied again in those cells alone, with its first `at`
(`Applier.retry`): with a later one, the cells that took it would refuse every copy that was loaded
since, once per second while another cell is away. Once none is missing, the others apply it once
more, with that `at`: the fence then names the servers of all its homes.

A hard or soft target goes to each of its home cells, in one call per cell and batch. While
partitions move (`Topology.former`), it goes after that to the homes that the partitions left, with
the new home's `at` as the least. A paced target goes to no cell, because instances alone judge
paced fences.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct, field

from cachesvc.changes.contract import Audit, Done, Missing
from cachesvc.model.change import Change, Target, TargetKind
from cachesvc.model.clock import MILLISECONDS, Clock
from cachesvc.model.entry import Key
from cachesvc.model.errors import TierError
from cachesvc.model.fence import Fence, Issuers
from cachesvc.telemetry.traces.trace import Span
from cachesvc.tiers.l3.contract import Cell, FenceReply
from cachesvc.tiers.l3.homes import Homes


class Applied(Struct):
    """The result of applying changes; the mappings go by the digest of a target."""

    fences: list[Fence] = field(default_factory=list)
    """The fences to publish."""
    took: dict[int, dict[str, int]] = field(default_factory=dict)
    """The cells that have applied the target: name, and the number of the server that did."""
    missed: dict[int, list[str]] = field(default_factory=dict)
    """Names of the cells that did not take the target. Its fence is marked `unapplied`, and
    its change must be tried again."""
    named: list[list[int]] = field(default_factory=list)
    """For each change that was applied, the digests of its targets."""
    placement: int = 0
    """The placement under which the changes were applied."""
    ats: dict[int, int] = field(default_factory=dict)
    """The newest `at` by target, from `fences`; made when it is first asked for."""

    def done(self, id_: str, digests: Sequence[int], audit: Audit | None = None) -> Done:
        """Returns the change `id_`, which named these targets, as done, for publishing."""
        missed = _names(self.missed, digests)
        at = max((self._at_of(digest) for digest in digests if digest in self.missed), default=0)
        return Done(
            id_,
            missed=missed,
            cells=_names(self.took, digests),
            audit=audit,
            at=at,
            placement=self.placement,
        )

    def _at_of(self, digest: int) -> int:
        """Returns the newest `at` of the fences on a target; 0 if it has none."""
        if not self.ats:
            for fence in self.fences:
                self.ats[fence.digest] = max(fence.at, self.ats.get(fence.digest, 0))
        return self.ats.get(digest, 0)

    def describe(self, span: Span | None, changes: Sequence[Change]) -> None:
        """Writes counts and names of cells on the span of applying `changes`; no keys."""
        if span is None:
            return
        span.attributes["cachesvc.changes"] = len(changes)
        span.attributes["cachesvc.cells"] = ",".join(_all_names(self.took))
        if len(namespaces := {change.namespace for change in changes}) == 1:
            span.attributes["cachesvc.namespace"] = namespaces.pop()
        if self.missed:
            span.attributes["cachesvc.missed"] = ",".join(_all_names(self.missed))
            span.error = "home-unavailable"

    def merge(self, other: "Applied") -> None:
        """Adds another result to this one; `named` stays."""
        self.placement = self.placement or other.placement
        self.fences += other.fences
        for digest, issuers in other.took.items():
            self.took.setdefault(digest, {}).update(issuers)
        for digest, cells in other.missed.items():
            known = self.missed.setdefault(digest, [])
            known += [cell for cell in cells if cell not in known]


class Applier:
    """Applies changes for the API and for the region's consumers.

    Any number of calls may run at once.
    """

    def __init__(self, homes: Homes, clock: Clock, skew_us: int) -> None:
        self._homes = homes
        self._clock = clock
        self._lead_us = 2 * skew_us + MILLISECONDS

    async def apply(self, changes: Sequence[Change]) -> Applied:
        """Applies changes and returns the fences to publish. Never raises `TierError`.

        A target that is named more than once is applied once. If a cell is out of reach, the fence gets the
        fallback `at` (this instance's clock + 2 S + 1 ms) and is marked unapplied.
        """
        named = [change.targets() for change in changes]
        kinds: dict[tuple[bool, int], dict[bytes, Target]] = {}
        for change, targets in zip(changes, named, strict=True):
            kinds.setdefault((change.soft, change.over_us), {}).update(
                (target.id, target) for target in targets
            )
        applied = Applied(
            named=[[target.digest for target in targets] for targets in named],
            placement=self._homes.placement_id,
        )
        parts = (
            self._apply(list(unique.values()), soft=soft)
            for (soft, over), unique in kinds.items()
            if not over
        )
        for part in await asyncio.gather(*parts):
            applied.merge(part)
        for (_, over), unique in kinds.items():
            if over:
                applied.fences += self._paced(list(unique.values()), over)
        return applied

    def can_retry(self, missing: Missing) -> bool:
        """True if the change can be applied in the cells that miss it alone.

        Under another placement than that of its parking, a target may have a home that was never asked.
        """
        return missing.placement == self._homes.placement_id

    async def retry(self, changes: Sequence[Change], missing: Missing) -> Applied:
        """Applies parked changes in the cells that miss them, with their first `at`.

        Returns the fences to publish, as `apply` does. A target with no home among those cells was applied
        by all its homes and has no fence here.
        """
        named = [change.targets() for change in changes]
        applied = Applied(
            named=[[target.digest for target in targets] for targets in named],
            placement=self._homes.placement_id,
        )
        for change, targets in zip(changes, named, strict=True):
            if not change.over_us:
                unique = {target.digest: target for target in targets}
                applied.merge(await self._retry(list(unique.values()), change.soft, missing))
        return applied

    async def _retry(self, targets: Sequence[Target], soft: bool, missing: Missing) -> Applied:
        """Applies these targets, the new homes first, as `_apply` does."""
        applied, issued = Applied(), dict.fromkeys((target.digest for target in targets), missing.at)
        for homes in (self._homes.of_target, self._homes.former_of_target):
            cells = _by_cell(targets, homes)
            left = {cell: found for cell, found in cells.items() if cell.name in missing.cells}
            await self._round(left, soft, None, issued, applied)
        concerned = applied.took.keys() | applied.missed.keys()
        await self._complete(
            [target for target in targets if target.digest in applied.took.keys() - applied.missed.keys()],
            soft,
            missing,
            issued,
            applied,
        )
        applied.fences = self._fences(
            [target for target in targets if target.digest in concerned], issued, soft, applied
        )
        return applied

    async def _complete(
        self,
        targets: Sequence[Target],
        soft: bool,
        missing: Missing,
        issued: dict[int, int],
        applied: Applied,
    ) -> None:
        """Applies targets that no cell misses any more in the cells that took them before.

        Which servers these were then is not known any more, and one of them may have failed over since.
        """
        for homes in (self._homes.of_target, self._homes.former_of_target):
            cells = _by_cell(targets, homes)
            others = {cell: found for cell, found in cells.items() if cell.name not in missing.cells}
            await self._round(others, soft, None, issued, applied)

    def fallback(self, target: Target) -> Applied:
        """Returns the result for a key whose home did not take a put: an unapplied invalidation."""
        cells = [cell.name for cell in self._homes.of_target(target)]
        return Applied(
            [self._fence(target, self._fallback_at(), unapplied=True)],
            missed={target.digest: cells},
            placement=self._homes.placement_id,
        )

    async def follow(self, moved: Sequence[tuple[Key, FenceReply]]) -> Applied:
        """Returns the fences for keys whose homes have issued `at` already (puts).

        While partitions move, the fences are first applied in the former homes.
        """
        targets = [Target.key(key.namespace, key.text) for key, _ in moved]
        issued = {key.digest: reply.at for key, reply in moved}
        applied = Applied(
            took={key.digest: {self._homes.of(key).name: reply.issuer} for key, reply in moved},
            placement=self._homes.placement_id,
        )
        if self._homes.has_former:
            await self._round(_by_cell(targets, self._homes.former_of_target), False, None, issued, applied)
        applied.fences = self._fences(targets, issued, False, applied)
        return applied

    async def _apply(self, targets: Sequence[Target], *, soft: bool) -> Applied:
        at = self._fallback_at()  # for tags and namespaces, and for keys whose home issues no `at`
        issued: dict[int, int] = {}
        applied = Applied()
        await self._round(_by_cell(targets, self._homes.of_target), soft, at, issued, applied)
        if self._homes.has_former:
            for target in targets:
                # A home out of reach has issued nothing: the former home gets the fallback.
                issued.setdefault(target.digest, at)
            former = _by_cell(targets, self._homes.former_of_target)
            await self._round(former, soft, None, issued, applied)
        for digest in applied.missed:
            issued[digest] = max(at, issued.get(digest, 0))
        applied.fences = self._fences(targets, issued, soft, applied)
        return applied

    async def _round(
        self,
        cells: Mapping[Cell, Sequence[Target]],
        soft: bool,
        at: int | None,
        issued: dict[int, int],
        applied: Applied,
    ) -> None:
        """Calls each cell once per value of least, all at the same time.

        `at` None: the cells are former homes, and the least is the `at` that the new home has issued.
        """
        calls = [
            (cell, batch, least)
            for cell, targets in cells.items()
            for least, batch in _by_least(targets, at, issued).items()
        ]
        answers = await asyncio.gather(
            *(cell.fence_many(batch, soft=soft, least=least) for cell, batch, least in calls)
        )
        for (cell, batch, _), ats in zip(calls, answers, strict=True):
            for target, answer in zip(batch, ats, strict=True):
                digest = target.digest
                if isinstance(answer, TierError):
                    applied.missed.setdefault(digest, []).append(cell.name)
                else:
                    applied.took.setdefault(digest, {})[cell.name] = answer.issuer
                    issued[digest] = max(answer.at, issued.get(digest, 0))

    def _paced(self, targets: Sequence[Target], over: int) -> list[Fence]:
        at = self._fallback_at()
        return [Fence(target.digest, at, namespace=_name(target), over=over) for target in targets]

    def _fences(
        self, targets: Sequence[Target], issued: Mapping[int, int], soft: bool, applied: Applied
    ) -> list[Fence]:
        missed, took = applied.missed, applied.took
        return [
            self._fence(
                target,
                issued[target.digest],
                soft,
                unapplied=target.digest in missed,
                issuers=tuple(sorted(took.get(target.digest, {}).items())),
            )
            for target in targets
        ]

    def _fallback_at(self) -> int:
        return self._clock.now_us() + self._lead_us

    def _fence(
        self,
        target: Target,
        at: int,
        soft: bool = False,
        *,
        unapplied: bool = False,
        issuers: Issuers = (),
    ) -> Fence:
        return Fence(
            target.digest,
            at,
            soft,
            _name(target),
            unapplied,
            placement=self._homes.placement_id,
            issuers=issuers,
        )


def _by_cell(
    targets: Iterable[Target], homes: Callable[[Target], Sequence[Cell]]
) -> dict[Cell, list[Target]]:
    cells: dict[Cell, list[Target]] = {}
    for target in targets:
        for cell in homes(target):
            cells.setdefault(cell, []).append(target)
    return cells


def _by_least(
    targets: Sequence[Target], at: int | None, issued: Mapping[int, int]
) -> dict[int, list[Target]]:
    """Groups the targets by the least that their cell is given.

    Keys get their `at` from their cell (least 0), tags and namespaces get it from this instance. In a
    former home every target gets the new home's `at`.
    """
    groups: dict[int, list[Target]] = {}
    for target in targets:
        least = issued[target.digest] if at is None else 0 if target.kind is TargetKind.KEY else at
        groups.setdefault(least, []).append(target)
    return groups


def _name(target: Target) -> str:
    return target.namespace if target.kind is TargetKind.NAMESPACE else ""


def _all_names(cells: Mapping[int, Iterable[str]]) -> list[str]:
    return sorted({name for names in cells.values() for name in names})


def _names(cells: Mapping[int, Iterable[str]], digests: Sequence[int]) -> tuple[str, ...]:
    if len(digests) == 1:
        return tuple(cells.get(digests[0], ()))
    return tuple(sorted({name for digest in digests for name in cells.get(digest, ())}))
