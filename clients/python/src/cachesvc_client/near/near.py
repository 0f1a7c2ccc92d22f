"""The near cache: copies in this process, answered without I/O while the feed vouches for them (PROTOCOL.md, "Fences").

    the feed ──► Near ──► every shelf: what a fence concerns is taken out (or given its moment), at once
                  └─────► fences.py: remembered, for answers that arrive later
    heartbeat ──────────► every shelf: `trusted_until`
    answers ──► Shelf.keep: admitted by all that is remembered? ──► held
    readers ──► Shelf.value: held, before its end, before `trusted_until`? or NOTHING, and they ask the service
    own writes, tokens handed over ──► Near.merge; own writes whose answer never came ──► Near.drop

**A held copy is admissible.** The rule asks for a check whenever a copy is read. Here a fence finds the copies it concerns by an
index of their targets' digests and takes them out when it comes, so that a hit is a look-up and two comparisons. A fence costs a
look-up or two per shelf instead; a near cache is small, and is read far more often than it is fenced.

**Answers that are older than the floor.** Fences before the subscription began are not known here, so a copy held up to then is
good only above the floor. An answer is another matter: its instance has checked it against every change accepted before its own
watermark. If that watermark lies above the floor, nothing that the floor stands for is missing, and the answer is kept. Without
this a new process could keep nothing that was loaded before it started, for as long as the longest TTL.

**Stale is not kept.** A soft fence takes copies out as a hard one does, and a paced one sets their end to its moment: a reader
goes to the service then, which answers stale and loads anew. Only hard fences are told to it (`heed`).

**Eviction** is second chance: oldest first, but whoever was read since its last turn gets another. It finds about what LRU finds,
and a hit only sets a flag, so readers in other threads need no lock. Everything that changes a shelf holds the lock of `Near`,
which is never held over anything that waits.
"""

import enum
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from weakref import WeakSet

from msgspec import Struct
from msgspec.structs import replace
from xxhash import xxh3_64_intdigest

from cachesvc_client.near.fences import Fences, moment_of
from cachesvc_client.near.settings import NearSettings, NearStatistics
from cachesvc_client.near.watermark import Watermark
from cachesvc_client.protocol.wire import Got
from cachesvc_client.values.codecs import Schema, UnreadableError
from cachesvc_client.values.context import ABSENT
from cachesvc_client.values.durations import positive_seconds_of

Pair = tuple[int, int]
"""`(digest, at)`, as in tokens."""

OVERHEAD_BYTES = 900
"""What a copy costs beside its key and value: itself, its answer, its places in the indexes."""
LARGEST_SHARE = 8
"""A copy above one such part of the budget is not kept: it would push out hundreds."""
AHEAD_US = 1_000_000
"""An answer is never from the future by more than clocks differ; one that seems to be would outlive fences it should not."""
SKEW_US = 500_000
"""Clocks of two instances, generously."""

_SECOND = 1_000_000
_FRESH = ("hit", "loaded", "absent")


class _Nothing(enum.Enum):
    NOTHING = "nothing"


NOTHING: Final = _Nothing.NOTHING
"""No value, where ABSENT and None are values."""


class Copy(Struct, gc=False, eq=False):
    """One entry held. The collector finds nothing in it, as what it holds is immutable."""

    value: Any
    """What a hit answers. NOTHING: it is to be made from `got`, for the first time, or every time as callers may change it."""
    got: Got
    """The answer that brought it."""
    until: float
    """Monotonic: the end of its freshness, or its moment by a paced fence."""
    key: str
    targets: tuple[int, ...]
    """Digests: of the key, of its tags, of the namespace."""
    cost: int
    used: bool = False


