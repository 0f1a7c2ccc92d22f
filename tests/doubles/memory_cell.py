"""A home cell in this process: the contract of `Cell`, on a clock that is given.

The clock can also stand still. The cell is used by tests of the paths and by drills. It answers
as the Lua scripts of a real cell do; the contract suite runs on both. Nothing awaits inside, so
every call is one atomic step.
"""

import itertools
import secrets
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.changes.contract import UNANNOUNCED
from cachesvc.model.change import Target, TargetKind
from cachesvc.model.clock import Clock
from cachesvc.model.digest import namespace_id, tag_id
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError, TierUnavailableError
from cachesvc.model.etag import etag
from cachesvc.tiers.l3.contract import (
    CellKeyState,
    Claimed,
    FenceReply,
    Fill,
    FillReply,
    Put,
    PutReply,
    Read,
    Reply,
    Use,
)

_SERVERS = itertools.count()

MARGIN_US = 1000
"""No put is stored with an `as_of` later than now + S + 1 ms, as in `put.lua`."""
PUT_MAY_TAKE_US = 100_000
"""A put that arrives so long after it was sent is refused: its caller has given it up."""
WAITING = "-put-"
"""The mark of the lease of a put that waits for its time, unless its value is "absent"."""


class _Copy(Struct, gc=False):
    entry: Entry
    kept_until: int
    """At most as long as fences are kept.

    Otherwise a fence could be trimmed before the copy that it refuses is gone.
    """
    soft_at: int = 0
    """The key's soft fence, if one came after the fill."""
    token: str = ""
    """The lease under which the copy was filled; it makes a fill idempotent."""


class _Lease(Struct, gc=False):
    token: str
    as_of: int
    expires_at: int


_issuers = itertools.count(1)
_NOTHING_YET = Reply(None, exact=False)


def new_issuer() -> int:
    """Returns the number of a server that was never met."""
    return next(_issuers)


