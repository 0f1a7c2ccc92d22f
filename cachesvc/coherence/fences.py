"""The fences that this instance knows, and the rule: is this copy admissible now?

The rule is that of docs/coherence.md. Everything here is synchronous: no `await` may stand between
a check and the use of what it admitted, because the fence that would have refused it may be merged
in between.

A fence on a key or tag goes into a sketch (`fence_sketch.py`), one on a namespace into an exact
dict; soft fences have a pair of their own, paced ones their windows (`paced_fences.py`). Beside
them stand the floor, the watermark of each region's feed, the unapplied fences and the recent
merges (`recent_merges.py`).
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from cachesvc.coherence.fence_sketch import FenceSketch
from cachesvc.coherence.merge_history import MergeLog
from cachesvc.coherence.paced_fences import PacedFences, PacedWindow
from cachesvc.coherence.recent_merges import RecentMerges
from cachesvc.coherence.refusal import Refusal, RefusedBy
from cachesvc.model.clock import MILLISECONDS, SECONDS, Clock
from cachesvc.model.digest import digest, namespace_id
from cachesvc.model.entry import Entry
from cachesvc.model.fence import EVERYTHING, Fence, Issuers

_LOOKS = 64
"""The sketches are looked at whenever merges have come for so small a part of their slots."""
_LONGEST_L2_TTL_US = 600_000 * MILLISECONDS
_LONGEST_L3_TTL_US = 3_600_000 * MILLISECONDS
MOST_UNAPPLIED = 1 << 16
"""Unapplied fences that are kept exactly: 14 MiB.

Beyond it, copies of L3 up to the `at` of the oldest ones are judged by the sketch, as after a gap."""


class KnownCell(Protocol):
    """A cell as the fences know it: `tiers/l3/contract.py` has the words."""

    @property
    def issuer(self) -> int: ...

    def look_again(self) -> None: ...


class FenceStatistics(Struct, frozen=True):
    """The state of an instance's fences, and counts since its start."""

    merged: int
    """Fences merged since the start, from every feed and by this instance itself."""
    own: int
    """Those of the merged fences that this instance issued itself."""
    clamped: int
    """Times from the future that were cut back: a clock is wrong somewhere.

    That is an `at` 4 S ahead, or a `complete_to` S ahead.
    """
    namespaces: int
    """Namespaces with an exact fence."""
    unapplied: int
    """Fences that the home cell has not applied, as far as is known here.

    Another server of its name than this instance's may have.
    """
    paced: int
    """Targets of paced purges that are remembered."""
    recent: int
    """Merges still numbered for the rule on answers."""
    floor: int
    """No copy up to this time is admissible, µs."""
    watermark: int
    """Every change accepted before this time is merged here, µs.

    0 while a region's feed was never read.
    """
    bound_us: int
    """The staleness bound, µs."""
    estimate: float
    """The share of admissible entries that the sketch refuses by collision.

    For entries as old as the longest L2 TTL.
    """
    sketch_bytes: int
    """The size of the sketches, of hard and of soft fences."""
    floor_raises: int
    """Times that the floor rose."""


class Known(Struct, frozen=True):
    """The fences known here on one target. All times in µs, 0 for none."""

    hard: int
    """Not earlier than the newest fence; later if another target shares its slots.

    Exact for a namespace.
    """
    soft: int
    """The same of soft fences."""
    unapplied: int
    """A fence that the home cell has not applied, or applied under another placement, or that
    another server than this instance's has applied. Exact."""
    windows: tuple[PacedWindow, ...]
    """The windows of paced fences. Exact, unless so many ran at once that some became one."""


class FloorRaise(Struct, frozen=True):
    """A rise of the floor to `at`, µs."""

    at: int
    lost: bool
    """True if fences were lost; False if this instance had just begun to read a feed."""