class Shelf:
    """The copies of one namespace object. `get` may be called from any thread and takes no lock; `Near` calls the rest."""

    def __init__(self, namespace: str, settings: NearSettings, near: "Near", schema: Schema[Any]) -> None:
        self.namespace = namespace
        self.digest = target_digest(namespace)
        self.max_lag = positive_seconds_of(settings.max_lag, "max_lag")
        self.trusted_until = 0.0
        self.hits = self.passed = self.kept = self.fenced = self.refused = self.evicted = 0
        self._settings = settings
        self._near = near
        self._schema = schema
        self._clock = near.clock
        self.begin()

    def begin(self) -> None:
        """Empty."""
        self._copies: OrderedDict[str, Copy] = OrderedDict()
        self._by_key: dict[int, Copy] = {}
        self._by_tag: dict[int, set[Copy]] = {}
        self._bytes = 0

    def __repr__(self) -> str:
        trust = "trusted" if self.is_trusted else "bypassed"
        return f"<Shelf of {self.namespace} [{len(self._copies)} entries, {self._bytes} bytes, {trust}]>"

    def value(self, key: str) -> Any:
        """What to answer with, ABSENT included, or NOTHING: then the service is to be asked. Use it before awaiting anything."""
        copy = self._copies.get(key)
        if copy is not None:
            now = self._clock()
            if now < copy.until and now < self.trusted_until:
                if not copy.used:  # to look costs a fraction of setting it
                    copy.used = True
                self.hits += 1
                value = copy.value
                return value if value is not NOTHING else self._made(copy)
        self.passed += 1
        return NOTHING

    def got(self, key: str) -> Got | None:
        """The same as an answer of the service, with the age it has now."""
        copy = self._copies.get(key)
        now = self._clock()
        if copy is None or now >= copy.until or now >= self.trusted_until:
            self.passed += 1
            return None
        copy.used = True
        self.hits += 1
        age = self._near.seconds_since(copy.got.as_of)
        return replace(copy.got, tier="near", age=int(age), ttl=int(copy.until - now), lag=self._near.bound)

    def _made(self, copy: Copy) -> Any:
        """For this caller alone, unless nobody can change it."""
        try:
            value = self._schema.decode(copy.got.value, copy.got.content_type)
        except (
            UnreadableError
        ):  # the service is asked as if nothing were held, and whoever asks deals with what it answers
            return NOTHING
        if self._schema.makes_immutable:
            copy.value = value
            if value is not copy.got.value:
                self._near.charge(self, copy, len(copy.got.value))
        return value

    @property
    def is_trusted(self) -> bool:
        return self._clock() < self.trusted_until

    def keep(self, key: str, got: Got, asked_at: float) -> bool:
        """Hold the answer, if it is fresh and every fence that is known by now admits it. Whether it is held.

        `asked_at`: by this clock, not later than the request was sent.
        """
        return got.outcome in _FRESH and self.is_trusted and self._near.keep(self, key, got, asked_at)

    def statistics(self) -> NearStatistics:
        return NearStatistics(
            hits=self.hits,
            passed=self.passed,
            kept=self.kept,
            fenced=self.fenced,
            refused=self.refused,
            evicted=self.evicted,
            entries=len(self._copies),
            bytes=self._bytes,
            is_trusted=self.is_trusted,
        )

    # Under the lock of `Near`.

    def put(self, copy: Copy) -> bool:
        if copy.cost * LARGEST_SHARE > self._settings.max_bytes:
            return False
        for known in (self._copies.get(copy.key), self._by_key.get(copy.targets[0])):
            if known is not None:
                if known.got is copy.got:
                    return True  # callers that shared an answer each bring it
                if known.got.as_of > copy.got.as_of:
                    return False  # a slower answer, from before the one that is held
                self.take(known)
        self._copies[copy.key] = copy
        self._by_key[copy.targets[0]] = copy
        for tag in copy.targets[1:-1]:
            self._by_tag.setdefault(tag, set()).add(copy)
        self._bytes += copy.cost
        self.kept += 1
        self._make_room()
        return True

    def grow(self, copy: Copy, size: int) -> None:
        if self._copies.get(copy.key) is copy:
            copy.cost += size
            self._bytes += size
            self._make_room()

    def take(self, copy: Copy) -> None:
        if self._copies.get(copy.key) is not copy:
            return
        del self._copies[copy.key], self._by_key[copy.targets[0]]
        for tag in copy.targets[1:-1]:
            sharing = self._by_tag[tag]
            sharing.discard(copy)
            if not sharing:
                del self._by_tag[tag]
        self._bytes -= copy.cost

    def of(self, target: int) -> Sequence[Copy]:
        """The copies that a fence on `target` concerns."""
        if target in self._by_key:
            return (self._by_key[target],)
        if target in self._by_tag:
            return tuple(self._by_tag[target])
        return tuple(self._copies.values()) if target == self.digest else ()

    def all(self) -> Sequence[Copy]:
        return tuple(self._copies.values())

    def _make_room(self) -> None:
        while len(self._copies) > self._settings.max_entries or self._bytes > self._settings.max_bytes:
            oldest = next(iter(self._copies.values()))
            if oldest.used:
                oldest.used = False
                self._copies.move_to_end(oldest.key)
            else:
                self.take(oldest)
                self.evicted += 1


