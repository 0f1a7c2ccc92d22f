"""A home cell on Redis: one script call per batch judges and changes its copies.

Leases and fences are kept there, too. The items of many callers collect in a batcher per kind of
operation. Each batch borrows a connection for its exchange, in the batcher's own task, so a
cancelled caller disturbs no other caller. `lua/prelude.lua` says what the scripts keep.
"""

import asyncio
import contextlib
import logging
import secrets
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.config import service as config
from cachesvc.model.change import Target, TargetKind
from cachesvc.model.clock import Clock
from cachesvc.model.digest import namespace_id, tag_id
from cachesvc.model.entry import Key
from cachesvc.model.errors import TierError, TierUnavailableError
from cachesvc.telemetry.metrics.histogram import DURATIONS, Histogram
from cachesvc.telemetry.outage import Outage
from cachesvc.telemetry.traces.exchange_span import ExchangeSpan, Server
from cachesvc.tiers.batching import NOTHING, Batcher, Run
from cachesvc.tiers.breaker import Breaker, not_tried
from cachesvc.tiers.l3.connection import NEW_ISSUER_WAITS, Attached
from cachesvc.tiers.l3.connection_pool import CellConnectionPool
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
from cachesvc.tiers.l3.issuer import Issuer, twin_of
from cachesvc.tiers.l3.record import ETAG_CHARACTERS, EXACT, bare, to_record
from cachesvc.tiers.l3.replies import (
    FENCE_TIMES,
    OUTCOMES_OF_FILLS,
    OUTCOMES_OF_LEASES,
    PLAIN_MISS,
    POSTPONED,
    UNREADABLE,
    claimed_in,
    is_damaged,
    outcomes_in,
    puts_in,
    reads_in,
    reply_from,
    state_from,
)
from cachesvc.tiers.l3.script import CLAIM, FENCE, FILL, INSPECT, LEASE, PUT, READ, Script
from cachesvc.tiers.redis_connections import DEFAULT_ACCESS, Access
from cachesvc.tiers.redis_report import RedisReport, certain_offset_us
from cachesvc.tiers.value_sizes import LARGE_BYTES, ValueSizes

log = logging.getLogger(__name__)

READS_IN_FLIGHT = 2
"""Batches of reads in flight at once: while the server works on one, the next is packed,
or the one before is unpacked, here."""
MOST_BYTES = 1 << 20
"""Bytes of values that one exchange writes, unless a single value is larger.

`read.lua` has the same bound for its answer: all keys of an exchange share its time limit."""


_SPEC = struct.Struct(">BQI")


class RedisCellStatistics(Struct, frozen=True):
    """Counters since the start, and the state now."""

    exchanges: int
    failures: int
    """Exchanges and connects that ended in a `TierError`."""
    connects: int
    """Connections that were opened."""
    idle: int
    """Connections that are open and idle now."""
    clock_offset_us: int
    """The cell's clock less this instance's clock at the last read or report, exact to half of
    that exchange's time."""
    damaged: int
    """Records that had changed since they were written. Each is a miss."""
    unreadable: int
    """Answers out of the protocol, or of another shape.

    Each failed its exchange and closed the connection.
    """
    changes: int
    """Times that the cell's name led to another server than before."""
    losses: int
    """Times that this instance found the cell's fences or its meta record gone."""
    server: int
    """The number of the server behind this instance's connections; 0 before the first."""
    round_trip_seconds: float
    """The estimate of the way there and back; 0 before the first exchange."""
    jitter_seconds: float
    """The mean deviation of that."""
    timeout_seconds: float
    """The time limit of an exchange now, without the time of large values."""
    is_twin: bool
    """True while the cell is refused because another cell is on the same server."""


class _FenceItem(Struct, frozen=True, gc=False):
    target: Target
    soft: bool
    least: int


class _LeaseItem(Struct, frozen=True, gc=False):
    key: Key
    token: str
    life_us: int
    """New life from now on, µs; 0 gives the lease back."""