class Fences:
    """The fences of one instance.

    `floor`, `watermark` (µs) and `merged` (the number of the newest merge) are plain attributes to
    read; the methods move them. A namespace's name stands wherever its fence is meant; keys and
    tags are digests. On the event loop only.
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
        cells: Mapping[str, KnownCell] | None = None,
    ) -> None:
        """Times are in µs.

        `skew_us`: S. `recent_us`: the longest load deadline. `unapplied_us`: the longest L3 TTL,
        after which no copy that an unapplied fence concerns can be left. `placement`: the placement
        that this instance works under (`Placement.id`). `cells`: the home cells by name; without
        any, there is no L3 to judge.
        """
        self._clock = clock
        self.skew_us = skew_us
        """S."""
        self.longest_load_us = recent_us
        self._ahead_us = 3 * skew_us
        self._unapplied_us = unapplied_us
        self._hard = FenceSketch(slots)
        self._soft = FenceSketch(slots)
        self._mask = self._hard.mask
        self._row0, self._row1 = self._hard.rows
        self._room_at = self._hard.slots // _LOOKS
        """The number of the merge at which the sketches are looked at, whether they are full."""
        self._looks: deque[tuple[int, int]] = deque([(0, 0)])
        """Times of such looks, and the numbers of the merges until then; the first is old."""
        self._namespaces: dict[str, int] = {}
        self._soft_namespaces: dict[str, int] = {}
        self.has_soft = False
        """True if there are soft or paced fences, which copies may be behind."""
        self._paced = PacedFences(unapplied_us)
        self._soft_floor = 0  # every copy up to it is stale: paced fences were given up for want of room
        self._placement = placement
        self._cells = cells or {}
        # Digest -> at, in the order of their merges. A plain dict would look through the places of all
        # that was taken from its front to find the oldest: with 65,536 of them, 50 µs for each fence.
        self._unapplied: OrderedDict[int, int] = OrderedDict()
        self._recent = RecentMerges(recent_us)
        self.watermarks = dict.fromkeys(regions, 0)
        if not self.watermarks:
            raise ValueError("fences need at least one region whose feed is read")
        self.watermark = 0
        self._queues = dict.fromkeys(sorted(self.watermarks), "")
        self.queues = ""
        """The queue servers that the fences are read from: `region@epoch`, with commas, by name.

        Empty while one is not known."""
        self.floor = 0
        self._floor_raises = 0
        self.floor_raise: FloorRaise | None = None
        """The raise that brought the floor to where it is; None before the first."""
        self.log = MergeLog()
        self._lost_until = 0
        self.merged = 0
        self.version = 0
        self._own = 0
        self._clamped = 0
        self._cut_from = self._cut_until = 0
        """The earliest and the latest `at` that was cut back and that the floor has not reached.

        Both are 0 if there is none.
        """

    def __repr__(self) -> str:
        known = f"{self.merged} merged, {len(self._unapplied)} unapplied"
        return f"<Fences [{known}, floor {self.floor}, watermark {self.watermark}]>"

    def move_to(self, placement: int, *, is_next: bool) -> None:
        """Works under another placement from now on, and with the cells that are there now.

        What was merged until now may have been applied in the homes of before only. So copies that are
        not younger than all of that are judged by the sketch, whatever their home says of them (trace
        88). `is_next` False: the placement is not the next one after the own. Then copies and leases of
        the homes of before may be there of which the present homes' fences take no notice, and the floor
        is raised over them.
        """
        self._placement = placement
        until = self._clock.now_us() + 5 * self.skew_us + MILLISECONDS
        self._lost_until = max(self._lost_until, until)
        self.version += 1
        if not is_next:
            self.raise_floor(self._clock.now_us() + 2 * self.skew_us + MILLISECONDS, lost=True)

    def expect_loads(self, longest_us: int) -> None:
        """Remembers merges for loads that may take so long, µs, from now on; never for less.

        A read that begins now asks about merges since its start only, so none of them is gone.
        """
        self.longest_load_us = self._recent.window_us = max(self.longest_load_us, longest_us)

    # Merging: all of it is by `max`, so duplicates, replays and any order come to the same.

    def merge(self, fences: Sequence[Fence], own: bool = False, region: str = "") -> list[int]:
        """Merges fences; from now on they are honoured.

        Returns the digests of the keys and tags among them: the caller must forget the flights of
        these before it awaits. An `at` more than 4 S ahead of the own clock is merged as own clock
        + 4 S, and the floor makes up for the rest once the clock has come near (`_meet_cut`).
        `own`: the fences were issued here, not read from a feed. `region`: the region whose feed
        they were read from.
        """
        now_us = self._clock.now_us()
        latest = now_us + 4 * self.skew_us
        self._meet_cut(latest)
        self._recent.expire(now_us)
        row0, row1, mask, unapplied = self._row0, self._row1, self._mask, self._unapplied
        touched = []
        lead_us = self.skew_us + MILLISECONDS
        issuers, is_elsewhere, is_at_home = None, False, False
        here = self._placement
        for fence in fences:
            at = fence.at
            if fence.issuers is not issuers:  # the fences of an item share one object
                issuers = fence.issuers
                is_elsewhere = bool(issuers) and self._is_elsewhere(issuers)
                is_at_home = not is_elsewhere and (bool(issuers) or not self._cells)
            if at > latest:
                self._clamped += 1
                self._note_cut(at)
                at = latest
            if is_elsewhere or (fence.placement != here and fence.placement):
                # Its key's leases came from two clocks: one granted by the other server may be later by S.
                at += lead_us
            if fence.soft or fence.namespace or fence.over:
                self._merge_other(fence, at, now_us)
                if not fence.namespace:
                    touched.append(fence.digest)
            else:
                # The sketch's merge by hand: a new instance does this a million times before it is
                # ready.
                target = fence.digest
                if row0[place := target & mask] < at:
                    row0[place] = at
                if row1[place := target >> 32 & mask] < at:
                    row1[place] = at
                touched.append(target)
            if unapplied or not is_at_home or fence.unapplied or fence.placement:
                self._note_applied(fence, at, is_elsewhere)
        self._drop_outlived(now_us)
        is_all = len(touched) == len(fences)
        self._recent.add_many(touched if is_all else [fence.digest for fence in fences], now_us)
        self.log.note(fences, region, now_us)
        # Only now: whoever reads the new number can rely on every merge up to it.
        self.merged = self._recent.count
        self.version += 1
        if own:
            self._own += len(fences)
        if self.merged >= self._room_at:
            self._make_room(now_us)
        return touched

    def _make_room(self, now_us: int) -> None:
        """Has the sketches follow the number of fences that still matter to a copy."""
        since = now_us - self._unapplied_us
        self._looks.append((now_us, self.merged))
        while self._looks[1][0] < since:
            self._looks.popleft()
        young = self.merged - self._looks[0][1]
        if self._hard.make_room(young, since):
            self._mask = self._hard.mask
            self._row0, self._row1 = self._hard.rows
        self._soft.make_room(young, since)
        self._room_at = self.merged + self._hard.slots // _LOOKS

    def _note_cut(self, at: int) -> None:
        self._cut_from = min(self._cut_from or at, at)
        self._cut_until = max(self._cut_until, at)

    def _meet_cut(self, latest: int) -> None:
        """Raises the floor over fences that were cut back and would not be cut back now.

        A fence that was cut back is a lost fence if it was the own clock that was wrong: once that
        clock is set right, copies from before the write look younger than the merged time. Only the
        span of the cut times is remembered; the floor covers all of it that lies before `latest`,
        the own clock + 4 S. A copy that is younger than `latest` is not admissible yet. So a single
        time from a clock that is a day ahead costs one raise, a day later.
        """
        if self._cut_from and self._cut_from <= latest:
            self.raise_floor(min(self._cut_until, latest), lost=True)
            self._cut_from = 0 if self._cut_until <= latest else latest
            self._cut_until = self._cut_until if self._cut_from else 0

    def _merge_other(self, fence: Fence, at: int, now_us: int) -> None:
        """Anything but a hard fence on a key or tag."""
        if fence.over and fence.namespace == EVERYTHING:
            self.has_soft = True
            self._soft_floor = max(self._soft_floor, at)
        elif fence.over:
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

    def _note_applied(self, fence: Fence, at: int, is_elsewhere: bool) -> None:
        """Keeps the fences that home cells cannot be relied on to know.

        Those are the fences that their home has not applied, those applied in the homes of another
        placement than this instance's (docs/coherence.md, "Moving a partition"), those applied by other
        servers than the ones behind this instance's connections, and those that name no server.
        """
        if fence.soft or fence.over:
            return
        unapplied = self._unapplied
        known = unapplied.get(fence.digest, 0)
        if (
            fence.unapplied
            or is_elsewhere
            or fence.placement not in (0, self._placement)
            or (self._cells and not fence.issuers)
        ):
            unapplied.pop(fence.digest, None)
            unapplied[fence.digest] = max(known, at)
            if len(unapplied) > MOST_UNAPPLIED:
                self._lost_until = max(self._lost_until, unapplied.popitem(last=False)[1])
        elif known <= at:
            # An older `at` may announce an earlier change than the one its home still has to apply:
            # that one stays.
            unapplied.pop(fence.digest, None)

    def _is_elsewhere(self, issuers: Issuers) -> bool:
        """True if not all of these are the servers that this instance reads from.

        A cell whose server was not met yet is passed over: when it is met, copies from before that
        moment are not exact. One whose server is another one may be read at the wrong address here, so
        its name is looked up again.
        """
        is_elsewhere = False
        for name, issuer in issuers:
            cell = self._cells.get(name)
            if cell is None:
                is_elsewhere = True
            elif cell.issuer not in (0, issuer):
                is_elsewhere = True
                cell.look_again()
        return is_elsewhere

    def _drop_outlived(self, now_us: int) -> None:
        horizon = now_us - self._unapplied_us
        while self._unapplied:
            oldest = next(iter(self._unapplied))
            if self._unapplied[oldest] >= horizon:
                return
            del self._unapplied[oldest]

    def raise_floor(self, at: int, *, lost: bool = False) -> None:
        """Makes every copy with `as_of <= at` (µs) inadmissible: fences on it may be unknown here.

        Never lowers the floor. `lost`: the fences were on the stream and were never read. Some of
        them may not have been applied by their home cell, so the copies that homes vouch for are
        not exempt; and a load that runs now may be concerned by one of them.
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

    def raise_first_floor(self, at: int) -> None:
        """Raises the floor when a feed is opened, to a time that comes from the ids of its queue.

        What is retained was published before now, so a floor of own clock + 4 S covers it. A time
        beyond that is of a queue whose clock was ahead (Redis goes on from its newest id when its
        clock is set back): it would keep this instance unready until then. It is cut back and
        counted, and made good as a fence that was cut back, in case the own clock is behind.
        """
        latest = self._clock.now_us() + 4 * self.skew_us
        if at > latest:
            self._clamped += 1
            self._note_cut(at)
        self.raise_floor(min(at, latest))

    def heartbeat(self, region: str, complete_to: int) -> None:
        """Notes that this region's feed is merged up to `complete_to`, µs.

        To be called after the merge of everything that stood before the heartbeat in the stream. A
        time that only a wrong clock can give (S ahead) counts as own clock + S: it must not hide
        staleness later.
        """
        now_us = self._clock.now_us()
        self._meet_cut(now_us + 4 * self.skew_us)
        latest = now_us + self.skew_us
        if complete_to > latest:
            complete_to = latest
            self._clamped += 1
        self.watermarks[region] = max(self.watermarks[region], complete_to)
        self.watermark = min(self.watermarks.values())

    def note_queue(self, region: str, epoch: str) -> None:
        """Notes that this region's fences are read from a queue server of this epoch from now on."""
        self._queues[region] = epoch
        known = all(self._queues.values())
        self.queues = ",".join(map("@".join, self._queues.items())) if known else ""

    def moment_of(self, now_us: int, others_us: int) -> int:
        """Returns `now_us`, at most 4 S + 1 s beyond another clock's time of the same moment.

        Beyond that, one of the clocks is wrong, and the time is counted as one that was cut back.
        The second is for what may pass between a home's answer and the beginning of a load.
        """
        latest = others_us + 4 * self.skew_us + SECONDS
        if now_us <= latest:
            return now_us
        self._clamped += 1
        return latest

    # Judging copies. `now_us` is the caller's one reading of the clock for the request.

    def admits(self, entry: Entry, key_digest: int, namespace: str, now_us: int) -> bool:
        """True if this copy, from whichever tier, may be answered, or this fill stored.

        The hottest function of the service. `now_us` is one reading of the clock for the whole
        request.
        """
        as_of = entry.as_of
        if as_of <= self.floor or as_of > now_us + self._ahead_us:
            return False
        # The sketch's query by hand: a call would cost as much as the rest, and most copies pass
        # the first row.
        if (
            as_of <= self._row0[key_digest & self._mask]
            and as_of <= self._row1[key_digest >> 32 & self._mask]
        ):
            return False
        if entry.tag_digests and not self._admits_tags(as_of, entry.tag_digests):
            return False
        return namespace not in self._namespaces or as_of > self._namespaces[namespace]

    def fresh(
        self, entries: Sequence[Entry | None], digests: Sequence[int], namespace: str, now_us: int
    ) -> list[Entry | None]:
        """Returns the entries; None stands for each that is stale or that `admits` refuses.

        `digests` are those of the entries' keys, which are of one namespace. Nearly all copies pass a part
        of the rule that is looked at by hand, as a call for each would cost as much; `admits` decides about
        the others.
        """
        admits, floor = self.admits, max(self.floor, self._namespaces.get(namespace, self.floor))
        latest, row0, mask = now_us + self._ahead_us, self._row0, self._mask
        found: list[Entry | None] = []
        for entry, key_digest in zip(entries, digests, strict=True):
            is_good = entry is not None and (
                entry.fresh_until > now_us
                and (
                    (
                        floor < (as_of := entry.as_of) <= latest
                        and as_of > row0[key_digest & mask]
                        and not entry.tag_digests
                    )
                    or admits(entry, key_digest, namespace, now_us)
                )
            )
            found.append(entry if is_good else None)
        return found

    def _admits_tags(self, as_of: int, tag_digests: tuple[int, ...]) -> bool:
        row0, row1, mask = self._row0, self._row1, self._mask
        for tag_digest in tag_digests:
            if as_of <= row0[tag_digest & mask] and as_of <= row1[tag_digest >> 32 & mask]:
                return False
        return True

    def refusals(self, entry: Entry, key_digest: int, namespace: str, now_us: int) -> tuple[Refusal, ...]:
        """Everything for which `admits` refuses the copy; empty if it is admissible.

        For explanations: every fence is asked, while `admits` stops at the first that refuses.
        """
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
        """True if a copy that its home cell judged exactly (`Reply.exact`) may be answered.

        Such a copy is exempt from sketch and floor. The things that the home could not know are
        checked: unapplied fences, lost fences, and a time from the future.
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
        """True if the copy is behind a soft or paced fence: stale, whatever its freshness says.

        Not exact: a collision in the sketch says True as well.
        """
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
        """True if a paced purge has reached this copy.

        Exact, and asked for copies of every tier: home cells do not know paced fences.
        """
        if not self._paced:
            return False
        targets = (key_digest, digest(namespace_id(namespace)), *entry.tag_digests)
        return self._paced.is_due(entry.as_of, key_digest, targets, now_us)

    def within_lag(self, entry: Entry, now_us: int, max_lag_us: int) -> bool:
        """True if the copy may be answered although fences may be missing here.

        While the staleness bound is above `max_lag_us`, only a copy younger than that may.
        """
        return now_us - self.watermark <= max_lag_us or entry.as_of > now_us - max_lag_us

    # What to tell the home cell (`not_before`).

    def exact_fence_on(self, key_digest: int, tag_digests: Iterable[int], namespace: str) -> int:
        """The newest unapplied fence on these targets, µs; 0 for none.

        Sent with a first read: about everything else, the home knows better than the sketch does.
        """
        known = self._unapplied
        if not known:
            return 0
        targets = (key_digest, digest(namespace_id(namespace)), *tag_digests)
        return max(known.get(target, 0) for target in targets)

    def fence_on(self, key_digest: int, tag_digests: Iterable[int], namespace: str) -> int:
        """The newest fence known for these targets, the floor apart, µs; 0 for none.

        Sent after a copy that was not exact has been refused. It holds the sketch's collisions:
        sent with every read, it would take from L3 copies the exemption that they have.
        """
        query = self._hard.query
        return max(query(key_digest), self._namespaces.get(namespace, 0), *map(query, tag_digests))

    def newest_on(self, entry: Entry, key_digest: int, namespace: str) -> int:
        """The newest time known here that refuses an entry or makes it stale, µs; 0 for none.

        Floor, soft and paced fences count, each from its `at` on.
        """
        tags = entry.tag_digests
        newest = max(self.floor, self.fence_on(key_digest, tags, namespace))
        if not self.has_soft:
            return newest
        targets = (key_digest, digest(namespace_id(namespace)), *tags)
        return max(
            newest,
            self._soft_floor,
            self._soft_namespaces.get(namespace, 0),
            *map(self._soft.query, (key_digest, *tags)),
            *(window.at for target in targets for window in self._paced.windows_of(target)),
        )

    def merged_between(self, after: int, upto: int, digests: Iterable[int]) -> bool:
        """The rule on answers: True if a fence on one of `digests` was merged in between.

        `after` and `upto` are values of `merged`: when the lease was asked for, and when the read
        began. `digests`: the key's, the tags' and the namespace's. True also if that is so long ago
        that it is forgotten.
        """
        return self._recent.between(after, upto, digests)

    # Seeing inside.

    def known(self, target: int, namespace: str = "") -> Known:
        """The fences known on a key or tag (by digest), or on a namespace (by digest and name)."""
        return Known(
            hard=self._namespaces.get(namespace, 0) if namespace else self._hard.query(target),
            soft=self._soft_namespaces.get(namespace, 0) if namespace else self._soft.query(target),
            unapplied=self._unapplied.get(target, 0),
            windows=self._paced.windows_of(target),
        )

    def bound_us(self, now_us: int) -> int:
        """The staleness bound, µs: a change accepted longer ago than this is merged here."""
        return max(0, now_us - self.watermark)

    def lag_us(self, since: int | None = None) -> int | None:
        """The staleness bound, µs, of what was judged with the watermark `since`.

        None stands for the watermark of now. The result is None while a region's feed was never read.
        """
        watermark = self.watermark if since is None else since
        return max(0, self._clock.now_us() - watermark) if watermark else None

    def seen_until(self, entry: Entry) -> int:
        """The time, µs, to remember of an answer that its home has not confirmed; else 0.

        Each copy that is older than the answer had its load begun before now, on a clock that may be
        ahead by S, and has an `as_of` that leads that clock by less than S.
        """
        return 0 if entry.confirmed else self._clock.now_us() + 2 * self.skew_us

    def bound_of(self, region: str) -> int | None:
        """The time by which one region's feed is behind at most, µs; None if it was never read."""
        watermark = self.watermarks[region]
        return max(0, self._clock.now_us() - watermark) if watermark else None

    def estimate(self, age_us: int = _LONGEST_L2_TTL_US) -> float:
        """The probability that an entry of this age without a fence is refused by collision.

        It is `(1 - e**(-rT/slots))**2` for r fences/s over the age T.
        """
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
            sketch_bytes=16 * (self._hard.slots + self._soft.slots),
            floor_raises=self._floor_raises,
        )
