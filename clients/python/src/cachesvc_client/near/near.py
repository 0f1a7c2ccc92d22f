"""Copies in this process, answered without I/O while the feed vouches for them.

The rule is that of clients/PROTOCOL.md, "Fences, for near caches".

    the feed ──► Near ──► every shelf: a fence takes out the copies that it concerns, at once
                  │       (a paced fence sets the copies' end)
                  └─────► fences.py: the fence is remembered, for answers that arrive later
    heartbeat ──────────► every shelf: `trusted_until`
    answers ──► Shelf.keep: does everything remembered admit the answer? ──► held
    readers ──► Shelf.value: held, before its end, before `trusted_until`? ──► the value
                └─ else NOTHING, and the reader asks the service
    own writes, tokens handed over ──► Near.merge; own writes whose answer never came ──► Near.drop

**A held copy is admissible.** The rule asks for a check whenever a copy is read. Here a fence that
comes finds the copies it concerns by an index of their targets' digests and takes them out, so that
a hit is a look-up and two comparisons. In return a fence costs a look-up or two per shelf. A near
cache is small, and is read far more often than it is fenced.

**Answers that are older than the floor.** Fences before the subscription began are not known here,
so a copy that was held until then is good only above the floor. An answer is different: its
instance has checked the answer against every change accepted before the instance's own watermark.
If that watermark lies above the floor, no fence that the floor stands for is missing, and the
answer is kept. Without this a new process could keep nothing that was loaded before the process
started, for as long as the longest TTL.

**Stale copies are not kept.** A soft fence takes copies out as a hard one does, and a paced fence
sets the end of a copy to the key's moment in the window. From then on readers go to the service,
which answers stale and loads anew. Only hard fences are told to the service (`heed`).

**Eviction** is the second-chance algorithm (CLOCK): the oldest copy is evicted first, but a copy
that was read since its last turn gets another turn. It keeps about what LRU keeps, and a hit only
sets a flag, so readers in other threads need no lock. Everything that changes a shelf holds the
lock of `Near`, which is never held over anything that waits.
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
from cachesvc_client.near.footprint import TAG_INDEX_BYTES, bytes_of_copy, bytes_of_object
from cachesvc_client.near.settings import NearSettings, NearStatistics
from cachesvc_client.near.watermark import Watermark
from cachesvc_client.protocol.names import check_key
from cachesvc_client.protocol.wire import Got
from cachesvc_client.values.codecs import Schema, UnreadableError
from cachesvc_client.values.context import ABSENT
from cachesvc_client.values.durations import positive_seconds_of

Pair = tuple[int, int]
"""`(digest, at)`, as in tokens."""

LARGEST_SHARE = 8
"""A copy above 1/8 of the byte budget is not kept: it would push out hundreds."""
AHEAD_US = 1_000_000
"""An answer whose `as_of` is further ahead of the service's time than this is not kept.

