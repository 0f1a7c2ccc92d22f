"""A region's `fences`, read through a relay while one is there, else from the queue.

    read:  no relay, or none that may be tried ───────────────► the queue
           a frame that follows the own position ─────────────► its items
           one that does not, or the connection has ended ────► leave the relay; the queue
           no news for one and a half heartbeats ─────────────► look at the queue; with news there:
                                                                leave the relay
           left: left alone by its breaker, whose pauses grow while the relay does not last

The position is the queue stream's own. So every move between relay and queue is an ordinary read at
that position, and the queue proves that nothing was lost (docs/coherence.md, "Relays").
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from msgspec import Struct

from cachesvc.changes.contract import FenceBatch, FenceStart, FenceStream, position_of
from cachesvc.changes.relay.frames import Frame, FrameError, FrameReader
from cachesvc.changes.relay.relay import Relay
from cachesvc.config.service import Breakers
from cachesvc.model.clock import MILLISECONDS, SECONDS, Clock
from cachesvc.model.errors import TierError
from cachesvc.model.units import Duration
from cachesvc.telemetry.link_faults import told
from cachesvc.tiers.breaker import JITTER, Breaker

log = logging.getLogger(__name__)

SILENT_BEATS = 1.5
"""A relay without news for so many heartbeats is doubted, and the queue is looked at."""
TIMELY_BEATS = 3.0
"""Changes are applied in time while the bound is below so many heartbeats."""
BREAKERS = Breakers(failures=1, first_probe=Duration.parse("1s"), longest_probe=Duration.parse("30s"))
"""When a relay that was left is tried again.

The pauses are longer than those of servers: nothing is read while a relay is tried, and nothing is
missed without it.
"""
STEADY_SECONDS = 10.0
"""After so long a relay is well: if it is left then, its pauses begin anew."""
CONNECT_SECONDS = 0.25
"""How long a connection to a relay may take. Meanwhile nothing is read."""


class Wire(Protocol):
    """A connection to a relay."""

    async def read(self) -> bytes:
        """Returns the bytes that come next; empty at the end. A cancelled call has taken none.

        Raises `OSError`.
        """
        ...

    def close(self) -> None: ...


Dial = Callable[[str], Awaitable[Wire]]
"""Connects to a relay, for what follows a position. Raises `OSError` or `TierError`."""


def relay_breaker(jitter: float = JITTER) -> Breaker:
    """Returns a breaker of one relay, on the running loop's clock."""
    return Breaker(BREAKERS, jitter=jitter, now=lambda: asyncio.get_running_loop().time())


class RelayWay(Struct):
    """A relay that may be followed, and the breaker that says when."""

    name: str
    dial: Dial
    breaker: Breaker


class _Link:
    """A relay that is followed."""

    def __init__(self, way: RelayWay, wire: Wire, region: str) -> None:
        self.way = way
        self.since = asyncio.get_running_loop().time()
        self._wire = wire
        self._where = f"relay {way.name} of {region}"
        self._reader = FrameReader(self._where)
        self._frames: list[Frame] = []

    async def next(self) -> Frame:
        """Returns the next frame. Raises `TierError`. A cancelled call has taken nothing."""
        while not self._frames:
            try:
                data = await self._wire.read()
            except OSError as error:
                raise FrameError(self._where, str(error)) from error
            if not data:
                raise FrameError(self._where, "the connection was closed")
            self._frames = self._reader.feed(data)
        return self._frames.pop(0)

    def close(self) -> None:
        self._wire.close()


