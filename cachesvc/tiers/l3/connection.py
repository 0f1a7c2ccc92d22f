"""One connection to a cell's server, one exchange at a time.

    open:  connect → greet and attach, in one exchange (a master? which server? a server or a
           placement that the cell does not know makes the cell a new issuer)
    run:   EVALSHA → the reply;  NOSCRIPT → load, again;  "attach first" → attach, again (once)

redis-py makes the connection and reads the replies. The exchange is driven here, because redis-py's
client would add a pool, a retry loop and a measurement to every batch, and one more task for the
time limit of the write.

The time limit of an exchange is that of the server, and on top the way there (`round_trip.py`),
with a round trip for each time that the exchange goes there and back: a far server has as much time
to answer as a near one. On top of that is the time of its bytes (`fair_timeout.py`): of those that
are written from the beginning, and of those that are read as far as they have come.

Anything that ends an exchange early (time limit, cancellation, a broken socket) closes the
connection: a reply that arrives later can never be taken for the answer to another exchange. Nor
can a reply that nobody asked for: a connection with anything to read is not usable.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeVar

import hiredis
from msgspec import Struct
from redis.exceptions import BusyLoadingError, InvalidResponse, NoScriptError, RedisError, ResponseError

from cachesvc.model.clock import SECONDS
from cachesvc.model.errors import (
    TierError,
    TierTimeoutError,
    TierUnavailableError,
    UnreadableAnswerError,
)
from cachesvc.telemetry.link_faults import told
from cachesvc.tiers.answer_shapes import as_it_is
from cachesvc.tiers.fair_timeout import FairTimeout, seconds_for
from cachesvc.tiers.l3.issuer import issuer_of
from cachesvc.tiers.l3.replies import attached_in
from cachesvc.tiers.l3.script import ATTACH, Script
from cachesvc.tiers.redis_connections import CleanConnection, is_demotion
from cachesvc.tiers.redis_report import COMMANDS, RedisReport, fields_of, version_of
from cachesvc.tiers.round_trip import SMALL_BYTES, RoundTrip
from cachesvc.tiers.server_settings import LEAST_REDIS

T = TypeVar("T")

ATTACH_FIRST = 0
"""The reply of the prelude if the state is lost, or was written by another server."""
NEW_ISSUER_WAITS = 1
"""The reply of the prelude while a new issuer must not issue yet."""
TOO_LATE = 2
"""The reply of a script that says until when it may run, from then on. It did nothing."""
TIME_HOLDS_SECONDS = 60.0
"""How long the server's time is reckoned from one answer of its clock.

Clocks of two machines drift apart by some µs per second.
"""


class Attached(Struct, frozen=True):
    """A server that has been attached to."""

    issuer: int
    """Its number (`issuer_of`)."""
    now_us: int
    """Not earlier than the server's time now, µs."""
    began: str
    """Why the attaching made it a new issuer, as `attach.lua` says; empty if it did not."""
    asked_at: float
    """When it was asked, on the loop's clock."""


