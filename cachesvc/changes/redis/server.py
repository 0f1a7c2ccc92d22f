"""A region's queue server, as its two streams use it.

Calls of many callers share exchanges (`RedisServer.batcher`), with one exchange of a kind in
flight: so the connections to the server are a fixed few, however many callers there are, and a
caller waits for its turn instead of failing. (redis-py's pool refuses the call that would need its
101st connection: of 150 puts at once 50 failed.)

Every exchange has a time limit, and every failure is a `TierError`. redis-py's own `socket_timeout`
stays off: a wait may last longer than a call, and the `asyncio.wait_for` that redis-py puts around
each write can swallow a cancellation on Python 3.11 (if the write ends in the same turn of the
loop), so that a stopped follower would run for ever.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import resources
from time import perf_counter
from typing import Any, Protocol, TypeVar

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import BusyLoadingError, InvalidResponse, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cachesvc.model.errors import (
    TierError,
    TierTimeoutError,
    TierUnavailableError,
    UnreadableAnswerError,
)
from cachesvc.model.units import Duration
from cachesvc.telemetry.link_faults import told
from cachesvc.telemetry.traces.exchange_span import ExchangeSpan, Server
from cachesvc.telemetry.traces.trace import current
from cachesvc.tiers.answer_shapes import ShapeError, as_it_is, data, parts
from cachesvc.tiers.batching import Batcher, Run
from cachesvc.tiers.breaker import Breaker, not_tried
from cachesvc.tiers.redis_connections import (
    DEFAULT_ACCESS,
    OPEN_ROUND_TRIPS,
    Access,
    CleanConnection,
    RedisConnections,
    is_demotion,
)
from cachesvc.tiers.redis_report import COMMANDS, RedisReport

T = TypeVar("T")
R = TypeVar("R")

CHANGES, GROUP, FENCES, DEAD = "changes", "cachesvc", "fences", "changes:dead"
"""Names on the server; the scripts have the same."""
TIMEOUT = Duration.parse("1s")
"""Time limit of one call. This is not the data path: waiting for a second costs an
invalidation less than starting it anew."""
ROUND_TRIPS = OPEN_ROUND_TRIPS + 1
"""Round trips of a call, whose time it has on top of its limit: connecting, and its own.

A script that has to be loaded takes two more, and the limit is long enough for them. Connecting
goes on behind a call that failed.
"""
MOST_AT_ONCE = 256
"""Calls of one exchange at most. The rest waits for the next one."""
MOST_BYTES = 1 << 20
"""Bytes of one exchange at most, unless a single call has more.

The server does nothing else while it reads them."""


def _lua(name: str) -> bytes:
    return resources.files("cachesvc.changes.redis.lua").joinpath(f"{name}.lua").read_bytes()


_PRELUDE = _lua("prelude")
_SCRIPTS = (
    *("append", "make_group", "acknowledge", "bury", "parked", "completion", "adopt", "forget"),
    *("publish", "vouch", "settle", "open", "read", "followers", "receipt", "shares"),
)
_LUA = {name: _PRELUDE + _lua(name) for name in _SCRIPTS}
"""Sources by name, read when this module is loaded: no event loop waits for a file."""


class RunScript(Protocol):
    """A call that runs one script."""

    async def __call__(self, args: list[Any], taken: Callable[[Any], Any] = as_it_is) -> Any:
        """Returns `taken` of the script's answer. Raises `TierError`, also if `taken` raises."""
        ...