class RelayedFollower:
    """Reads one region's `fences` for a feed, and hands on what it has read."""

    def __init__(
        self,
        stream: FenceStream,
        ways: Sequence[RelayWay],
        relay: Relay | None,
        clock: Clock,
        *,
        skew_us: int,
        heartbeat_seconds: float,
    ) -> None:
        """`ways`: the relays to follow, the first one first. `relay`: takes what is read here."""
        self.region = stream.region
        self._stream = stream
        self._ways = ways
        self._relay = relay
        self._clock = clock
        self._skew_us = skew_us
        self._silent_seconds = SILENT_BEATS * heartbeat_seconds
        self._timely_us = round(TIMELY_BEATS * heartbeat_seconds * SECONDS)
        self._position = ""
        self._link: _Link | None = None
        self._look_at = 0.0
        """When the queue is looked at if there is no news before, on the loop's clock."""
        self.left = 0
        """Times that a relay was left, or could not be connected to."""

    def __repr__(self) -> str:
        return f"<RelayedFollower of {self.region} [reads {self.source or 'the queue'}]>"

    @property
    def position(self) -> str:
        """The position up to which everything was read; empty before `open`."""
        return self._position

    @property
    def source(self) -> str:
        """The name of the relay that is followed; empty if none is."""
        return self._link.way.name if self._link is not None else ""

    @property
    def is_relayed(self) -> bool:
        """True while a relay is followed."""
        return self._link is not None

    def is_served_by(self, name: str, bound_us: int | None) -> bool:
        """Returns whether this relay is followed, and changes are applied in time, by the bound.

        Then a consumer here may leave the changes to the relay's process.
        """
        return self.source == name and bound_us is not None and bound_us < self._timely_us

    async def open(self) -> FenceStart:
        start = await self._stream.open()
        self._position = start.position
        if self._relay is not None:
            self._relay.begin(start.position)
        return start

    async def report(self, position: str) -> None:
        await self._stream.report(position)

    async def reconnect(self) -> None:
        await self._stream.reconnect()

    def close(self) -> None:
        """Leaves the relay that is followed."""
        if self._link is not None:
            self._link.close()
            self._link = None

    async def read(self, *, wait_seconds: float) -> FenceBatch:
        after = self._position
        batch = await self._read(wait_seconds)
        self._position = batch.position
        if self._relay is not None:
            self._relay.take(after, batch)
        return batch

    async def _read(self, wait_seconds: float) -> FenceBatch:
        link = self._link or await self._connect()
        if link is None:
            return await self._stream.read(wait_seconds=wait_seconds)
        try:
            frame = await self._next(link, wait_seconds)
            if frame is not None:
                return await self._deliver(frame)
        except TierError as error:
            self._leave(link, error.why)
            return await self._stream.read(wait_seconds=0)
        now = asyncio.get_running_loop().time()
        if now < self._look_at:
            return FenceBatch((), None, position=self._position)
        self._look_at = now + self._silent_seconds
        batch = await self._stream.read(wait_seconds=0)
        if batch.items or batch.gap:
            self._leave(link, "the queue has news that did not come from it")
        return batch

    async def _next(self, link: _Link, wait_seconds: float) -> Frame | None:
        """Returns the next frame; None if there is none in time."""
        until = min(self._look_at, asyncio.get_running_loop().time() + wait_seconds)
        try:
            async with asyncio.timeout_at(until):
                return await link.next()
        except TimeoutError:
            return None

    async def _deliver(self, frame: Frame) -> FenceBatch:
        if frame.after != self._position:
            raise FrameError(f"fences of {self.region}", f"it tells what follows {frame.after}")
        batch = await self._stream.deliver(frame.items)
        newest_ms, _ = position_of(batch.position)
        oldest_us = self._clock.now_us() - self._skew_us - round(self._silent_seconds * SECONDS)
        if newest_ms * MILLISECONDS >= oldest_us:
            self._look_at = asyncio.get_running_loop().time() + self._silent_seconds
        return batch

    async def _connect(self) -> _Link | None:
        """Follows the first relay that may be tried; returns None if there is none."""
        loop = asyncio.get_running_loop()
        for way in self._ways:
            if not way.breaker.admits():
                continue
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    wire = await way.dial(self._position)
            except (TimeoutError, OSError, TierError) as error:
                self._shun(way, told(error))
                continue
            way.breaker.seen()
            await self._stream.rest()
            self._link = _Link(way, wire, self.region)
            self._look_at = loop.time() + self._silent_seconds
            return self._link
        return None

    def _leave(self, link: _Link, why: str) -> None:
        self.close()
        breaker = link.way.breaker
        if asyncio.get_running_loop().time() - link.since >= STEADY_SECONDS and not breaker.is_open:
            breaker.succeeded()
        self._shun(link.way, why)

    def _shun(self, way: RelayWay, why: str) -> None:
        """Leaves a relay alone until its breaker lets it be tried."""
        self.left += 1
        way.breaker.failed(at_once=True)
        log.info("relay %s for fences of %s is left alone: %s", way.name, self.region, why)