class CellConnection:
    """A connection that one exchange at a time may use."""

    def __init__(
        self,
        connection: CleanConnection,
        where: str,
        *,
        placement: tuple[int, int],
        skew_us: int,
        retention_ms: int,
        timeout_seconds: float,
        round_trip: RoundTrip,
        check: Callable[[int], None],
        attached: Callable[[Attached], None],
        unreadable: Callable[[], None] = lambda: None,
    ) -> None:
        """Makes a connection that is not open yet.

        `round_trip` is that to the server, which all its connections measure. `check` is given the
        number of the server that was attached to, before it counts, and may raise `TierError`.
        `attached` is told of each attaching, in the step that ends it, and `unreadable` of each answer
        that is out of the protocol or of another shape.
        """
        self._connection = connection
        self._where = where
        self.placement = placement
        """The `Placement.id` and the version of the topology that the connection attaches with."""
        self._skew = b"%d" % skew_us
        self._retention = b"%d" % retention_ms
        self._timeout_seconds = timeout_seconds
        self._round_trip = round_trip
        self._check = check
        self._attached = attached
        self._unreadable = unreadable
        self._limit: FairTimeout | None = None
        """The time limit of the running exchange."""
        self._run_id = b""
        self._attached_at = float("-inf")
        """When the server last told its time, on the loop's clock."""
        self._ahead_us = 0
        """The server's time is at least the loop's time and this."""
        self._may_run_until = 0.0
        """When the running exchange can change nothing any more, on the loop's clock."""
        self.issuer = 0
        """The number of the server at the other end (`issuer_of`)."""
        self.is_demoted = False
        """True after a reply which says that the server is no master any more. Then the connection
        is closed, and others to the same address may lead to the same server."""
        self.opened_at = float("-inf")
        """When the server's name was looked up, on the loop's clock."""

    def __repr__(self) -> str:
        return f"<CellConnection {self._where} [{'open' if self.is_open else 'closed'}]>"

    @property
    def is_open(self) -> bool:
        """True until the connection is closed from this end."""
        return bool(self._connection.is_connected)

    @property
    def is_usable(self) -> bool:
        """True if the connection is open, in step, and not closed by the server meanwhile."""
        return not self._connection.has_unread()

    async def open(self, seconds: float) -> None:
        """Connects and attaches. Raises `TierError`; then this connection is closed."""
        self.opened_at = asyncio.get_running_loop().time()
        await self._guarded(self._connect(), seconds, "connect")

    async def run(
        self, script: Script, args: list[Any], taken: Callable[[Any], Any] = as_it_is, size: int = 0
    ) -> Any:
        """Returns `taken` of the answer to a script that begins with the prelude.

        It is `NEW_ISSUER_WAITS` if that is the answer. Raises `TierError`, also if `taken` raises: then the
        answer is unreadable. The time limit covers everything: also loading the script, and attaching
        again, for each of which it has one round trip more. `size`: the bytes of the values among `args`.
        """
        seconds = self._seconds + seconds_for(size)
        return await self._guarded(self._run(script, args, taken), seconds, script.name)

    async def run_in_time(
        self, script: Script, args: list[Any], taken: Callable[[Any], Any], size: int = 0
    ) -> Any:
        """As `run`, for a script that must not run any more once this call has failed.

        The script is given a time of the server as its last argument, and answers `TOO_LATE` from then
        on: that of the end of the time limit, and as much later as the limit of a near server is. Without
        that, a process or a server that is busy would often be too late. A failure is raised only then.
        """
        self._may_run_until = 0.0
        try:
            seconds = self._seconds + seconds_for(size)
            return await self._guarded(self._run_in_time(script, args, taken), seconds, script.name)
        except TierError:
            await asyncio.sleep(self._may_run_until - asyncio.get_running_loop().time())
            raise

    async def run_alone(self, script: Script, args: list[Any], taken: Callable[[Any], T]) -> T:
        """Returns `taken` of the answer to a script without the prelude. Raises `TierError`."""
        exchange = self._run_alone(script, args, taken)
        said: T = await self._guarded(exchange, self._seconds, script.name)
        return said

    async def run_untouched(self, script: Script, args: list[Any], taken: Callable[[Any], T]) -> T:
        """Returns `taken` of the answer to a script without the prelude. Raises `TierError`.

        The script makes no key look used, where the server can do that: Redis from 7.2 on, and Valkey.
        """
        said: T = await self._guarded(self._run_untouched(script, args, taken), self._seconds, script.name)
        return said

    async def attach_again(self) -> None:
        """Asks which server this is, and attaches to it. Raises `TierError`."""
        await self._guarded(self._attach(), self._seconds, "attach")

    async def report(self, now_us: Callable[[], int]) -> RedisReport:
        """Returns the server's report on itself; `now_us` is the own clock. Raises `TierError`."""
        said: RedisReport = await self._guarded(self._report(now_us), self._seconds, "report")
        return said

    @property
    def _seconds(self) -> float:
        """The time limit of an exchange of one round trip."""
        return self._timeout_seconds + self._round_trip.way_seconds

    def _bytes_come(self) -> int:
        return self._connection.taken_bytes

    def _allow(self, round_trips: int) -> None:
        """Gives the running exchange the time of further round trips."""
        if self._limit is not None:
            self._limit.extend(round_trips * self._round_trip.seconds)

    async def close(self) -> None:
        await self._connection.disconnect(nowait=True)

    async def _guarded(self, exchange: Any, seconds: float, what: str) -> Any:
        self._limit = FairTimeout(seconds, self._bytes_come)
        try:
            async with self._limit:
                return await exchange
        except TimeoutError as error:
            await self.close()
            raise TierTimeoutError(
                self._where, f"{what}: no answer within {seconds * 1000:.0f} ms"
            ) from error
        except UnreadableAnswerError:
            self._unreadable()
            await self.close()
            raise
        except TierError:
            await self.close()
            raise
        except (ResponseError, BusyLoadingError) as error:
            if is_demotion(error):
                self.is_demoted = True  # the next connection may find the promoted server
                await self.close()
                raise TierUnavailableError(self._where, f"{what}: {error}") from error
            raise TierError(self._where, f"{what}: {told(error)}") from error  # an answer: still in step
        except (RedisError, OSError, RuntimeError) as error:
            if isinstance(error, (InvalidResponse, RecursionError)):
                raise await self._not_read(error, what) from error
            # uvloop raises RuntimeError for a write to a connection that was reset since its last use,
            # and redis-py lets it through.
            await self.close()
            raise TierUnavailableError(self._where, f"{what}: {told(error)}") from error
        except Exception as error:  # a reply of another shape than the protocol has
            raise await self._not_read(error, what) from error
        except BaseException:
            await self.close()
            raise

    async def _not_read(self, error: Exception, what: str) -> UnreadableAnswerError:
        """Closes the connection, and returns the error of an answer that could not be read."""
        self._unreadable()
        await self.close()
        why = f"{what}: an answer of an unknown shape: {type(error).__name__}"
        return UnreadableAnswerError(self._where, why)

    async def _connect(self) -> None:
        connection = self._connection
        connection.first = self._words_to_attach
        await connection.connect()
        if isinstance(connection.first_reply, ResponseError):
            raise connection.first_reply
        self._take(connection.first_reply, connection.first_sent_at)
        if not self.is_usable:
            raise TierUnavailableError(self._where, "connect: more replies than commands")

    def _words_to_attach(self) -> tuple[Any, ...]:
        """Returns the command that attaches, with its source: a server may have lost the script."""
        return (b"EVAL", ATTACH.source, b"0", self._skew, *self.placement)

    async def _attach(self) -> None:
        sent = asyncio.get_running_loop().time()
        self._take(await self._call(*self._words_to_attach()), sent)

    def _take(self, answer: Any, sent: float) -> None:
        """Takes in the answer of the script that attaches. Raises `TierError` if it is refused."""
        now_us, why_new, said = attached_in(answer)
        if not said.get("run_id"):
            why = "its INFO has no run_id, so it is not known which server it is"
            raise TierUnavailableError(self._where, why)
        version = said.get("redis_version", "")
        if (version_of(version) or LEAST_REDIS) < LEAST_REDIS:  # an unknown version is no old one
            why = f"version {version} is too old: a cell needs Redis 7.0, or Valkey 7.2, or later"
            raise TierUnavailableError(self._where, why)
        if (role := said.get("role", "master")) != "master":  # an unknown role is no wrong one
            self.is_demoted = True
            raise TierUnavailableError(self._where, f"its role is {role}: a cell is a master")
        run_id, replication_id = said["run_id"], said.get("master_replid", "")
        issuer = issuer_of(run_id, replication_id, self._connection.db)
        self._check(issuer)
        self._run_id = f"{run_id} {replication_id}".encode()
        self._attached_at = asyncio.get_running_loop().time()
        self._ahead_us = now_us - int(self._attached_at * SECONDS)
        passed_us = int((self._attached_at - sent) * SECONDS)
        self.issuer = issuer
        self._attached(Attached(issuer, now_us + passed_us, why_new, sent))

    async def _report(self, now_us: Callable[[], int]) -> RedisReport:
        sent_us = now_us()
        packed = b"".join(hiredis.pack_command(command) for command in COMMANDS)
        await self._connection.send_packed_command(packed, check_health=False)
        time, info, settings = [await self._reply_or_refusal() for _ in COMMANDS]
        for refusal in (time, info):
            if isinstance(refusal, ResponseError):
                raise refusal
        return RedisReport.of(
            time,
            fields_of(info),
            None if isinstance(settings, ResponseError) else settings,
            sent_us=sent_us,
            received_us=now_us(),
        )

    async def _run_alone(self, script: Script, args: list[Any], taken: Callable[[Any], T]) -> T:
        return taken(await self._evaluate(script, args))

    async def _run(self, script: Script, args: list[Any], taken: Callable[[Any], Any]) -> Any:
        for _ in range(2):
            reply = await self._evaluate(script, [self._run_id, self._skew, self._retention, *args])
            if type(reply) is int and reply == NEW_ISSUER_WAITS:
                return NEW_ISSUER_WAITS
            if type(reply) is not int or reply != ATTACH_FIRST:
                return taken(reply)
            self._allow(2)  # the script that attaches, and this one again
            await self._attach()
        raise TierUnavailableError(self._where, "lost its meta record again and again")

    async def _run_in_time(self, script: Script, args: list[Any], taken: Callable[[Any], Any]) -> Any:
        loop, limit = asyncio.get_running_loop(), self._limit
        assert limit is not None  # noqa: S101  `_guarded` sets it
        if loop.time() - self._attached_at > TIME_HOLDS_SECONDS:
            self._allow(1)
            await self._attach()
        for _ in range(2):
            self._may_run_until = limit.due + self._timeout_seconds
            until = b"%d" % (int(self._may_run_until * SECONDS) + self._ahead_us)
            try:
                reply = await self._evaluate(
                    script, [self._run_id, self._skew, self._retention, *args, until]
                )
            except ResponseError:  # an answer
                self._may_run_until = 0.0
                raise
            self._may_run_until = 0.0
            if type(reply) is int and reply == NEW_ISSUER_WAITS:
                return NEW_ISSUER_WAITS
            if type(reply) is not int or reply not in (ATTACH_FIRST, TOO_LATE):
                return taken(reply)
            self._allow(2)
            if reply == TOO_LATE:
                limit.extend(self._timeout_seconds)
            await self._attach()
        raise TierUnavailableError(self._where, "lost its meta record, or its time, again and again")

    async def _run_untouched(self, script: Script, args: list[Any], taken: Callable[[Any], T]) -> T:
        try:
            return taken(await self._evaluate_untouched(script, args))
        except NoScriptError:
            self._allow(2)
            await self._call(b"SCRIPT", b"LOAD", script.source)
            return taken(await self._evaluate_untouched(script, args))

    async def _evaluate_untouched(self, script: Script, args: list[Any]) -> Any:
        """Runs the script in one round trip, after which the connection counts uses as before."""
        commands = (
            (b"CLIENT", b"NO-TOUCH", b"ON"),
            (b"EVALSHA", script.sha, b"0", *args),
            (b"CLIENT", b"NO-TOUCH", b"OFF"),
        )
        packed = b"".join(hiredis.pack_command(command) for command in commands)
        await self._connection.send_packed_command(packed, check_health=False)
        _, reply, _ = [await self._reply_or_refusal() for _ in commands]
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    async def _reply_or_refusal(self) -> Any:
        """Returns a reply; a refusal is returned too, as older servers do not know NO-TOUCH."""
        try:
            return await self._connection.read_response(disable_decoding=True)
        except ResponseError as refusal:
            return refusal

    async def _evaluate(self, script: Script, args: list[Any]) -> Any:
        try:
            return await self._call(b"EVALSHA", script.sha, b"0", *args)
        except NoScriptError:
            self._allow(2)
            await self._call(b"SCRIPT", b"LOAD", script.source)
            return await self._call(b"EVALSHA", script.sha, b"0", *args)

    async def _call(self, *command: Any) -> Any:
        packed = hiredis.pack_command(command)
        began = perf_counter()
        await self._connection.send_packed_command(packed, check_health=False)
        reply = await self._connection.read_response(disable_decoding=True)
        if len(packed) + self._connection.taken_bytes < SMALL_BYTES:
            self._round_trip.saw(perf_counter() - began)
        return reply