class RedisServer:
    """A Redis server that is connected when first used, and again after a failure.

    Every failure is a `TierError`.
    """

    def __init__(
        self,
        url: str,
        where: str,
        timeout: Duration,
        access: Access = DEFAULT_ACCESS,
        breaker: Breaker | None = None,
    ) -> None:
        """While `breaker` is open, calls of batchers fail at once; other calls are made."""
        self.where = where
        self._breaker = breaker or Breaker()
        self._place = Server.redis(where, url)
        self._timeout = timeout.seconds
        self._batchers: list[Batcher[Any, Any]] = []
        self._connections = RedisConnections.at(url, access)
        self.redis: Redis = Redis.from_pool(self._connections)

    def __repr__(self) -> str:
        return f"<RedisServer {self.where}>"

    @property
    def master(self) -> str:
        """`host:port` of the master that sentinels named last; empty if none did."""
        return self._connections.master

    async def stop(self) -> None:
        """Ends the exchanges in flight, refuses the calls that wait, and disconnects."""
        for batcher in self._batchers:
            await batcher.close()
        await self.redis.aclose()

    async def connection(self) -> CleanConnection:
        """Returns a connection for one user; `give_back` ends its use. Raises redis-py's errors."""
        connections: Any = self._connections  # redis-py has no types here
        made: CleanConnection = await connections.get_connection()
        return made

    async def give_back(self, connection: CleanConnection) -> None:
        """Closes a connection, and gives it back to the pool."""
        await connection.disconnect(nowait=True)
        await self._connections.release(connection)

    async def reconnect(self) -> None:
        """Closes the connections, so that the next call looks the server's name up anew."""
        await self._connections.leave()

    def batcher(
        self,
        run: "Run[T, R]",
        name: str,
        *,
        weigh: Callable[[Sequence[T]], int] | None = None,
        most_weight: int = MOST_BYTES,
    ) -> "Batcher[T, R]":
        """Returns a batcher of calls of the kind `name`; it is closed with this server.

        `run` must call an `unspanned` script: the exchange is one span for all its callers.
        """

        async def run_if_let(calls: list[T]) -> Sequence[R | TierError]:
            if not self._breaker.admits():
                raise not_tried(self.where)
            try:
                answers = await run(calls)
            except TierError as error:
                self._breaker.ended(error)
                raise
            self._breaker.ended()
            return answers

        made: Batcher[T, R] = Batcher(
            run_if_let,
            MOST_AT_ONCE,
            name=f"{self.where}: {name}",
            exchange_span=ExchangeSpan(self._place, name),
            weigh=weigh,
            most_weight=most_weight,
        )
        self._batchers.append(made)
        return made

    def unspanned(self, name: str) -> "RunScript":
        """Returns a call that runs `<name>.lua` with the given arguments; no span is made for it."""
        script: AsyncScript = self.redis.register_script(_LUA[name])
        digest = script.sha

        async def run(args: list[Any], taken: Callable[[Any], Any] = as_it_is) -> Any:
            script.sha = digest  # redis-py keeps whatever a server answers to SCRIPT LOAD
            return await self.guarded(script(args=args), taken=taken)

        return run

    def script(self, name: str) -> "RunScript":
        """Returns a call that runs `<name>.lua` with the given arguments.

        The call is a span of the trace that it is made in.
        """
        script = self.unspanned(name)
        exchange_span = ExchangeSpan(self._place, name)

        async def run(args: list[Any], taken: Callable[[Any], Any] = as_it_is) -> Any:
            if (caller := current()) is None:
                return await script(args, taken)
            with exchange_span.around((caller,), 1):
                return await script(args, taken)

        return run

    async def report(self, now_us: Callable[[], int]) -> RedisReport:
        """Returns the server's report on itself; `now_us` is the own clock. Raises `TierError`."""
        # No transaction: a server without memory left refuses one, whatever its commands are.
        pipe = self.redis.pipeline(transaction=False)
        for command in COMMANDS:
            pipe.execute_command(*command)
        pipe.xlen(DEAD)
        sent_us = now_us()
        time, info, settings, dead = await self.guarded(pipe.execute(raise_on_error=False))
        self._breaker.seen()
        for refusal in (time, info):
            if isinstance(refusal, Exception):
                raise RefusedError(self.where, told(refusal)) from refusal
        return RedisReport.of(
            time,
            {str(name): _plain(value) for name, value in info.items()},
            settings if isinstance(settings, Mapping) else None,
            sent_us=sent_us,
            received_us=now_us(),
            dead_letters=dead if isinstance(dead, int) else None,
        )

    def follow_name(self) -> None:
        """Looks now and then whether sentinels name another master, as each exchange does."""
        self._connections.follow()

    async def failure_of(self, error: Exception) -> TierError:
        """Returns the `TierError` of what was raised on a connection without an exchange."""

        async def fail() -> None:
            raise error

        try:
            await self.guarded(fail())
        except TierError as failure:
            return failure
        raise error

    async def guarded(
        self, exchange: Awaitable[T], *, wait_seconds: float = 0, taken: Callable[[T], Any] = as_it_is
    ) -> Any:
        """Returns `taken` of the result of an exchange, or raises a `TierError`.

        A result that `taken` raises for is unreadable. `wait_seconds` is the time that the call may wait
        on the server by itself; the time limit comes on top. redis-py closes a connection whose exchange
        is given up. A reply that says that the server is no master any more closes all connections, so
        that the next call looks the server's name up anew.
        """
        self._connections.follow()
        round_trip = self._connections.round_trip
        seconds = self._timeout + round_trip.way_of(ROUND_TRIPS)
        samples, began = round_trip.samples, perf_counter()
        try:
            async with asyncio.timeout(wait_seconds + seconds):
                answer = await exchange
            if not wait_seconds and samples == round_trip.samples:  # no connection was opened for it
                round_trip.saw(perf_counter() - began)
            return taken(answer)
        except (TimeoutError, RedisTimeoutError) as error:
            raise TierTimeoutError(self.where, f"no answer within {seconds:.1f} s") from error
        except (ResponseError, BusyLoadingError) as error:
            if is_demotion(error):
                await self._connections.leave()
                raise TierUnavailableError(self.where, str(error)) from error
            raise RefusedError(self.where, told(error)) from error
        except (RedisError, OSError, RuntimeError) as error:
            if isinstance(error, (InvalidResponse, RecursionError)):
                raise await self._not_read(error) from error
            # uvloop raises RuntimeError for a write to a connection that was reset since its last use,
            # and redis-py lets it through.
            raise TierUnavailableError(self.where, told(error)) from error
        except Exception as error:
            # redis-py's parsers raise anything for a reply of another shape than they know.
            raise await self._not_read(error) from error

    async def _not_read(self, error: Exception) -> UnreadableAnswerError:
        """Closes the connections, and returns the error of an answer that could not be read.

        The answer may have been that to another command: then its connection is out of step, and would
        give every later caller the answer to the one before.
        """
        await self._connections.leave()
        return UnreadableAnswerError(self.where, f"an answer of an unknown shape: {type(error).__name__}")


class RefusedError(TierError):
    """The server answered with an error."""


def answered(answer: R | TierError) -> R:
    """Returns the answer of a batch to one of its callers; raises if it is a `TierError`.

    Each caller gets an error of its own: one object that is raised by a thousand callers would
    collect the traceback of all of them.
    """
    if isinstance(answer, TierError):
        raise type(answer)(answer.where, answer.why) from answer
    return answer


def candidate() -> str:
    """Returns the random part of an epoch, for the case that the script creates the stream."""
    return secrets.token_hex(8)


def mapping(flat: Any) -> dict[bytes, bytes]:
    """Returns fields and values of an item, from the flat list of a script's answer.

    Raises `ShapeError`.
    """
    if len(parts(flat)) % 2:
        raise ShapeError("a field without a value")
    return {data(name): data(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _plain(value: Any) -> str:
    """A field of INFO as the server wrote it. redis-py makes a mapping of `keys=1,expires=0`."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={part}" for name, part in value.items())
    return str(value)
