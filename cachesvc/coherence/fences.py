"""What this instance knows of fences, and the rule of COHERENCE.md: is this copy admissible now?

Everything here is synchronous. No `await` may stand between a check and the use of what it admitted, because the fence that
would have refused it may be merged in between.

A fence on a key or tag goes into a sketch (`sketch.py`), one on a namespace into an exact dict; soft ones have their own pair,
paced ones their windows (`paced.py`). Beside them stand the floor, the watermark of each region's feed, the unapplied fences and
the recent merges (`recent.py`).
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from cachesvc.coherence.fence_sketch import FenceSketch
from cachesvc.coherence.merge_history import MergeLog
from cachesvc.coherence.paced_fences import PacedFences
from cachesvc.coherence.recent_merges import RecentMerges
from cachesvc.coherence.refusal import Refusal, RefusedBy
from cachesvc.model.clock import MILLISECONDS, Clock
from cachesvc.model.digest import digest, namespace_id
from cachesvc.model.entry import Entry
from cachesvc.model.fence import Fence

_LONGEST_L2_TTL_US = 600_000 * MILLISECONDS
_LONGEST_L3_TTL_US = 3_600_000 * MILLISECONDS


class FenceStatistics(Struct, frozen=True):
    merged: int
    """Fences merged since the start, from every feed and by this instance itself."""
    own: int
    """Of those, the ones this instance issued."""
    clamped: int
    """Times from the future (an `at` 4 S ahead, a `complete_to` S ahead) that were cut back: a clock is wrong somewhere."""
    namespaces: int
    """Namespaces with an exact fence."""
    unapplied: int
    """Fences whose home cell has not said yet that it applied them."""
    paced: int
    """Targets of paced purges that are remembered."""
    recent: int
    """Merges still numbered for the rule on answers."""
    floor: int
    """µs: no copy up to this time is admissible."""
    watermark: int
    """µs: every change accepted before it is merged here; 0 while a region's feed was never read."""
    bound_us: int
    """The staleness bound."""
    estimate: float
    """The share of admissible entries, as old as the longest L2 TTL, that the sketch refuses by collision."""
    floor_raises: int
    """Times that the floor rose."""


class Known(Struct, frozen=True):
    """What is known here of fences on one target; µs, 0 for none."""

    hard: int
    """From the sketch, unless it is a namespace's: not earlier than the newest fence, later if another target collides."""
    soft: int
    """Likewise."""
    unapplied: int
    """Exact: a fence that the home cell has not applied, or applied under another placement."""
    windows: tuple[tuple[int, int], ...]
    """Paced fences, exact: `(at, over)`."""


class FloorRaise(Struct, frozen=True):
    at: int
    lost: bool
    """Fences were lost; else this instance had just begun to read a feed."""


