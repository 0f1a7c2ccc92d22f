"""Applies changes in their home cells: which cells, in which order, and which fences.

A target that some cells have missed is applied again in those cells alone, with its first `at`
(`Applier.retry`): with a later one, the cells that took it would refuse every copy that was loaded
since, once per second while another cell is away. The fence that follows names the server that has
taken it now.

A hard or soft target goes to each of its home cells, in one call per cell and batch. While
partitions move (`Topology.former`), it goes after that to the homes that the partitions left, with
the new home's `at` as the least. A paced target goes to no cell, because instances alone judge
paced fences.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from cachesvc.changes.contract import Audit, Done, Parked
from cachesvc.model.change import Change, Target, TargetKind
from cachesvc.model.clock import MILLISECONDS, Clock
from cachesvc.model.entry import Key
from cachesvc.model.errors import TierError
from cachesvc.model.fence import Fence
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
    it must be tried again there."""
    named: list[list[int]] = field(default_factory=list)
    """For each change that was applied, the digests of its targets."""
    placement: int = 0
    """The placement under which the changes were applied."""
    parked: dict[int, list[Parked]] = field(default_factory=dict)
    """The target as it is to be parked, once for each cell that missed it."""

    def done(self, id_: str, digests: Sequence[int], audit: Audit | None = None) -> Done:
        """Returns the change `id_`, which named these targets, as done, for publishing."""
        parked = tuple(one for digest in dict.fromkeys(digests) for one in self.parked.get(digest, ()))
        return Done(id_, parked, cells=_names(self.took, digests), audit=audit)

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
        for digest, parked in other.parked.items():
            self.parked.setdefault(digest, []).extend(parked)


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
        homes = self._homes.now()
        named = [change.targets() for change in changes]
        kinds: dict[tuple[bool, int], dict[bytes, Target]] = {}
        for change, targets in zip(changes, named, strict=True):
            kinds.setdefault((change.soft, change.over_us), {}).update(
                (target.id, target) for target in targets
            )
        applied = Applied(
            named=[[target.digest for target in targets] for targets in named],
            placement=homes.placement_id,
        )
        parts = (
            self._apply(homes, list(unique.values()), soft=soft)
            for (soft, over), unique in kinds.items()
            if not over
        )
        for part in await asyncio.gather(*parts):
            applied.merge(part)
        for (_, over), unique in kinds.items():
            if over:
                applied.fences += self._paced(list(unique.values()), over)
        return applied

    def can_retry(self, parked: Parked) -> bool:
        """True if the target can be applied in the cell that misses it alone.

        Under another placement than that of its parking, it may have a home that was never asked. What
        stands for everything in a cell names no target. Its cell alone misses it: a cell that was given
        partitions since is a new issuer, and every instance keeps the fences of another placement.
        """
        return parked.target is None or parked.placement == self._homes.placement_id

    async def retry(self, parked: Sequence[Parked], namespaces: Iterable[str]) -> Sequence[Parked]:
        """Applies targets in the cells that miss them, with their first `at`; returns those taken.

        They come with the server that has taken them. The servers of their other homes are not named again:
        the fence of the parking named them, and an instance that knows other servers keeps that fence with
        an `at` that is S + 1 ms later, which this one does not end. For everything in a cell, all of
        `namespaces` are fenced there. What is parked for a cell that the topology does not know any more
        counts as taken.
        """
        whole = [Target.whole(name) for name in namespaces]
        calls: dict[tuple[str, bool, int, bool], list[Parked]] = {}
        for one in parked:
            calls.setdefault((one.cell, one.soft, one.at, one.target is None), []).append(one)
        answers = await asyncio.gather(
            *(
                self._take(cell, [one.target for one in batch if one.target] or whole, soft, at)
                for (cell, soft, at, _), batch in calls.items()
            )
        )
        taken: list[Parked] = []
        for batch, replies in zip(calls.values(), answers, strict=True):
            if batch[0].target is None:  # everything in a cell is one item, and was tried as many targets
                taken += batch if not any(isinstance(reply, TierError) for reply in replies) else []
                continue
            taken += [
                replace(one, issuers=((one.cell, reply.issuer),))
                for one, reply in zip(batch, replies, strict=True)
                if not isinstance(reply, TierError)
            ]
        return taken

    async def _take(
        self, cell: str, targets: Sequence[Target], soft: bool, at: int
    ) -> Sequence[FenceReply | TierError]:
        home = self._homes.named(cell)
        if home is None:
            return [FenceReply(at, 0)] * len(targets)
        return await home.fence_many(targets, soft=soft, least=at)

    def fallback(self, target: Target, homes: Homes) -> Applied:
        """Returns the result for a key whose home did not take a put: an unapplied invalidation.

        `homes`: those under which the put was sent.
        """
        cells = [cell.name for cell in homes.of_target(target)]
        applied = Applied(missed={target.digest: cells}, placement=homes.placement_id)
        applied.fences = _fences(homes, [target], {target.digest: self._fallback_at()}, False, applied)
        return applied

    async def follow(self, moved: Sequence[tuple[Key, FenceReply]], homes: Homes) -> Applied:
        """Returns the fences for keys whose homes have issued `at` already (puts).

        While partitions move, the fences are first applied in the former homes. `homes`: those under
        which the puts were sent.
        """
        targets = [Target.key(key.namespace, key.text) for key, _ in moved]
        issued = {key.digest: reply.at for key, reply in moved}
        applied = Applied(
            took={key.digest: {homes.of(key).name: reply.issuer} for key, reply in moved},
            placement=homes.placement_id,
        )
        if homes.has_former:
            await _round(_by_cell(targets, homes.former_of_target), False, None, issued, applied)
        applied.fences = _fences(homes, targets, issued, False, applied)
        return applied

    async def _apply(self, homes: Homes, targets: Sequence[Target], *, soft: bool) -> Applied:
        at = self._fallback_at()  # for tags and namespaces, and for keys whose home issues no `at`
        issued: dict[int, int] = {}
        applied = Applied()
        await _round(_by_cell(targets, homes.of_target), soft, at, issued, applied)
        if homes.has_former:
            for target in targets:
                # A home out of reach has issued nothing: the former home gets the fallback.
                issued.setdefault(target.digest, at)
            former = _by_cell(targets, homes.former_of_target)
            await _round(former, soft, None, issued, applied)
        for digest in applied.missed:
            issued[digest] = max(at, issued.get(digest, 0))
        applied.fences = _fences(homes, targets, issued, soft, applied)
        return applied

    def _paced(self, targets: Sequence[Target], over: int) -> list[Fence]:
        at = self._fallback_at()
        return [Fence(target.digest, at, namespace=_name(target), over=over) for target in targets]

    def _fallback_at(self) -> int:
        return self._clock.now_us() + self._lead_us


async def _round(
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


def _fences(
    homes: Homes, targets: Sequence[Target], issued: Mapping[int, int], soft: bool, applied: Applied
) -> list[Fence]:
    """Returns the fences of targets, and notes in `applied` what is to be parked of them."""
    placement = homes.placement_id
    for target in targets:
        if cells := applied.missed.get(target.digest):
            at = issued[target.digest]
            applied.parked[target.digest] = [Parked(cell, at, placement, target, soft) for cell in cells]
    return [
        Fence(
            target.digest,
            issued[target.digest],
            soft,
            _name(target),
            target.digest in applied.missed,
            placement=placement,
            issuers=tuple(sorted(applied.took.get(target.digest, {}).items())),
        )
        for target in targets
    ]


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
