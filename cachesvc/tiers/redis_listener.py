"""The receiving end of a connection to Redis on which only the server speaks.

redis-py reads through asyncio's streams: that is a buffer, a future, a time limit and several
coroutines for each reply. A subscriber has no question to which a reply could belong, so bytes go
to the parser in the call that brings them.
"""

import asyncio
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from cachesvc.tiers.redis_connections import CleanConnection

BUSY = 1.5
"""The paces between two looks, each with its pause, if two or more replies come per pace.

If fewer come, a pause costs more than it saves: its end wakes the loop, too."""


class Listener(asyncio.Protocol):
    """Takes an open connection over from redis-py, which may only close it from then on."""

    def __init__(self, connection: CleanConnection) -> None:
        """Takes over what redis-py has read and not used, too."""
        self._parser: Any = connection.bounded_parser
        self._transport, unread = connection.hand_over()
        self._former = self._transport.get_protocol()
        self._why: Exception | None = None
        """Why nothing more can come; None while the connection is whole."""
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waits_until = 0.0
        """When the running wait is over, on the loop's clock."""
        self._looked_at = float("-inf")
        self._is_busy = False
        self._transport.set_protocol(self)
        self._transport.resume_reading()
        if unread:
            self.data_received(unread)

    @property
    def is_open(self) -> bool:
        return self._why is None and not self._transport.is_closing()

    async def arrived(self, seconds: float, *, pace_seconds: float) -> list[Any]:
        """Returns what has come since the last call, or nothing if nothing does within `seconds`.

        `pace_seconds`: the least time from one look to the next while much comes, which is while looks are
        less than `BUSY` of it apart. What comes meanwhile does not wake the event loop. A cancelled call
        has taken nothing. Raises what has closed the connection.
        """
        loop = asyncio.get_running_loop()
        if self._is_busy and (early_seconds := self._looked_at + pace_seconds - loop.time()) > 0:
            await self._pause(early_seconds)
        found = self._taken()
        if not found:
            await self._wait(seconds)
            found = self._taken()
        now = loop.time()
        self._is_busy, self._looked_at = now - self._looked_at < BUSY * pace_seconds, now
        return found

    async def _pause(self, seconds: float) -> None:
        self._transport.pause_reading()
        try:
            await asyncio.sleep(seconds)
        finally:
            if self.is_open:
                self._transport.resume_reading()

    async def _wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        self._waits_until = loop.time() + seconds
        if self._timer is None or self._timer.when() > self._waits_until:
            self._set_timer(loop)
        try:
            await waiter
        finally:
            self._waiter = None

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._waits_until, self._time_out, loop)

    def _time_out(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends the wait if its time is over; a timer is made once per time-out, not once per wait."""
        self._timer = None
        if self._waiter is None:
            return
        if loop.time() >= self._waits_until:
            self._wake()
        else:
            self._set_timer(loop)

    def _taken(self) -> list[Any]:
        if found := self._parser.taken():
            return list(found)
        if self._why is not None:
            raise self._why
        return []

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
        except Exception as error:  # noqa: BLE001  the reader gets it, whatever it is
            self._why = error
            self._transport.abort()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._why = self._why or exc or RedisConnectionError("the server closed the connection")
        self._former.connection_lost(exc)
        self._wake()