Clocks do not differ by so much. Such a copy would outlive fences that should take it out.
"""
SKEW_US = 500_000
"""A generous upper limit of the difference between the clocks of two instances."""

_SECOND = 1_000_000
_FRESH = ("hit", "loaded", "absent")


class _Nothing(enum.Enum):
    NOTHING = "nothing"


NOTHING: Final = _Nothing.NOTHING
"""The sign that there is no value to answer; ABSENT and None are values."""


class Copy(Struct, gc=False, eq=False):
    """One entry that is held.

    The garbage collector need not visit a copy, because everything in it is immutable.
    """

    value: Any
    """The value that a hit answers, or NOTHING if the value is to be decoded from `got`.

    That is so before the first hit, and at every hit if callers could change the value.
    """
    got: Got
    """The answer that brought the copy."""
    until: float
    """Monotonic seconds: the end of the freshness, or the moment of a paced fence if earlier."""
    key: str
    targets: tuple[int, ...]
    """The digests of the key, of the tags and of the namespace, in this order."""
    cost: int
    """Bytes that the copy is charged."""
    used: bool = False
    """True if the copy was read since its last turn in the eviction order."""
    is_large: bool = False
    """True if the decoded value takes too much of the budget to be kept."""


class Shelf:
    """The copies of one namespace object.

    `value` and `got` may be called from any thread and take no lock; so may `keep`, which takes the
    lock of `Near`. The methods at the end are called by `Near` alone, under its lock.
    """

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
        """Empties the shelf."""
        self._copies: OrderedDict[str, Copy] = OrderedDict()
        self._by_key: dict[int, Copy] = {}
        self._by_tag: dict[int, set[Copy]] = {}
        self._bytes = 0

    def __repr__(self) -> str:
        trust = "trusted" if self.is_trusted else "bypassed"
        return f"<Shelf of {self.namespace} [{len(self._copies)} entries, {self._bytes} bytes, {trust}]>"

    def value(self, key: str) -> Any:
        """Returns the value to answer with, which may be ABSENT, or NOTHING: then ask the service.

        The value must be used before the caller awaits anything: a fence may come meanwhile.
        """
        try:
            copy = self._copies.get(key)
        except TypeError:  # it cannot be hashed, and so is no text
            check_key(key)
            raise
        if copy is not None:
            now = self._clock()
            if now < copy.until and now < self.trusted_until:
                if not copy.used:  # reading the flag costs a fraction of setting it
                    copy.used = True
                self.hits += 1
                value = copy.value
                return value if value is not NOTHING else self._made(copy)
        self.passed += 1
        return NOTHING

    def got(self, key: str) -> Got | None:
        """Returns the copy as an answer of the service, with its present age, or None."""
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
        """Returns the decoded value; it is kept for later hits if nobody can change it.

        A value that takes too much of the budget when it is decoded is decoded for each hit.
        """
        try:
            value = self._schema.decode(copy.got.value, copy.got.content_type)
        except UnreadableError:
            return NOTHING  # the caller asks the service as if nothing were held, and handles its answer
        if self._schema.makes_immutable and not copy.is_large:
            size = 0 if value is copy.got.value else max(bytes_of_object(value), len(copy.got.value))
            if self._is_too_large(copy.cost + size):
                copy.is_large = True
            else:
                copy.value = value
                self._near.charge(self, copy, size)
        return value

    @property
    def is_trusted(self) -> bool:
        """True if the feed is up and within `max_lag`, so that copies may be answered."""
        return self._clock() < self.trusted_until

    def keep(self, key: str, got: Got, asked_at: float) -> bool:
        """Holds the answer if it is fresh and every fence known by now admits it.

        Returns true if the answer is held. `asked_at` is a time by this shelf's clock, not later
        than the moment when the request was sent. An answer that may not be kept takes out the copy
        that is older: nothing older may be answered after it.
        """
        if not got.keep:
            self._near.take_older(self, key, got.as_of)
            return False
        return got.outcome in _FRESH and self.is_trusted and self._near.keep(self, key, got, asked_at)

    def statistics(self) -> NearStatistics:
        """Returns the counters of this moment."""
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

    # Called under the lock of `Near`.

    def put(self, copy: Copy) -> bool:
        """Holds the copy; false if it is too large or a newer copy of its key is held."""
        if self._is_too_large(copy.cost):
            return False
        for known in (self._copies.get(copy.key), self._by_key.get(copy.targets[0])):
            if known is not None:
                if known.got is copy.got:
                    return True  # callers that shared an answer each bring it
                if known.got.as_of > copy.got.as_of:
                    return False  # a slower answer, older than the one that is held
                self.take(known)
        self._copies[copy.key] = copy
        self._by_key[copy.targets[0]] = copy
        for tag in copy.targets[1:-1]:
            if tag not in self._by_tag:
                self._by_tag[tag] = set()
                self._bytes += TAG_INDEX_BYTES
            self._by_tag[tag].add(copy)
        self._bytes += copy.cost
        self.kept += 1
        self._make_room()
        return True

    def _is_too_large(self, cost: int) -> bool:
        return cost * LARGEST_SHARE > self._settings.max_bytes

    def grow(self, copy: Copy, size: int) -> None:
        """Charges the copy `size` bytes more, if it is still held."""
        if self._copies.get(copy.key) is copy:
            copy.cost += size
            self._bytes += size
            self._make_room()

    def take(self, copy: Copy) -> None:
        """Takes the copy out, if it is still held."""
        if self._copies.get(copy.key) is not copy:
            return
        del self._copies[copy.key], self._by_key[copy.targets[0]]
        for tag in copy.targets[1:-1]:
            sharing = self._by_tag[tag]
            sharing.discard(copy)
            if not sharing:
                del self._by_tag[tag]
                self._bytes -= TAG_INDEX_BYTES
        self._bytes -= copy.cost

    def of(self, target: int) -> Sequence[Copy]:
        """Returns the copies that a fence on `target` concerns."""
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
    """All shelves of one client, and what its feed has said.

    Its methods may be called from any thread. `heed(key digest, at)` is told of a key whose copy a
    hard fence refused here: an instance that has not merged the fence yet would answer with that
    copy again, so the next reads of the key have to take the fence along as a token.
    """

    def __init__(self, clock: Callable[[], float], heed: Callable[[int, int], None]) -> None:
        """`clock` returns monotonic seconds."""
        self.clock = clock
        self._heed = heed
        self._shelves: WeakSet[Shelf] = WeakSet()
        self._fences = Fences(slots=1)  # the 4 MiB are taken when there is something to protect
        self._watermark = Watermark()
        self._lock = threading.Lock()
        self._is_down = True
        self._queues = ""
        """The queues whose fences the feed tells, as answers name theirs."""
        self.is_used = False
        """True once a shelf has been made: then the feed is to be followed.

        It stays true for good, because to forget fences would need another floor.
        """

    def shelf(self, namespace: str, settings: NearSettings, schema: Schema[Any]) -> Shelf:
        """Makes the shelf of one namespace object, which has to hold it.

        `Near` holds shelves weakly: a shelf ends with its namespace object.
        """
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
        """The seconds by which invalidations may be known late here; None before a heartbeat."""
        return self._watermark.bound(self.clock()) if self._watermark.is_known else None

    def seconds_since(self, at: int) -> float:
        """Returns the seconds by the service's clock since `at`; 0 if `at` is in the future."""
        with self._lock:
            return max(0.0, self.clock() - self._watermark.local(at)) if self._watermark.is_known else 0.0

    # what the feed says of copies -----------------------------------------------------------------

    def merge(self, pairs: Iterable[Pair], *, soft: bool = False) -> None:
        """Merges fences on keys, tags and namespaces, and takes out the copies that they refuse.

        They come from the feed, from a token, or from a write of this client.
        """
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
        """Merges a paced fence with a window of `over` µs: copies end at their moments in it."""
        with self._lock:
            if not self._watermark.is_known:  # nothing is held yet, so a soft fence costs nothing
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
        """Keeps the fences on this namespace exactly from now on."""
        with self._lock:
            self._fences.know_namespace(digest)

    def raise_floor(self, floor: int, queues: str | None = None) -> None:
        """Notes that fences up to `floor` may be missing, and takes out the copies up to it.

        `queues`: the feed tells the fences of these from now on.
        """
        with self._lock:
            if queues is not None:
                self._queues = queues
            if self._fences.raise_floor(floor):
                for shelf in self._shelves:
                    self._take_older(shelf, shelf.all(), floor)

    def heartbeat(self, complete_to: int, now: int) -> None:
        """Merges a heartbeat that has just come: copies may be answered for longer."""
        with self._lock:
            self._is_down = False
            self._watermark.heartbeat(complete_to, now, self.clock())
            self._trust()

    def down(self) -> None:
        """Notes that the feed has ended: the near cache is bypassed.

        Copies stay: a feed that resumes tells what happened meanwhile.
        """
        with self._lock:
            self._is_down = True
            self._trust()

    def after_fork(self) -> None:
        """Begins anew in a forked child, which has one thread.

        A thread that exists only in the parent may hold the lock, and what it was changing may be
        half done. So there is a new lock, the shelves begin empty, and the near cache is bypassed
        until a feed is up. Fences are still remembered: a fence is merged before the id of its
        event is noted, so a resumed feed sends every fence that was not merged in full.
        """
        self._lock = threading.Lock()
        self._shelves = WeakSet(self._shelves)
        for shelf in self._shelves:
            shelf.begin()
        self.down()

    def forget(self) -> None:
        """Forgets copies, fences and times, for another service; bypassed until its feed is up."""
        with self._lock:
            self._fences = Fences() if self.is_used else Fences(slots=1)
            self._watermark = Watermark()
            self._is_down = True
            for shelf in self._shelves:
                shelf.begin()
                self._fences.know_namespace(shelf.digest)
            self._trust()

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

    # what is kept ---------------------------------------------------------------------------------

    def keep(self, shelf: Shelf, key: str, got: Got, asked_at: float) -> bool:
        """Puts the answer on the shelf if everything remembered admits it; true if it is held."""
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
            cost = bytes_of_copy(key, got)
            return until > now and shelf.put(Copy(value, got, until, key, targets, cost))

    def take_older(self, shelf: Shelf, key: str, as_of: int) -> None:
        """Takes out the copy of the key if it is not newer than `as_of`."""
        with self._lock:
            self._take_older(shelf, shelf.of(target_digest(f"{shelf.namespace}/{key}")), as_of)

    def charge(self, shelf: Shelf, copy: Copy, size: int) -> None:
        """Charges the copy `size` bytes more: its decoded value is kept too."""
        with self._lock:
            shelf.grow(copy, size)

    def _admits(self, got: Got, targets: Sequence[int], asked_at: float) -> bool:
        return (got.as_of > self._fences.floor or self._is_vouched(got, asked_at)) and self._fences.admits(
            got.as_of, targets
        )

    def _is_vouched(self, got: Got, asked_at: float) -> bool:
        """True if the instance that answered had merged every change from before the floor.

        Its lag says nothing of changes at another queue than the one that it reads.
        """
        return (
            got.lag is not None
            and got.queues == self._queues
            and self._watermark.now(asked_at) - int(got.lag * _SECOND) - SKEW_US >= self._fences.floor
        )

    def drop(
        self, namespace: str, keys: Iterable[str], tags: Iterable[str] = (), *, everything: bool = False
    ) -> None:
        """Takes out copies that a write of this client may have invalidated.

        The write may have been unanswered, so its fence is not known.
        """
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
    """Returns the digest of `ns/key`, `ns#tag` or `ns`."""
    return xxh3_64_intdigest(target.encode())