class Fences:
    """The fences of one instance. `skew_us` is S; `recent_us` the longest load deadline.

    `floor`, `watermark` (µs) and `merged` (the number of the newest merge) are plain attributes to read; the methods move them.
    A namespace's name stands wherever its fence is meant; keys and tags are digests.
    """

    def __init__(
        self,
        clock: Clock,
        skew_us: int,
        slots: int,
        regions: Iterable[str],
        recent_us: int,
        unapplied_us: int = _LONGEST_L3_TTL_US,
        placement: int = 0,
    ) -> None:
        """`unapplied_us`: the longest L3 TTL, after which no copy that an unapplied fence concerns can be left. `placement`: the
        one this instance works under (`Placement.id`)."""
        self._clock = clock
        self._skew_us = skew_us
        self._ahead_us = 3 * skew_us
        self._unapplied_us = unapplied_us
        self._hard = FenceSketch(slots)
        self._soft = FenceSketch(slots)
        self._mask = self._hard.mask
        self._row0, self._row1 = self._hard.rows
        self._namespaces: dict[str, int] = {}
        self._soft_namespaces: dict[str, int] = {}
        self.has_soft = False
        """There are soft or paced fences: copies have to be asked whether they stand behind one."""
        self._paced = PacedFences(unapplied_us)
        self._soft_floor = 0  # every copy up to it is stale: paced fences were given up for want of room
        self._placement = placement
        self._unapplied: dict[int, int] = {}  # digest -> at, in the order of their merges
        self._recent = RecentMerges(recent_us)
        self.watermarks = dict.fromkeys(regions, 0)
        if not self.watermarks:
            raise ValueError("fences need at least one region whose feed is read")
        self.watermark = 0
        self.floor = 0
        self._floor_raises = 0
        self.floor_raise: FloorRaise | None = None
        """The raise that the floor stands at."""
        self.log = MergeLog()
        self._lost_until = 0
        self.merged = 0
        self.version = 0
        self._own = 0
        self._clamped = 0

    def __repr__(self) -> str:
        known = f"{self.merged} merged, {len(self._unapplied)} unapplied, floor {self.floor}, watermark {self.watermark}"
        return f"<Fences [{known}]>"

    # Merging: all of it is by `max`, so duplicates, replays and any order come to the same.

    def merge(self, fences: Sequence[Fence], own: bool = False, region: str = "") -> list[int]:
        """Honour these from now on. Returns the digests of keys and tags among them: their flights are to be forgotten, now.

        An `at` more than 4 S ahead of the own clock is merged as own clock + 4 S. `own`: issued here, not read from a feed.
        `region`: whose feed it was.
        """
        now_us = self._clock.now_us()
        latest = now_us + 4 * self._skew_us
        self._recent.expire(now_us)
        row0, row1, mask = self._row0, self._row1, self._mask
        touched = []
        for fence in fences:
            at = fence.at
            if at > latest:
                at = latest
                self._clamped += 1
            if fence.soft or fence.namespace or fence.over:
                self._merge_other(fence, at, now_us)
            else:
                # The sketch's merge by hand: a new instance does this a million times before it is ready.
                target = fence.digest
                if row0[target & mask] < at:
                    row0[target & mask] = at
                if row1[target >> 32 & mask] < at:
                    row1[target >> 32 & mask] = at
            if not fence.namespace:
                touched.append(fence.digest)
            if self._unapplied or fence.unapplied or fence.placement:
                self._note_applied(fence, at, now_us)
        self._recent.add_many([fence.digest for fence in fences], now_us)
        self.log.note(fences, region, now_us)
        # Only now: whoever reads the new number can rely on every merge up to it.
        self.merged = self._recent.count
        self.version += 1
        if own:
            self._own += len(fences)
        return touched

    def _merge_other(self, fence: Fence, at: int, now_us: int) -> None:
        """Anything but a hard fence on a key or tag."""
        if fence.over:
            self.has_soft = True
            self._paced.drop_outlived(now_us)
            self._soft_floor = max(self._soft_floor, self._paced.merge(fence.digest, at, fence.over, now_us))
        elif fence.namespace:
            self.has_soft |= fence.soft
            fenced = self._soft_namespaces if fence.soft else self._namespaces
            fenced[fence.namespace] = max(fenced.get(fence.namespace, 0), at)
        else:
            self.has_soft = True
            self._soft.merge(fence.digest, at)

    def _note_applied(self, fence: Fence, at: int, now_us: int) -> None:
        """Keep what home cells cannot be relied on to know: fences they have not applied, and those applied in the homes of
        another placement than ours (COHERENCE.md, "Moving a partition")."""
        if fence.soft or fence.over:
            return
        unapplied = self._unapplied
        known = unapplied.get(fence.digest, 0)
        if fence.unapplied or fence.placement not in (0, self._placement):
            unapplied.pop(fence.digest, None)
            unapplied[fence.digest] = max(known, at)
        elif known <= at:
            # An older `at` may announce an earlier change than the one its home still has to apply: that one stays.
            unapplied.pop(fence.digest, None)
        self._drop_outlived(now_us)

    def _drop_outlived(self, now_us: int) -> None:
        horizon = now_us - self._unapplied_us
        while self._unapplied:
            oldest = next(iter(self._unapplied))
            if self._unapplied[oldest] >= horizon:
                return
            del self._unapplied[oldest]

    def raise_floor(self, at: int, *, lost: bool = False) -> None:
        """No copy with `as_of <= at` is admissible any more: fences on it may be unknown here. Never lowers the floor.

        `lost`: they were on the stream and were never read. Among them may be some that a home cell has not applied, so what it
        vouches for is not exempt, and what is being loaded now may be concerned by one.
        """
        if at > self.floor:
            self._floor_raises += 1
            self.floor = at
            self.floor_raise = FloorRaise(at, lost)
        if lost:
            self._lost_until = max(self._lost_until, at)
            self._recent.forget()
            self.merged = self._recent.count
        self.version += 1

    def heartbeat(self, region: str, complete_to: int) -> None:
        """This region's feed is merged up to `complete_to`. Call it after merging what stood before it in the stream.

        A time that only a wrong clock can give (S ahead) counts as own clock + S: it must not hide staleness later.
        """
        latest = self._clock.now_us() + self._skew_us
        if complete_to > latest:
            complete_to = latest
            self._clamped += 1
        self.watermarks[region] = max(self.watermarks[region], complete_to)
        self.watermark = min(self.watermarks.values())

    # Judging copies. `now_us` is the caller's one reading of the clock for the request.

    def admits(self, entry: Entry, key_digest: int, namespace: str, now_us: int) -> bool:
        """May this copy, from whichever tier, be answered (or this fill be stored)? The hottest function of the service."""
        as_of = entry.as_of
        if as_of <= self.floor or as_of > now_us + self._ahead_us:
            return False
        # The sketch's query by hand: a call would cost as much as the rest, and most copies pass the first row.
        if (
            as_of <= self._row0[key_digest & self._mask]
            and as_of <= self._row1[key_digest >> 32 & self._mask]
        ):
            return False
        if entry.tag_digests and not self._admits_tags(as_of, entry.tag_digests):
            return False
        return namespace not in self._namespaces or as_of > self._namespaces[namespace]

    def _admits_tags(self, as_of: int, tag_digests: tuple[int, ...]) -> bool:
        row0, row1, mask = self._row0, self._row1, self._mask
        for tag_digest in tag_digests:
            if as_of <= row0[tag_digest & mask] and as_of <= row1[tag_digest >> 32 & mask]:
                return False
        return True

    def refusals(self, entry: Entry, key_digest: int, namespace: str, now_us: int) -> tuple[Refusal, ...]:
        """Everything for which `admits` refuses the copy; empty if it is admissible. For explanations: every fence is asked."""
        as_of, newest = entry.as_of, self._hard.query
        fences = [
            (self.floor, Refusal(RefusedBy.FLOOR)),
            (newest(key_digest), Refusal(RefusedBy.KEY)),
            *(
                (newest(tag_digest), Refusal(RefusedBy.TAG, tag))
                for tag, tag_digest in zip(entry.tags, entry.tag_digests, strict=True)
            ),
            (self._namespaces.get(namespace, 0), Refusal(RefusedBy.NAMESPACE)),
        ]
        return (
            *self._future(as_of, now_us),
            *(refusal for at, refusal in fences if as_of <= at),
        )

    def _future(self, as_of: int, now_us: int) -> tuple[Refusal, ...]:
        return (Refusal(RefusedBy.FUTURE),) if as_of > now_us + self._ahead_us else ()

    def exact_admits(self, entry: Entry, key_digest: int, namespace: str, now_us: int) -> bool:
        """As `admits`, for a copy that its home cell judged exactly (`Reply.exact`): exempt from sketch and floor.

        What the home could not know is checked: the unapplied fences, lost ones, and a time from the future.
        """
        if entry.as_of <= self._lost_until or entry.as_of > now_us + self._ahead_us:
            return False
        return not self._unapplied or entry.as_of > self.exact_fence_on(
            key_digest, entry.tag_digests, namespace
        )

    def exact_refusals(
        self, entry: Entry, key_digest: int, namespace: str, now_us: int
    ) -> tuple[Refusal, ...]:
        """Everything for which `exact_admits` refuses the copy; empty if it is admissible."""
        as_of = entry.as_of
        fences = (
            (self._lost_until, Refusal(RefusedBy.LOST)),
            (self.exact_fence_on(key_digest, entry.tag_digests, namespace), Refusal(RefusedBy.UNAPPLIED)),
        )
        return (
            *self._future(as_of, now_us),
            *(refusal for at, refusal in fences if as_of <= at),
        )

    def is_soft_fenced(self, entry: Entry, key_digest: int, namespace: str, now_us: int) -> bool:
        """Does the copy stand behind a soft or paced fence: stale, whatever its freshness says? Not exact: a collision says yes
        too."""
        if not self.has_soft:
            return False
        query = self._soft.query
        newest = max(
            self._soft_floor,
            query(key_digest),
            self._soft_namespaces.get(namespace, 0),
            *map(query, entry.tag_digests),
        )
        return entry.as_of <= newest or self.is_paced_stale(entry, key_digest, namespace, now_us)

    def is_paced_stale(self, entry: Entry, key_digest: int, namespace: str, now_us: int) -> bool:
        """Has a paced purge reached this copy? Exact, and for copies of every tier: home cells do not know paced fences."""
        if not self._paced:
            return False
        targets = (key_digest, digest(namespace_id(namespace)), *entry.tag_digests)
        return self._paced.is_due(entry.as_of, key_digest, targets, now_us)

    def within_lag(self, entry: Entry, now_us: int, max_lag_us: int) -> bool:
        """May the copy be answered though fences may be missing here? While the bound is above `max_lag_us`, only a young one."""
        return now_us - self.watermark <= max_lag_us or entry.as_of > now_us - max_lag_us

    # What to tell the home cell (`not_before`).

    def exact_fence_on(self, key_digest: int, tag_digests: Iterable[int], namespace: str) -> int:
        """µs: the newest unapplied fence. Sent with a first read: beyond it, home knows better than the sketch does."""
        known = self._unapplied
        if not known:
            return 0
        targets = (key_digest, digest(namespace_id(namespace)), *tag_digests)
        return max(known.get(target, 0) for target in targets)

    def fence_on(self, key_digest: int, tag_digests: Iterable[int], namespace: str) -> int:
        """µs: the newest fence known for these, the floor apart. Sent after a copy that was not exact has been refused.

        It holds the sketch's collisions: sent with every read, it would take from L3 copies the exemption they have.
        """
        query = self._hard.query
        return max(query(key_digest), self._namespaces.get(namespace, 0), *map(query, tag_digests))

    def merged_between(self, after: int, upto: int, digests: Iterable[int]) -> bool:
        """The rule on answers: was a fence of these merged when `merged` went from `after` (lease asked) to `upto` (read begun)?

        `digests`: the key's, the tags' and the namespace's. If that is so long ago that it is forgotten: yes.
        """
        return self._recent.between(after, upto, digests)

    # Seeing inside.

    def known(self, target: int, namespace: str = "") -> Known:
        """Of a key or tag by its digest; of a namespace by its digest and its name."""
        return Known(
            hard=self._namespaces.get(namespace, 0) if namespace else self._hard.query(target),
            soft=self._soft_namespaces.get(namespace, 0) if namespace else self._soft.query(target),
            unapplied=self._unapplied.get(target, 0),
            windows=self._paced.windows_of(target),
        )

    def bound_us(self, now_us: int) -> int:
        """The staleness bound: how long ago a change may have been accepted that is not merged here."""
        return max(0, now_us - self.watermark)

    def lag_us(self) -> int | None:
        """µs: the staleness bound now; None while a region's feed was never read."""
        return self.bound_us(self._clock.now_us()) if self.watermark else None

    def bound_of(self, region: str) -> int | None:
        """How far one region's feed is behind at most, µs; None if it was never read."""
        watermark = self.watermarks[region]
        return max(0, self._clock.now_us() - watermark) if watermark else None

    def estimate(self, age_us: int = _LONGEST_L2_TTL_US) -> float:
        """The probability that an entry of this age without a fence is refused by collision, `(1 - e**(-rT/slots))**2`."""
        return self._hard.collision_share(self._clock.now_us() - age_us)

    def statistics(self) -> FenceStatistics:
        return FenceStatistics(
            merged=self.merged,
            own=self._own,
            clamped=self._clamped,
            namespaces=len(self._namespaces.keys() | self._soft_namespaces.keys()),
            unapplied=len(self._unapplied),
            paced=len(self._paced),
            recent=len(self._recent),
            floor=self.floor,
            watermark=self.watermark,
            bound_us=self.bound_us(self._clock.now_us()),
            estimate=self.estimate(),
            floor_raises=self._floor_raises,
        )