class MemoryCell:
    """One cell on one event loop.

    `restart`, `lose` and `activate` do to it what drills do to a server.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        skew_us: int,
        *,
        retention_us: int = 3_600_000_000,
        nonce: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self.name = name
        self._clock = clock
        self._skew_us = skew_us
        self._retention_us = retention_us
        self._nonce = nonce
        self.round_trip_seconds = 0.0
        self.issuer = new_issuer()
        """The number of this server. Every other server has another one, a replica too."""
        self._copies: dict[bytes, _Copy] = {}
        self._leases: dict[bytes, _Lease] = {}
        self._fences: dict[bytes, int] = {}
        self._soft: dict[bytes, int] = {}
        self._broken_at = 0
        self._issues_from = 0
        self._placement = (0, 0)
        self._is_whole = True
        """False once fences were deleted behind the cell's back: the marker among them is gone."""
        self._trimmed = 0
        self._queues: dict[str, dict[str, tuple[int, str]]] = {}
        """Region → part of an instance → when it said so, and the queue that it uses."""
        self.server = next(_SERVERS)
        """A number that is another one after each restart, as a run id is."""
        self._puts_until = 0
        """The latest fence that a put has waited for."""

    def __repr__(self) -> str:
        held = f"{len(self._copies)} copies, {len(self._leases)} leases, {len(self._fences)} fences"
        return f"<MemoryCell {self.name} [{held}]>"

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    master = ""

    def look_again(self) -> None: ...

    def restart(self) -> None:
        """Makes the cell a new issuer over its data, as after a promotion or a restart from disk.

        It waits for the skew; copies that are older are not exact.
        """
        self.server = next(_SERVERS)
        now = self._clock.now_us()
        self._issues_from = now + self._skew_us
        self._broken_at = now + 2 * self._skew_us + 1000

    @property
    def broken_at(self) -> int:
        return self._broken_at

    def lose_fences(self) -> None:
        """Deletes the fences and nothing else, as `DEL fences` does."""
        self._fences.clear()
        self._is_whole = False

    def lose(self) -> None:
        """Restarts the cell without any of its data."""
        for held in (self._copies, self._leases, self._fences, self._soft):
            held.clear()
        self._placement = (0, 0)
        self.restart()

    def activate(self, placement: int, version: int) -> None:
        """Notes that an instance attached with this `Placement.id` and topology version.

        A newer version with another placement may have given this cell partitions, and so may a newer one
        with versions in between that never came here. Then the cell is a new issuer, as after a restart.
        """
        known, seen = self._placement
        if version <= seen:
            return
        self._placement = (placement, version)
        if placement != known or version > seen + 1:
            self.restart()

    def _waits_at(self, now: int) -> bool:
        """True while a new issuer waits.

        A wait that would last longer than S is from a clock that was set back: it begins anew. So does a
        cell that has lost its fences.
        """
        if self._issues_from > now + self._skew_us or not self._is_whole:
            self._is_whole = True
            self.restart()
        return now < self._issues_from

    async def claim(self, uses: Sequence[Use], live_us: int) -> Claimed:
        now, answers = self._clock.now_us(), []
        for use in uses:
            notes = self._queues.setdefault(use.region, {})
            for who, (at, queue) in list(notes.items()):
                _, counts_us = _of_journal(queue)
                if now - at > max(live_us, counts_us or 0):
                    del notes[who]
            known, _ = _of_journal(notes[use.who][1]) if use.who in notes else (None, None)
            number, _ = _of_journal(use.queue)
            if known is None or number is None or known <= number:
                notes[use.who] = (now, use.queue)
            instance = use.who.partition(" ")[0]
            others = {
                queue
                for who, (_, queue) in notes.items()
                if who.partition(" ")[0] != instance and _of_journal(queue)[1] != 0
            }
            answers.append(sorted(others - {use.queue}))
        return Claimed(f"{self.name}-{self.server}", answers)

    async def ask(self, read: Read) -> Reply | TierError:
        return (await self.read_many((read,)))[0]

    async def read_many(self, reads: Sequence[Read]) -> Sequence[Reply | TierError]:
        now = self._clock.now_us()
        if self._waits_at(now):
            return [_NOTHING_YET] * len(reads)
        return [self._read(read, now) for read in reads]

    async def fill_many(self, fills: Sequence[Fill]) -> Sequence[FillReply | TierError]:
        now = self._clock.now_us()
        if self._waits_at(now):
            return [FillReply(stored=False)] * len(fills)
        return [self._fill(fill, now) for fill in fills]

    async def put_many(self, puts: Sequence[Put]) -> Sequence[PutReply | TierError]:
        now = self._clock.now_us()
        if self._waits_at(now):
            return [self._waits()] * len(puts)
        replies = [self._put(put, now) for put in puts]
        self._trim(now)
        return replies

    def put_on_its_way(self, put: Put) -> Callable[[], None]:
        """Sends a put that may be given up on its way; the result is called when it arrives."""
        given_up_at = self._clock.now_us() + PUT_MAY_TAKE_US

        def arrive() -> None:
            now = self._clock.now_us()
            if now < given_up_at:
                self._put(put, now)

        return arrive

    async def fence_many(
        self, targets: Sequence[Target], *, soft: bool, least: int = 0
    ) -> Sequence[FenceReply | TierError]:
        now = self._clock.now_us()
        if self._waits_at(now):
            return [self._waits()] * len(targets)
        # A clock that is far ahead must not keep a target out of the cache for as long as the clock is
        # wrong.
        least = min(least, now + 4 * self._skew_us)
        apply = {TargetKind.KEY: self._fence_key}
        replies = [
            FenceReply(
                apply.get(target.kind, self._fence_many_keys)(target.id, soft, least, now), self.issuer
            )
            for target in targets
        ]
        self._trim(now)
        return replies

    async def renew_many(self, leases: Sequence[tuple[Key, str, int]]) -> Sequence[bool | TierError]:
        now = self._clock.now_us()
        return [
            not self._waits_at(now) and self._prolong(key.id, token, now + life, now)
            for key, token, life in leases
        ]

    async def release_many(self, leases: Sequence[tuple[Key, str]]) -> Sequence[bool | TierError]:
        return [self._release(key, token) for key, token in leases]

    def release(self, key: Key, lease: str) -> None:
        self._release(key, lease)

    def _release(self, key: Key, token: str) -> bool:
        now = self._clock.now_us()
        return now >= self._issues_from and self._prolong(key.id, token, now, now)

    async def inspect(self, key: Key, tags: Sequence[str]) -> CellKeyState:
        now = self._clock.now_us()
        copy, lease = self._copy(key.id, now), self._lease(key.id, now)
        named = {tag: tag_id(key.namespace, tag) for tag in (*tags, *(copy.entry.tags if copy else ()))}
        whole = namespace_id(key.namespace)
        return CellKeyState(
            entry=copy.entry if copy else None,
            fence_at=self._fences.get(key.id, 0),
            tag_fences={tag: self._fences.get(id_, 0) for tag, id_ in named.items()},
            namespace_fence=self._fences.get(whole, 0),
            lease_held=lease is not None,
            lease_as_of=lease.as_of if lease else 0,
            broken_at=self._broken_at,
            now_us=now,
            lease=lease.token if lease else "",
            lease_until=lease.expires_at if lease else 0,
            soft_fence=copy.soft_at if copy else 0,
            soft_tag_fences={tag: self._soft.get(id_, 0) for tag, id_ in named.items()},
            soft_namespace_fence=self._soft.get(whole, 0),
            issuer=self.issuer,
            exact_from=self._broken_at,
        )

    def _read(self, read: Read, now: int) -> Reply:
        key = read.key
        copy = self._copy(key.id, now)
        fenced = soft = fresh = False
        if copy is not None:
            as_of = copy.entry.as_of
            if (
                as_of <= read.not_before
                or as_of > now + 3 * self._skew_us
                or as_of <= self._newest(self._fences, key.namespace, copy.entry)
            ):
                copy, fenced = None, True
            else:
                soft = as_of <= max(copy.soft_at, self._newest(self._soft, key.namespace, copy.entry))
                fresh = not soft and now < copy.entry.fresh_until
        wanted = read.refresh or (read.lease and not fresh)
        token = self._grant(key.id, read.lease_us, now) if wanted else None
        entry = copy.entry if copy is not None else None
        return Reply(
            entry=entry,
            exact=entry is not None and entry.as_of > self._broken_at,
            lease=token,
            held=wanted and token is None,
            soft=soft,
            fenced=fenced,
        )

    def _grant(self, key_id: bytes, life_us: int, now: int) -> str | None:
        if self._lease(key_id, now) is not None:
            return None
        fence = self._fences.get(key_id, 0)
        # It grows with the clock even while the fence is ahead of the clock; `read.lua` says why.
        as_of = max(now, fence + 1, (now + self._skew_us + fence) // 2 + 1)
        as_of = min(as_of, now + self._skew_us + MARGIN_US)
        token = f"{self._nonce()}:{as_of}"
        self._leases[key_id] = _Lease(token, as_of, now + life_us)
        return token

    def _fill(self, fill: Fill, now: int) -> FillReply:
        key_id, entry = fill.key.id, fill.entry
        lease = self._lease(key_id, now)
        # The entry may be older than its lease, because an origin's Age is subtracted. So the fence of its
        # key is checked, too.
        newest = max(self._fences.get(key_id, 0), self._newest(self._fences, fill.key.namespace, entry))
        fenced = entry.as_of <= newest
        if lease is None or lease.token != fill.lease:
            copy = self._copy(key_id, now)
            return FillReply(copy is not None and copy.token == fill.lease and not fenced, fenced)
        del self._leases[key_id]
        if fenced or entry.as_of > lease.as_of:
            return FillReply(stored=False, fenced=fenced)
        self._store(key_id, entry, now, fill.lease)
        return FillReply(stored=True)

    def _ahead(self, at: int, now: int) -> int:
        return at - now - self._skew_us

    def _put(self, put: Put, now: int) -> PutReply:
        if not self._allows(put, now):
            return PutReply(stored=False)
        key_id = put.key.id
        barred_until = max(self._next_fence(key_id, now), self._bar(put, now))
        wait_us = self._ahead(barred_until, now)
        can_wait = wait_us < 3 * self._skew_us + MARGIN_US
        at = self._fence_key(key_id, False, barred_until if can_wait else 0, now)
        if wait_us < MARGIN_US:
            entry = replace(put.entry, as_of=at + 1)
            self._store(key_id, entry, now)
            return PutReply(stored=True, at=at, entry=entry, issuer=self.issuer)
        token = ""
        if can_wait:
            if at > self._puts_until or self._ahead(self._puts_until, now) > 3 * self._skew_us + MARGIN_US:
                self._puts_until = at
            token = f"{self._nonce()}{'' if put.entry.negative else WAITING}:{at + 1}"
            self._leases[key_id] = _Lease(token, at + 1, now + 3 * self._skew_us + 1_000_000)
        return PutReply(stored=False, at=at, lease=token, wait_us=wait_us, issuer=self.issuer)

    def _bar(self, put: Put, now: int) -> int:
        """The newest fence that would refuse the entry or make it stale, or that the caller knows."""
        # A time that is further ahead is that of a wrong clock.
        known = put.known if self._ahead(put.known, now) <= 3 * self._skew_us else 0
        fences = (self._newest(held, put.key.namespace, put.entry) for held in (self._fences, self._soft))
        return max(known, *fences)

    def _store(self, key_id: bytes, entry: Entry, now: int, token: str = "") -> None:
        self._copies[key_id] = _Copy(entry, min(entry.kept_until, now + self._retention_us), token=token)

    def _allows(self, put: Put, now: int) -> bool:
        copy = self._copy(put.key.id, now)
        if copy is not None and (
            copy.entry.negative
            or copy.entry.as_of <= self._newest(self._fences, put.key.namespace, copy.entry)
        ):
            copy = None
        lease = self._lease(put.key.id, now)
        if put.if_absent and (copy is not None or (lease is not None and WAITING in lease.token)):
            return False
        return not put.if_match or (
            copy is not None and ("*" in put.if_match or etag(copy.entry) in put.if_match)
        )

    def _next_fence(self, key_id: bytes, now: int) -> int:
        """A time ahead of every lease that this clock can have granted.

        It is also after the fence before it, even if the clock stands still.
        """
        return max(now + self._skew_us, self._fences.get(key_id, 0) + 1)

    def _fence_key(self, key_id: bytes, soft: bool, least: int, now: int) -> int:
        at = max(self._next_fence(key_id, now), least)
        self._fences[key_id] = at
        self._leases.pop(key_id, None)
        if not soft:
            self._copies.pop(key_id, None)
        elif (copy := self._copy(key_id, now)) is not None:
            copy.soft_at = at
        return at

    def _fence_many_keys(self, target_id: bytes, soft: bool, least: int, now: int) -> int:
        held = self._soft if soft else self._fences
        least = least or now + 2 * self._skew_us + 1000
        if (
            self._ahead(least, now) > 0
            and self._ahead(self._puts_until, now) <= 3 * self._skew_us + MARGIN_US
        ):
            least = max(least, self._puts_until + 1)
        at = held[target_id] = max(held.get(target_id, 0), least)
        return at

    def _prolong(self, key_id: bytes, token: str, expires_at: int, now: int) -> bool:
        lease = self._lease(key_id, now)
        if lease is None or lease.token != token:
            return False
        lease.expires_at = expires_at
        return True

    def _copy(self, key_id: bytes, now: int) -> _Copy | None:
        copy = self._copies.get(key_id)
        if copy is not None and copy.kept_until <= now:
            del self._copies[key_id]
            return None
        return copy

    def _lease(self, key_id: bytes, now: int) -> _Lease | None:
        lease = self._leases.get(key_id)
        if lease is not None and lease.expires_at <= now:
            del self._leases[key_id]
            return None
        return lease

    @staticmethod
    def _newest(held: dict[bytes, int], namespace: str, entry: Entry) -> int:
        """The newest fence of the entry's namespace and tags."""
        if not held:
            return 0
        ids = [namespace_id(namespace), *(tag_id(namespace, tag) for tag in entry.tags)]
        return max(held.get(id_, 0) for id_ in ids)

    def _waits(self) -> TierUnavailableError:
        return TierUnavailableError(self.name, "new issuer waits")

    def _trim(self, now: int) -> None:
        """Removes what has expired, once a minute.

        That is: fences that are older than any copy by a minute, and copies and leases.
        """
        if now - self._trimmed < 60_000_000:
            return
        self._trimmed = now
        for held in (self._fences, self._soft):
            for id_ in [id_ for id_, at in held.items() if at < now - self._retention_us - 60_000_000]:
                del held[id_]
        for key_id in list(self._copies):
            self._copy(key_id, now)
        for key_id in list(self._leases):
            self._lease(key_id, now)


def _of_journal(queue: str) -> tuple[int | None, int | None]:
    """The number of a journal's note, and for how many µs it counts; None for other notes."""
    if not queue.startswith(UNANNOUNCED):
        return None, None
    _, _, number, counts_us = queue.split(":")
    return int(number), int(counts_us)
