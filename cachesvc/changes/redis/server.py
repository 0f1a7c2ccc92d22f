"""A region's queue server, as its two streams use it.

Every exchange has a time limit, and every failure is a `TierError`. redis-py's own `socket_timeout`
stays off: a wait may last longer than a call, and the `asyncio.wait_for` that redis-py puts around
each write can swallow a cancellation on Python 3.11 (if the write ends in the same turn of the
loop), so that a stopped follower would run for ever.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

from cachesvc.model.errors import TierError, TierTimeoutError, TierUnavailableError
from cachesvc.model.units import Duration
from cachesvc.telemetry.traces.exchange_span import ExchangeSpan, Server
from cachesvc.telemetry.traces.trace import current

T = TypeVar("T")

CHANGES, GROUP, FENCES = "changes", "cachesvc", "fences"
"""Names on the server; the scripts have the same."""
TIMEOUT = Duration.parse("1s")
"""Time limit of one call. This is not the data path: waiting for a second costs an
invalidation less than starting it anew."""


def _lua(name: str) -> bytes:
    return resources.files("cachesvc.changes.redis.lua").joinpath(f"{name}.lua").read_bytes()


_PRELUDE = _lua("prelude")
_SCRIPTS = (
    *("append", "make_group", "acknowledge", "bury", "parked", "completion", "announced"),
    *("publish", "open", "read", "followers", "receipt"),
)
_LUA = {name: _PRELUDE + _lua(name) for name in _SCRIPTS}
"""Sources by name, read when this module is loaded: no event loop waits for a file."""


class RedisServer:
    """A Redis server that is connected when first used, and again after a failure.

    Every failure is a `TierError`.
    """

    def __init__(self, url: str, where: str, timeout: Duration) -> None:
        self.where = where
        self._place = Server.redis(where, url)
        self._timeout = timeout.seconds
        self.redis: Redis = Redis.from_url(
            url,
            protocol=3,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=timeout.seconds,
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )

    def __repr__(self) -> str:
        return f"<RedisServer {self.where}>"

    async def stop(self) -> None:
        await self.redis.aclose()

    def script(self, name: str) -> Callable[[list[Any]], Awaitable[Any]]:
        """Returns a call that runs `<name>.lua` with the given arguments.

        The call is a span of the trace that it is made in.
        """
        script: AsyncScript = self.redis.register_script(_LUA[name])
        exchange_span = ExchangeSpan(self._place, name)

        async def run(args: list[Any]) -> Any:
            if (caller := current()) is None:
                return await self.guarded(script(args=args))
            with exchange_span.around((caller,), 1):
                return await self.guarded(script(args=args))

        return run

    async def guarded(self, exchange: Awaitable[T], *, wait_seconds: float = 0) -> T:
        """Returns the result of an exchange, or raises a `TierError`.

        `wait_seconds` is the time that the call may wait on the server by itself; the time limit comes on
        top. redis-py closes a connection whose exchange is given up.
        """
        try:
            async with asyncio.timeout(wait_seconds + self._timeout):
                return await exchange
        except (TimeoutError, RedisTimeoutError) as error:
            raise TierTimeoutError(self.where, f"no answer within {self._timeout:.1f} s") from error
        except ResponseError as error:
            raise RefusedError(self.where, str(error)) from error
        except (RedisError, OSError, RuntimeError) as error:
            # uvloop raises RuntimeError for a write to a connection that was reset since its last use,
            # and redis-py lets it through.
            raise TierUnavailableError(self.where, str(error)) from error
        except Exception as error:
            # redis-py's parsers raise anything for a reply of another shape than they know.
            raise TierUnavailableError(
                self.where, f"an answer of an unknown shape: {type(error).__name__}"
            ) from error


class RefusedError(TierError):
    """The server answered with an error."""


def candidate() -> str:
    """Returns the random part of an epoch, for the case that the script creates the stream."""
    return secrets.token_hex(8)


def mapping(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Returns fields and values of an item, from the flat list of a script's answer."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