class Near:
    """All shelves of one client, and what its feed has said. May be called from any thread.

    `heed(key digest, at)` is told of a key whose copy a hard fence refused here: an instance that has not merged the fence yet
    would answer that copy again, so the next reads of the key have to take it along as a token.
    """

    def __init__(self, clock: Callable[[], float], heed: Callable[[int, int], None]) -> None:
        """`clock`: monotonic seconds."""
        self.clock = clock
        self._heed = heed
        self._shelves: WeakSet[Shelf] = WeakSet()
        self._fences = Fences(slots=1)  # until there is something to protect
        self._watermark = Watermark()
        self._lock = threading.Lock()
        self._is_down = True
        self.is_used = False
        """A shelf has been made, so the feed is to be followed; and for good, as forgetting fences would need another floor."""

    def shelf(self, namespace: str, settings: NearSettings, schema: Schema[Any]) -> Shelf:
        """For one namespace object, which keeps it: it goes when nobody holds it any more."""
        shelf = Shelf(namespace, settings, self, schema)
        with self._lock:
            if not self.is_used:
                self._fences = Fences()
                self.is_used = True
            self._shelves.add(shelf)
            self._fences.know_namespace(shelf.digest)
            self._trust()
        return shelf

    @property
    def bound(self) -> float | None:
        """Seconds: how late invalidations may be known here. None before the first heartbeat."""
        return self._watermark.bound(self.clock()) if self._watermark.is_known else None

    def seconds_since(self, at: int) -> float:
        """Of the service; 0 for what is ahead of it."""
        with self._lock:
            return max(0.0, self.clock() - self._watermark.local(at)) if self._watermark.is_known else 0.0

    # what is said of copies -------------------------------------------------------------------------------------------

    def merge(self, pairs: Iterable[Pair], *, soft: bool = False) -> None:
        """Fences on keys, tags and namespaces: from the feed, from a token, or from a write of this client."""
        if not self.is_used:
            return
        with self._lock:
            shelves, merge = tuple(self._shelves), self._fences.merge
            for target, at in pairs:
                merge(target, at, soft=soft)
                for shelf in shelves:
                    if copies := shelf.of(target):
                        self._fence(shelf, copies, at, soft=soft)

    def pace(self, target: int, at: int, over: int) -> None:
        with self._lock:
            if not self._watermark.is_known:  # nothing is held yet: that all of it is stale costs nothing
                self._fences.merge(target, at, soft=True)
                return
            self._fences.pace(target, at, over, self._watermark.now(self.clock()))
            for shelf in self._shelves:
                for copy in shelf.of(target):
                    if copy.got.as_of <= at:
                        copy.until = min(
                            copy.until, self._watermark.local(moment_of(at, over, copy.targets[0]))
                        )

    def know_namespace(self, digest: int) -> None:
        with self._lock:
            self._fences.know_namespace(digest)

    def raise_floor(self, floor: int) -> None:
        """Fences up to here may be missing."""
        with self._lock:
            if self._fences.raise_floor(floor):
                for shelf in self._shelves:
                    self._take_older(shelf, shelf.all(), floor)

    def heartbeat(self, complete_to: int, now: int) -> None:
        with self._lock:
            self._is_down = False
            self._watermark.heartbeat(complete_to, now, self.clock())
            self._trust()

    def down(self) -> None:
        """The feed has ended. What is held stays: a resumed feed tells what happened meanwhile."""
        with self._lock:
            self._is_down = True
            self._trust()

    def after_fork(self) -> None:
        """In the child, alone: the lock may be held by a thread that was left behind, and what that was changing be half done. So
        it begins empty, and is bypassed until it is fed. Fences are remembered: they were merged before their event's id was."""
        self._lock = threading.Lock()
        self._shelves = WeakSet(self._shelves)
        for shelf in self._shelves:
            shelf.begin()
        self.down()

    def _trust(self) -> None:
        for shelf in self._shelves:
            shelf.trusted_until = 0.0 if self._is_down else self._watermark.trusted_until(shelf.max_lag)

    def _fence(self, shelf: Shelf, copies: Sequence[Copy], at: int, *, soft: bool) -> None:
        for copy in self._take_older(shelf, copies, at):
            if not soft:
                self._heed(copy.targets[0], at)

    def _take_older(self, shelf: Shelf, copies: Sequence[Copy], at: int) -> Sequence[Copy]:
        older = [copy for copy in copies if copy.got.as_of <= at]
        for copy in older:
            shelf.take(copy)
        shelf.fenced += len(older)
        return older

    # what is kept -----------------------------------------------------------------------------------------------------

    def keep(self, shelf: Shelf, key: str, got: Got, asked_at: float) -> bool:
        namespace = shelf.namespace
        targets = (
            target_digest(f"{namespace}/{key}"),
            *[target_digest(f"{namespace}#{tag}") for tag in got.tags],
            shelf.digest,
        )
        with self._lock:
            now = self.clock()
            if not self._watermark.is_known or got.as_of > self._watermark.now(now) + AHEAD_US:
                return False
            if not self._admits(got, targets, asked_at):
                shelf.refused += 1
                if (recent := self._fences.newest_recent(targets)) >= got.as_of:
                    self._heed(targets[0], recent)
                return False
            until = now + got.ttl
            if (due := self._fences.due(got.as_of, targets[0], targets)) is not None:
                until = min(until, self._watermark.local(due))
            value = ABSENT if got.outcome == "absent" else NOTHING
            cost = len(key) + len(got.value) + OVERHEAD_BYTES
            return until > now and shelf.put(Copy(value, got, until, key, targets, cost))

    def charge(self, shelf: Shelf, copy: Copy, size: int) -> None:
        """The copy has grown."""
        with self._lock:
            shelf.grow(copy, size)

    def _admits(self, got: Got, targets: Sequence[int], asked_at: float) -> bool:
        return (
            got.as_of > self._fences.floor or self._is_vouched(got.lag, asked_at)
        ) and self._fences.admits(got.as_of, targets)

    def _is_vouched(self, lag: float | None, asked_at: float) -> bool:
        """Had the instance merged every change from before the floor when it answered?"""
        return (
            lag is not None
            and self._watermark.now(asked_at) - int(lag * _SECOND) - SKEW_US >= self._fences.floor
        )

    def drop(
        self, namespace: str, keys: Iterable[str], tags: Iterable[str] = (), *, everything: bool = False
    ) -> None:
        """What may have been invalidated by a write of this client, whether or not it was answered."""
        if not self.is_used:
            return
        targets = [target_digest(f"{namespace}/{key}") for key in keys]
        targets += [target_digest(f"{namespace}#{tag}") for tag in tags]
        with self._lock:
            for shelf in [shelf for shelf in self._shelves if shelf.namespace == namespace]:
                if everything:
                    shelf.begin()
                for copy in [copy for target in targets for copy in shelf.of(target)]:
                    shelf.take(copy)


def target_digest(target: str) -> int:
    """Of `ns/key`, `ns#tag` or `ns`."""
    return xxh3_64_intdigest(target.encode())
