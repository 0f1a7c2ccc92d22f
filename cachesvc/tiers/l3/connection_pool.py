"""The connections to a cell's server: an exchange borrows one, then gives it back.

If none is idle, a new one is opened. A borrower waits `l3.connect_timeout` for that, and three
round trips on top once the way is known; then it fails. The opening goes on behind it (one at a
time), so that a cell at any distance is attached, and borrowers never wait for a hung one longer
than that.

Nothing bounds their number here: each batcher of a cell has a
fixed number of batches in flight, and each batch borrows one connection.
"""

import asyncio
from collections.abc import Callable

from cachesvc.config import service as config
from cachesvc.model.errors import TierError, TierTimeoutError
from cachesvc.tiers.fair_timeout import FairTimeout
from cachesvc.tiers.l3.connection import Attached, CellConnection
from cachesvc.tiers.l3.issuer import Issuer
from cachesvc.tiers.redis_connections import (
    DEFAULT_ACCESS,
    LEAVE_SECONDS,
    OPEN_ROUND_TRIPS,
    OPEN_SECONDS,
    Access,
    RedisConnections,
)
from cachesvc.tiers.round_trip import RoundTrip


class CellConnectionPool:
    """Lends connections to one cell's server."""

    def __init__(
        self,
        url: str,
        where: str,
        settings: config.L3,
        access: Access = DEFAULT_ACCESS,
        *,
        placement: tuple[int, int],
        skew_us: int,
        issuer: Issuer,
        check: Callable[[int], None],
        attached: Callable[[Attached], None],
    ) -> None:
        """Makes a pool without connections.

        `issuer`: the server that the instance has met last; connections to others are closed. `check`
        and `attached` are those of each `CellConnection`.
        """
        self._where = where
        self._issuer = issuer
        self._check = check
        self._attached = attached
        self._settings = settings
        self._placement = placement
        self._skew_us = skew_us
        # `CellConnection` limits the time of an exchange as a whole.
        self._maker = RedisConnections.at(url, access, moved=self.look_again)
        self.round_trip = self._maker.round_trip = RoundTrip(settings.round_trip_at_most.seconds)
        """That to the server, as greetings and exchanges on all connections measured it."""
        self._idle: list[CellConnection] = []
        self._left_at = float("-inf")
        """When a demotion, or another server of this name, was last heard of, on the loop's clock.

        A connection that was opened before may lead to the wrong server, and is not used again."""
        self._late: asyncio.Task[None] | None = None
        """The opening that goes on although its borrower has failed."""
        self._closed = False
        self._may_be_far = True
        """True until an opening has shown how far the server is, or has not ended in time."""
        self.connects = 0
        """Connections that were opened since the start."""
        self.unreadable = 0
        """Answers that were out of the protocol, or of another shape than their script's."""

    def __repr__(self) -> str:
        return f"<CellConnectionPool {self._where} [{self.idle} idle]>"

    def place(self, placement: tuple[int, int]) -> None:
        """Attaches with this placement and version from now on.

        Connections that have attached with others are not lent again, not even if the placement is the
        same: with a version in between, which the cell has not seen, it may be given partitions back.
        """
        self._placement = placement

    @property
    def idle(self) -> int:
        """The number of connections that are open and not lent."""
        return len(self._idle)

    @property
    def master(self) -> str:
        """`host:port` of the master that sentinels named last; empty if none did."""
        return self._maker.master

    async def borrow(self) -> CellConnection:
        """Returns an open connection. Raises `TierError`.

        The borrower gives the connection back, also after a failure or a cancellation. An idle connection
        on which anything arrived is closed and not lent.
        """
        self._maker.follow()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable and self._is_current(connection):
                return connection
            await connection.close()
        return await self._opened(self._new_connection())

    async def _opened(self, connection: CellConnection) -> CellConnection:
        """Returns the connection when it is open. Raises `TierError`."""
        seconds = self._settings.connect_timeout.seconds + self._way_seconds
        opening = asyncio.get_running_loop().create_task(
            self._open(connection), name=f"opening to {self._where}"
        )
        try:
            async with FairTimeout(seconds):
                await asyncio.shield(opening)
        except TimeoutError as error:
            self._may_be_far = False
            if self._late is None and not self._closed:
                self._late = asyncio.get_running_loop().create_task(
                    self._keep_when_open(connection, opening), name=f"late connection to {self._where}"
                )
            else:
                opening.cancel()
            why = f"connect: no answer within {seconds * 1000:.0f} ms"
            raise TierTimeoutError(self._where, why) from error
        except asyncio.CancelledError:
            opening.cancel()
            raise
        return connection

    @property
    def _way_seconds(self) -> float:
        """The time for the way in the time limit of an opening.

        Before the first sample it is the most that a way may add: the server may be far. That holds for
        the first openings only, so a server that hangs costs no more than one such wait.
        """
        if not self.round_trip.samples and self._may_be_far:
            return self.round_trip.at_most
        return OPEN_ROUND_TRIPS * self.round_trip.seconds

    async def _open(self, connection: CellConnection) -> None:
        try:
            await connection.open(OPEN_SECONDS)
        except TierError:
            await connection.close()
            await self._leave_if_demoted(connection)
            raise
        self.connects += 1

    async def _keep_when_open(self, connection: CellConnection, opening: "asyncio.Task[None]") -> None:
        try:
            await opening
        except TierError:
            pass  # the next borrower tries again
        else:
            await self.give_back(connection)
        finally:
            self._late = None

    def _new_connection(self) -> CellConnection:
        settings = self._settings
        return CellConnection(
            self._maker.make_connection(),
            self._where,
            placement=self._placement,
            skew_us=self._skew_us,
            retention_ms=settings.retention // 1000,
            timeout_seconds=settings.timeout.seconds,
            round_trip=self.round_trip,
            check=self._check,
            attached=self._attached,
            unreadable=self._note_unreadable,
        )

    def _note_unreadable(self) -> None:
        self.unreadable += 1

    def _is_current(self, connection: CellConnection) -> bool:
        return (
            connection.opened_at > self._left_at
            and connection.issuer == self._issuer.id
            and connection.placement == self._placement
        )

    def look_again(self) -> None:
        """Lends no connection again that is open now, so that the next borrower looks the name up.

        At most once per `LEAVE_SECONDS`.
        """
        now = asyncio.get_running_loop().time()
        if now - self._left_at >= LEAVE_SECONDS:
            self._left_at = now

    async def give_back(self, connection: CellConnection) -> None:
        """Keeps the connection for the next borrower if it is still open.

        After `close` the connection is closed instead, and so is one to another server than the one that
        was met last. A connection whose server was demoted closes the
        others, too, those that are lent now when they are given back: the next borrower connects, and so
        looks the name of the server up anew.
        """
        await self._leave_if_demoted(connection)
        if self._closed or not self._is_current(connection):
            await connection.close()
        elif connection.is_open:
            self._idle.append(connection)

    async def _leave_if_demoted(self, connection: CellConnection) -> None:
        if connection.is_demoted:
            self._left_at = asyncio.get_running_loop().time()
            await self._close_idle()

    async def close(self) -> None:
        """Closes the idle connections; a lent one is closed when it is given back."""
        self._closed = True
        if self._late is not None:
            self._late.cancel()
            await asyncio.wait([self._late])
        await self._close_idle()
        await self._maker.aclose()

    async def _close_idle(self) -> None:
        while self._idle:
            await self._idle.pop().close()