class RedisCell:
    """A `Cell` on one Redis server; connects when first used, and again after a failure."""

    def __init__(
        self,
        name: str,
        url: str,
        settings: config.L3,
        skew_us: int,
        clock: Clock,
        *,
        placement: tuple[int, int] = (0, 0),
        nonce: Callable[[], str] = lambda: secrets.token_hex(8),
        issuers: dict[str, Issuer] | None = None,
        access: Access = DEFAULT_ACCESS,
        breaker: Breaker | None = None,
    ) -> None:
        """Makes a cell that is not connected yet.

        While `breaker` is open, exchanges fail at once, as if the server could not be reached.

        `issuers`: the servers behind all cells of the instance, to which this cell adds its own. Two cells
        on one server are two names of one: the second one is refused.

        `placement` is `Placement.id` and the topology's version. An instance that connects with a newer
        version, and another id than the cell has seen, makes the cell a new issuer: the cell cannot tell
        whether it was given partitions, so it assumes that it was. That costs misses and refused writes for
        S; the opposite mistake would serve old values.
        """
        self.name = name
        self._clock = clock
        self._nonce = nonce
        self._skew_us = skew_us
        self._issuers = {} if issuers is None else issuers
        self._issuer = self._issuers[name] = Issuer(skew_us)
        self.refusal = ""
        """Why the server is no home for this cell; empty if nothing speaks against it."""
        self._losses = 0
        self._met_at = float("-inf")
        """When the present server was first met, on the loop's clock."""
        self._timeout_seconds = settings.timeout.seconds
        self._connections = CellConnectionPool(
            url,
            name,
            settings,
            access,
            placement=placement,
            skew_us=skew_us,
            issuer=self._issuer,
            check=self._refuse_a_twin,
            attached=self._attached,
        )
        self._exchanges = self._failures = self._clock_offset_us = self._damaged = 0
        self._outage = Outage(f"cell {name}", log)
        self.breaker = breaker or Breaker()
        self._connecting: asyncio.Task[None] | None = None
        server = Server.redis(name, url)

        def batcher(
            run: Run[Any, Any],
            operation: str,
            in_flight: int = 1,
            unclaimed: Callable[[Sequence[Any], Sequence[Any]], None] | None = None,
            weigh: Callable[[Sequence[Any]], int] | None = None,
            lane_of: Callable[[Any], str] = _namespace_of,
            again: object = NOTHING,
        ) -> Batcher[Any, Any]:
            exchange_span = ExchangeSpan(server, operation)
            return Batcher(
                run,
                settings.max_batch,
                max_waiting=settings.max_waiting,
                in_flight=in_flight,
                name=f"{name} {operation}s",
                exchange_span=exchange_span,
                unclaimed=unclaimed,
                weigh=weigh,
                most_weight=MOST_BYTES,
                lane_of=lane_of,
                again=again,
            )

        self._sizes = ValueSizes()
        self._has_postponed = False
        """True once an answer had no room for a key."""
        self._reads: Batcher[Read, Reply] = batcher(
            self._read,
            "read",
            READS_IN_FLIGHT,
            unclaimed=self._release_unread,
            weigh=self._bytes_to_read,
            again=POSTPONED,
        )
        self._fills: Batcher[Fill, FillReply] = batcher(self._fill, "fill", weigh=_value_bytes)
        self._puts: Batcher[Put, PutReply] = batcher(self._put, "put", weigh=_value_bytes)
        self._fences: Batcher[_FenceItem, FenceReply] = batcher(
            self._fence, "fence", lane_of=_namespace_of_target
        )
        self._leases: Batcher[_LeaseItem, bool] = batcher(self._lease, "lease")
        self.batchers: Mapping[str, Batcher[Any, Any]] = {
            "reads": self._reads,
            "fills": self._fills,
            "puts": self._puts,
            "fences": self._fences,
            "leases": self._leases,
        }
        self.durations = {operation: Histogram.of(DURATIONS) for operation in self.batchers}
        """Seconds of exchanges by operation, failed ones too; waiting for a connection is
        not included."""

    def __repr__(self) -> str:
        counts = f"{self._exchanges} exchanges, {self._failures} failures"
        return f"<RedisCell {self.name} [{self._connections.idle} idle connections, {counts}]>"

    async def start(self) -> None:
        """Begins to connect, so that a new issuer's wait is over before the first write comes.

        If connecting fails, the next use tries again.
        """
        self._connecting = asyncio.get_running_loop().create_task(
            self._connect(), name=f"connecting to {self.name}"
        )

    async def _connect(self) -> None:
        with contextlib.suppress(TierError):
            await self._connections.give_back(await self._connections.borrow())

    async def stop(self) -> None:
        """Closes every connection when the exchanges in flight have ended.

        Items that wait are answered `TierUnavailableError`.
        """
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        for batcher in self.batchers.values():
            await batcher.close()
        await self._connections.close()

    @property
    def issuer(self) -> int:
        return self._issuer.id

    @property
    def master(self) -> str:
        return self._connections.master

    @property
    def round_trip_seconds(self) -> float:
        return self._connections.round_trip.seconds

    def look_again(self) -> None:
        self._connections.look_again()

    def _refuse_a_twin(self, issuer: int) -> None:
        self.refusal = ""
        if twin := twin_of(self.name, issuer, self._issuers):
            self.refusal = f"cells {twin} and {self.name} are one server under two addresses"
            raise TierUnavailableError(self.name, self.refusal)

    def _attached(self, attached: Attached) -> None:
        is_known = attached.issuer == self._issuer.id
        # Of two connections that are made at once to a new server, the one that found it empty may be
        # heard of last. It asked before the server was met.
        was_whole = is_known and attached.asked_at > self._met_at
        if attached.began == "lost" or (was_whole and attached.began == "empty"):
            self._losses += 1
            log.warning("cell %s has lost its fences or its meta record: it begins anew", self.name)
        elif self._issuer.id and not is_known:
            log.warning("cell %s is another server than before", self.name)
        if not is_known:
            self._met_at = asyncio.get_running_loop().time()
        self._issuer.meet(attached.issuer, attached.now_us)
        # A cell that is half-open is not worth it: a read that is kept from it may load without a lease.
        self.breaker.seen()

    def statistics(self) -> RedisCellStatistics:
        way = self._connections.round_trip
        return RedisCellStatistics(
            self._exchanges,
            self._failures,
            self._connections.connects,
            self._connections.idle,
            self._clock_offset_us,
            self._damaged,
            self._connections.unreadable,
            self._issuer.changes,
            self._losses,
            self._issuer.id,
            way.seconds,
            way.jitter_seconds,
            self._timeout_seconds + way.way_seconds,
            bool(self.refusal),
        )

    async def report(self) -> RedisReport:
        """Asks the server for its report, and takes its clock from it. Raises `TierError`.

        It is asked which server it is, too. An idle instance would else not hear that its server was a
        replica in between, if the server is a master again by the time of the next exchange.
        """
        connection = await self._connections.borrow()
        try:
            await connection.attach_again()
            said = await connection.report(self._clock.now_us)
        finally:
            await self._connections.give_back(connection)
        self._clock_offset_us = said.certain_offset_us  # a cell that is only written to has no other look
        return said

    def ask(self, read: Read) -> Awaitable[Reply | TierError]:
        return self._reads.submit(read)

    async def read_many(self, reads: Sequence[Read]) -> Sequence[Reply | TierError]:
        replies = await self._reads.submit_many(reads)
        return await self._with_the_rest(reads, replies) if self._has_postponed else replies

    async def _with_the_rest(
        self, reads: Sequence[Read], replies: Sequence[Reply | TierError]
    ) -> Sequence[Reply | TierError]:
        """Asks again for the keys that an answer had no room for, until all are answered."""
        while again := [i for i, reply in enumerate(replies) if reply is POSTPONED]:
            replies = list(replies)
            try:
                rest = await self._reads.resubmit([reads[i] for i in again])
            except asyncio.CancelledError:
                self._release_unread(reads, replies)
                raise
            for i, reply in zip(again, rest, strict=True):
                replies[i] = reply
        return replies

    def _bytes_to_read(self, reads: Sequence[Read]) -> int:
        return self._sizes.of_large(read.key for read in reads)

    async def fill_many(self, fills: Sequence[Fill]) -> Sequence[FillReply | TierError]:
        return await self._fills.submit_many(fills)

    async def put_many(self, puts: Sequence[Put]) -> Sequence[PutReply | TierError]:
        return await self._puts.submit_many(puts)

    async def fence_many(
        self, targets: Sequence[Target], *, soft: bool, least: int = 0
    ) -> Sequence[FenceReply | TierError]:
        return await self._fences.submit_many([_FenceItem(target, soft, least) for target in targets])

    async def renew_many(self, leases: Sequence[tuple[Key, str, int]]) -> Sequence[bool | TierError]:
        return await self._leases.submit_many(
            [_LeaseItem(key, token, max(life, 1000)) for key, token, life in leases]
        )

    async def release_many(self, leases: Sequence[tuple[Key, str]]) -> Sequence[bool | TierError]:
        return await self._leases.submit_many([_LeaseItem(key, token, 0) for key, token in leases])

    def release(self, key: Key, lease: str) -> None:
        self._leases.submit(_LeaseItem(key, lease, 0)).add_done_callback(_drop)

    def _release_unread(self, reads: Sequence[Read], replies: Sequence[Reply | TierError]) -> None:
        """Gives back the leases of replies whose callers were cancelled."""
        for read, reply in zip(reads, replies, strict=True):
            if isinstance(reply, Reply) and reply.lease is not None:
                self.release(read.key, reply.lease)

    async def inspect(self, key: Key, tags: Sequence[str]) -> CellKeyState:
        """Returns the state of a key; neither batched nor counted. Raises `TierError`."""
        ids = [key.id, namespace_id(key.namespace), *(tag_id(key.namespace, tag) for tag in tags)]
        connection = await self._connections.borrow()
        try:
            state = await connection.run_untouched(INSPECT, ids, partial(state_from, key, tags))
        finally:
            await self._connections.give_back(connection)
        issuer = connection.issuer
        exact_from = self._issuer.exact_from(issuer, state.broken_at, state.now_us)
        return replace(state, issuer=issuer, exact_from=exact_from)

    async def claim(self, uses: Sequence[Use], live_us: int) -> Claimed:
        """Notes which queues an instance uses; neither batched nor counted. Raises `TierError`."""
        notes = [part for use in uses for part in (use.region, use.who, use.queue)]
        connection = await self._connections.borrow()
        try:
            return await connection.run_alone(CLAIM, [live_us, *notes], partial(claimed_in, count=len(uses)))
        finally:
            await self._connections.give_back(connection)

    async def _read(self, reads: list[Read]) -> list[Reply | TierError]:
        """Reads keys in one exchange; `POSTPONED` is the reply for those that it had no room for."""
        nonce = self._nonce()
        args: list[Any] = [nonce]
        for read in reads:
            args.append(read.key.id)
            not_before = min(read.not_before, EXACT)
            args.append(
                _SPEC.pack(2 if read.refresh else read.lease, not_before, max(read.lease_us // 1000, 1))
            )
        sent_us = self._clock.now_us()
        taken = partial(reads_in, count=len(reads), nonce=nonce.encode())
        answer, issuer = await self._exchange(READ, args, taken)
        if answer == NEW_ISSUER_WAITS:
            return [PLAIN_MISS] * len(reads)
        broken_at, now_us, replies = answer
        exact_from = self._issuer.exact_from(issuer, broken_at, now_us)
        self._clock_offset_us = certain_offset_us(now_us, sent_us, self._clock.now_us())
        found: list[Reply | TierError] = []
        without = []
        for read, answered in zip(reads, replies, strict=True):
            if type(answered) is int and answered < 0:
                self._sizes.met(read.key, max(-answered, LARGE_BYTES))
                self._has_postponed = True
                found.append(POSTPONED)
                continue
            reply = (
                reply_from(read.key, answered, exact_from)
                if type(answered) is not list or len(answered) > 1
                else self._refused(answered)
            )
            found.append(reply)
            if type(answered) is bytes and len(answered) >= LARGE_BYTES:
                self._sizes.met(read.key, len(answered))
            if isinstance(reply, TierError) or (reply.entry is None and type(answered) is not int):
                without.append(answered)
        if not without:
            return found
        if damaged := sum(map(is_damaged, without)):
            if not self._damaged:
                log.warning("cell %s holds a damaged record, which is a miss; more are counted", self.name)
            self._damaged += damaged
        await self._ask_past_the_unreadable(reads, found)
        return found

    def _refused(self, answer: list[bytes]) -> TierError:
        """Returns the error of an item that the server refused, from its reason."""
        return TierError(self.name, answer[0].decode("utf-8", "replace"))

    async def _ask_past_the_unreadable(self, reads: list[Read], found: list[Reply | TierError]) -> None:
        """Reads again the keys whose record is of another envelope version, or damaged.

        Such a record looks like a hit to the server, which therefore granted no lease. The second read asks
        for an entry later than every record: a miss, so that one of the instances that cannot read the
        record loads the value anew. A server that answers with such a record again is not asked again.
        """
        again = [
            i
            for i, reply in enumerate(found)
            if reply is UNREADABLE and reads[i].lease and reads[i].not_before < EXACT
        ]
        if again:
            try:
                replies = await self._read([replace(reads[i], not_before=EXACT) for i in again])
            except TierError as error:
                replies = [error] * len(again)
            for i, reply in zip(again, replies, strict=True):
                found[i] = reply

    async def _fill(self, fills: list[Fill]) -> Sequence[FillReply | TierError]:
        args: list[Any] = [b""]
        for fill in fills:
            token = fill.lease.encode()
            args += (
                fill.key.id,
                token,
                fill.entry.kept_until // 1000,
                to_record(fill.key, fill.entry, token),
            )
        taken = partial(outcomes_in, count=len(fills), known=OUTCOMES_OF_FILLS)
        answer, _ = await self._exchange(FILL, args, taken, size=_value_bytes(fills))
        if answer == NEW_ISSUER_WAITS:  # a lease from before the new issuer is not in force any more
            return [FillReply(stored=False)] * len(fills)
        return [
            self._refused(one) if type(one) is list else FillReply(one == 1, fenced=one == -1)
            for one in answer
        ]

    def _in_its_time(self, put: Put) -> Put:
        """Returns the put with its end in the cell's time, if the own clock is far ahead of it.

        That is by 4 S or more. A value of five seconds would else be fresh for as long as this clock
        is ahead, wherever it is read.
        """
        ahead_us = -self._clock_offset_us
        if ahead_us < 4 * self._skew_us:
            return put
        return replace(put, entry=replace(put.entry, fresh_until=put.entry.fresh_until - ahead_us))

    async def _put(self, puts: list[Put]) -> Sequence[PutReply | TierError]:
        puts = [self._in_its_time(put) for put in puts]
        nonce = self._nonce()
        args: list[Any] = [nonce]
        for put in puts:
            args += (put.key.id, b"1" if put.if_absent else b"", _condition(put.if_match))
            args += (min(put.known, EXACT), put.entry.kept_until // 1000, to_record(put.key, put.entry))
        taken = partial(puts_in, count=len(puts), nonce=nonce.encode())
        answer, issuer = await self._exchange(PUT, args, taken, in_time=True, size=_value_bytes(puts))
        if answer == NEW_ISSUER_WAITS:
            raise TierUnavailableError(self.name, "new issuer waits")
        return [self._putted(put, one, issuer) for put, one in zip(puts, answer, strict=True)]

    def _putted(self, put: Put, answer: Any, issuer: int) -> PutReply | TierError:
        if type(answer) is int:
            entry = replace(put.entry, as_of=answer + 1) if answer else None
            return PutReply(stored=answer > 0, at=answer, entry=entry, issuer=issuer if answer else 0)
        if len(answer) == 1:
            return self._refused(answer)
        at, token, wait_us = answer
        return PutReply(stored=False, at=at, lease=token.decode(), wait_us=wait_us, issuer=issuer)

    async def _fence(self, items: list[_FenceItem]) -> Sequence[FenceReply | TierError]:
        args: list[Any] = []
        for item in items:
            kind = b"k" if item.target.kind is TargetKind.KEY else b"t"
            args += (kind, item.target.id, b"1" if item.soft else b"0", item.least)
        taken = partial(outcomes_in, count=len(items), known=FENCE_TIMES)
        answer, issuer = await self._exchange(FENCE, args, taken)
        return [at if isinstance(at, TierError) else FenceReply(at, issuer) for at in self._issued(answer)]

    async def _lease(self, items: list[_LeaseItem]) -> Sequence[bool | TierError]:
        args: list[Any] = [b""]
        for item in items:
            args += (item.key.id, item.token, item.life_us // 1000)
        taken = partial(outcomes_in, count=len(items), known=OUTCOMES_OF_LEASES)
        answer, _ = await self._exchange(LEASE, args, taken)
        if answer == NEW_ISSUER_WAITS:
            return [False] * len(items)
        return [self._refused(one) if type(one) is list else one == 1 for one in answer]

    def _issued(self, answer: Any) -> list[int | TierError]:
        """Returns the `at` of each item, or the refusal of it."""
        if answer == NEW_ISSUER_WAITS:
            raise TierUnavailableError(self.name, "new issuer waits")
        return [self._refused(at) if type(at) is list else at for at in answer]

    async def _exchange(
        self,
        script: Script,
        args: list[Any],
        taken: Callable[[Any], Any],
        *,
        in_time: bool = False,
        size: int = 0,
    ) -> tuple[Any, int]:
        """Returns `taken` of a script's answer, and the number of the server that gave it.

        `in_time`: the script does not run any more once this call has failed. `size`: the bytes of the
        values that are written.
        """
        if not self.breaker.admits():
            raise not_tried(self.name)
        self._exchanges += 1
        connection = None
        try:
            connection = await self._connections.borrow()
            began = perf_counter()
            try:
                run = connection.run_in_time if in_time else connection.run
                answer = await run(script, args, taken, size)
            finally:
                self.durations[f"{script.name}s"].observe(perf_counter() - began)
                await self._connections.give_back(connection)
        except TierError as error:
            self._failures += 1
            self._outage.failed(error.why)
            self.breaker.ended(error, at_once=connection is None)
            raise
        self.breaker.ended()
        if self._outage.is_on:
            self._outage.worked()
        return answer, connection.issuer


def _drop(done: "asyncio.Future[Any]") -> None:
    """Takes note of an outcome for nobody, so that asyncio does not log it as forgotten."""
    if not done.cancelled():
        done.exception()


def _value_bytes(items: Sequence[Fill | Put]) -> int:
    return sum([len(item.entry.value) for item in items])


def _namespace_of(item: Read | Fill | Put | _LeaseItem) -> str:
    return item.key.namespace


def _namespace_of_target(item: _FenceItem) -> str:
    return item.target.namespace


def _condition(if_match: Sequence[str]) -> bytes:
    """Returns the ETags of `If-Match` as `put.lua` takes them.

    Weak ETags, and ETags that were not made here, can match nothing (RFC 9110, 13.1.1); a condition of
    only such ETags is `-`, which matches nothing.
    """
    if "*" in if_match:
        return b"*"
    strong = [bare(tag) for tag in if_match if len(bare(tag)) == ETAG_CHARACTERS]
    return "".join(strong).encode() if strong or not if_match else b"-"
