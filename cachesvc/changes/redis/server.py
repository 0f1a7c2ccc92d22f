"""A region's queue server as its two streams use it: every exchange with a time limit, every failure a `TierError`.

redis-py's own `socket_timeout` stays off: a wait may last longer than a call, and its `asyncio.wait_for` around each write can
swallow a cancellation on Python 3.11 (the write ends in the same turn), which would keep a stopped reader running for ever.
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
"""Names on the server, as the scripts have them."""
TIMEOUT = Duration.parse("1s")
"""Of one call. Not the data path: a second of patience costs an invalidation less than redoing it."""


def _lua(name: str) -> bytes:
    return resources.files("cachesvc.changes.redis.lua").joinpath(f"{name}.lua").read_bytes()


_PRELUDE = _lua("prelude")
_SCRIPTS = (
    *("append", "make_group", "acknowledge", "bury", "parked", "completion", "announced"),
    *("publish", "open", "read", "followers", "receipt"),
)
_LUA = {name: _PRELUDE + _lua(name) for name in _SCRIPTS}
"""Read when the module is: no event loop waits for a file."""


class RedisServer:
    """Connects when first used and again after a failure. Every failure is a `TierError`."""

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
        """A call that runs `<name>.lua` with these arguments; a span of the trace it is called in."""
        script: AsyncScript = self.redis.register_script(_LUA[name])
        exchange_span = ExchangeSpan(self._place, name)

        async def run(args: list[Any]) -> Any:
            if (caller := current()) is None:
                return await self.guarded(script(args=args))
            with exchange_span.around((caller,), 1):
                return await self.guarded(script(args=args))

        return run

    async def guarded(self, exchange: Awaitable[T], *, wait_seconds: float = 0) -> T:
        """Within the time limit, beyond what the call may wait by itself. A connection that is given up is closed by redis-py."""
        try:
            async with asyncio.timeout(wait_seconds + self._timeout):
                return await exchange
        except (TimeoutError, RedisTimeoutError) as error:
            raise TierTimeoutError(self.where, f"no answer within {self._timeout:.1f} s") from error
        except ResponseError as error:
            raise RefusedError(self.where, str(error)) from error
        except (RedisError, OSError, RuntimeError) as error:
            # RuntimeError is uvloop's for a write to a connection that was reset since its last use; redis-py lets it through.
            raise TierUnavailableError(self.where, str(error)) from error


class RefusedError(TierError):
    """The server answered with an error."""


def candidate() -> str:
    """For the random part of a stream's epoch, should the script that gets it make the stream."""
    return secrets.token_hex(8)


def mapping(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Fields and values of an item as a script answers them."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
