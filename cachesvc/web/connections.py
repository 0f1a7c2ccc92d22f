"""The callers' connections: how many, from whom, and what their peers have not taken.

    up to `server.max_connections`       are served
    one more, or one more of its peer    the connections of that peer (or of the peer that has most)
                                         which were idle longest are closed
    if none of them is idle              the new one is answered `overloaded` and closed; only
                                         probes and metrics are answered on it
    `PROBE_RESERVE` more of those        the next one is closed at once

So a probe is answered however many connections others hold, and one peer's connections make room
for its own. A descriptor is kept for all of them: the limit is lowered at the start if the process
may not open as many files.

An answer that its peer does not take stays in the buffer of its connection. From the moment at
which the transport pauses writing (64 KiB are waiting) its bytes are counted, and it has
`server.request_timeout`, and a second more for every `least_read_rate` bytes, to be taken; then the
connection is aborted. If all such bytes together are too many, connections of the namespace that
has most of them are aborted, those first that have waited longest. They are counted for their
namespace, whose other bodies then have less room (`bytes_in_flight.py`).

A head that has not ended is parsed already, and so are requests that wait behind a slow one of
their connection. Their bytes are counted, too; if they find no room, their own connection is
aborted. From its first byte a head has `server.head_timeout` to end, unless a request is running
before it: then it has that time anew. A connection without a request is closed after
`server.idle_timeout`.
"""

import asyncio
import heapq
import logging
import resource
from collections import Counter
from typing import Protocol

from cachesvc.config.service import Server
from cachesvc.telemetry.loops import Loop
from cachesvc.telemetry.outage import Outage
from cachesvc.web.bytes_in_flight import BytesInFlight

log = logging.getLogger(__name__)

PROBE_RESERVE = 32
"""The connections above the limit that get a single answer, so that probes are answered."""
DESCRIPTOR_RESERVE = 256
"""The descriptors that are kept for the rest: backends, listening sockets, peers, files."""
IDLE_PART = 16
"""One in so many of a peer's idle connections is closed at once to make room.

One at a time would cost a walk over all of them for every new connection."""
HEAD_COST = 2
"""Bytes that a byte of a head takes: the parser keeps every header as bytes and as text."""
SWEEP_SECONDS = 0.5
"""The pause between two looks at the connections whose answers wait."""


class Connection(Protocol):
    """A connection: since when it is idle, what is in its buffer, and its two ends."""

    @property
    def idle_since(self) -> float | None:
        """The moment, on the loop's clock, of its last answer; None while it has a request."""
        ...

    def close_idle(self) -> None:
        """Closes it; it is idle."""
        ...

    def abort(self) -> None:
        """Closes it at once; what is in its buffer is dropped."""
        ...

    def end_head(self) -> None:
        """Answers its head, which has not ended in time, and closes it."""
        ...

    def unsent(self) -> int:
        """Returns the bytes in its buffers."""
        ...

    @property
    def namespace(self) -> str:
        """The namespace of the request that began last; empty if it names none."""
        ...


class Connections:
    """The open connections. `start` and `stop` are called once each, on the loop that serves."""

    def __init__(self, limits: Server, in_flight: BytesInFlight, settings: str = "server") -> None:
        """`settings` is the section of the document that has `max_connections`, for messages."""
        self._settings = settings
        port = "" if settings == "server" else f" ({settings})"
        self.most = limits.max_connections
        self._most_of_peer = limits.max_connections_per_peer
        self._seconds = limits.request_timeout.seconds
        self._head_seconds = limits.head_timeout.seconds
        self._least_rate = limits.least_read_rate
        self._in_flight = in_flight
        self._by_peer: dict[str, dict[Connection, None]] = {}
        self.waiting: dict[Connection, tuple[float, int, str]] = {}
        """Connection with a waiting answer → the end of the answer's time, and the bytes that are
        counted for it, and for which namespace; oldest first."""
        self._heads: dict[Connection, float] = {}
        """Connection → the end of the time of its head, which has begun; oldest first."""
        self._timer: asyncio.TimerHandle | None = None
        self._crowd = Outage(f"room for connections ({settings}.max_connections)", log)
        self._untaken = Outage(f"taking of answers by their peers{port}", log)
        self.loop = Loop(f"sweep of answers that wait{port}")
        self.open = 0
        """The connections that are open now."""
        self.closed_idle = 0
        """Idle connections that were closed to make room."""
        self.refused = 0
        """Connections that were refused because there were too many."""
        self.untaken = 0
        """Connections that were aborted because their peers did not take their answers."""
        self.heads = 0
        """Connections that were aborted because their heads became too long, or found no room."""
        self.slow_heads = 0
        """Connections that were closed because their heads did not end in time."""
        self.idled = 0
        """Connections that were closed because they had no request for `server.idle_timeout`."""

    def __repr__(self) -> str:
        return f"<Connections [{self.open} of {self.most} open, {len(self.waiting)} with waiting answers]>"

    def start(self, reserved: int = 0) -> None:
        """Lowers the limits to what the limit of descriptors allows; says so in one line.

        `reserved` are the descriptors of other ports.
        """
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return
        room = max(soft - DESCRIPTOR_RESERVE - reserved, soft // 2)
        if room < self.most:
            log.warning(
                "the limit of %d open files leaves room for %d connections; %s.max_connections is %d",
                soft,
                room,
                self._settings,
                self.most,
            )
            self._most_of_peer = max(1, min(self._most_of_peer, room * self._most_of_peer // self.most))
            self.most = room

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # how many ---------------------------------------------------------------------------------------

    def opened(self, connection: Connection, peer: str, *, instead_of: Connection | None = None) -> bool:
        """Counts a new connection; returns False if it is one too many.

        Such a one is to be closed after its first answer. One beyond the reserve is aborted here.
        `instead_of`: the same connection as it was counted until now, during its handshake.
        """
        own = self._by_peer.setdefault(peer, {})
        if instead_of is not None:
            self._forget(own, instead_of)
        if not self._has_room(own):
            crowd = own if len(own) >= self._most_of_peer else max(self._by_peer.values(), key=len)
            self._close_idle(crowd)
        fits = self._has_room(own)
        if not fits:
            self.refused += instead_of is None
            self._crowd.failed(f"{self.open} are open, {len(own)} of them from {peer}")
        elif self._crowd.is_on:
            self._crowd.worked()
        own[connection] = None
        self.open += 1
        if not fits and self._is_beyond_reserve(own):
            connection.abort()
        return fits

    def closed(self, connection: Connection, peer: str) -> None:
        """Forgets a connection that is closed."""
        own = self._by_peer.get(peer, {})
        self._forget(own, connection)
        if not own:
            self._by_peer.pop(peer, None)
        self.taken(connection)
        self.head_ended(connection)

    def _forget(self, own: dict[Connection, None], connection: Connection) -> None:
        if connection in own:
            del own[connection]
            self.open -= 1

    def _has_room(self, own: dict[Connection, None]) -> bool:
        return self.open < self.most and len(own) < self._most_of_peer

    def _is_beyond_reserve(self, own: dict[Connection, None]) -> bool:
        reserve = min(PROBE_RESERVE, max(1, self.most // 8))
        return self.open > self.most + reserve or len(own) > self._most_of_peer + reserve

    def _close_idle(self, own: dict[Connection, None]) -> None:
        """Closes those of these connections that have been idle longest."""
        idle = [(since, n, one) for n, one in enumerate(own) if (since := one.idle_since) is not None]
        count = max(1, len(idle) // IDLE_PART, self.open - self.most + 1)
        for _, _, connection in heapq.nsmallest(count, idle):
            self.closed_idle += 1
            self._forget(own, connection)  # it is lost only in a later turn of the loop
            connection.close_idle()

    # requests that have not begun -------------------------------------------------------------------

    def unbegun(self, connection: Connection, size: int) -> None:
        """Counts bytes of requests that have not begun.

        Aborts their connection if there is no room.
        """
        self._in_flight.held += HEAD_COST * size
        if self._in_flight.held > self._in_flight.most:
            self._in_flight.note_full()
            self.endless(connection)

    def begun(self, size: int) -> None:
        """Takes bytes out of the count: their requests have begun, or their connection has ended."""
        self._in_flight.held -= HEAD_COST * size

    def endless(self, connection: Connection) -> None:
        """Aborts a connection because of its heads."""
        self.heads += 1
        # Not from here: the transport that calls this may not be closed before the call is over.
        asyncio.get_running_loop().call_soon(connection.abort)

    def head_begun(self, connection: Connection) -> None:
        """Notes that a part of a head is there; its time runs from the first part on."""
        if connection not in self._heads:
            self._heads[connection] = asyncio.get_running_loop().time() + self._head_seconds
            self._start_timer()

    def head_ended(self, connection: Connection) -> None:
        """Notes that no head of the connection has begun and not ended."""
        self._heads.pop(connection, None)

    # answers that are not taken ---------------------------------------------------------------------

    def waits(self, connection: Connection) -> None:
        """Notes that the answer in the connection's buffer waits for its peer."""
        size = connection.unsent()
        if not size or connection in self.waiting:
            return
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._seconds + size / self._least_rate
        self.waiting[connection] = ends, size, (namespace := connection.namespace)
        self._in_flight.held += size
        self._in_flight.count(namespace, size)
        self._start_timer()
        if self._in_flight.held > self._in_flight.most:
            self._in_flight.note_full()
            # Not from here: the transport that calls this may not be closed before the call is over.
            loop.call_soon(self._make_room)

    def taken(self, connection: Connection) -> None:
        """Notes that the peer has taken what waited, or has gone."""
        if (waiting := self.waiting.pop(connection, None)) is not None:
            _, size, namespace = waiting
            self._in_flight.held -= size
            self._in_flight.count(namespace, -size)

    def _make_room(self) -> None:
        while self.waiting and self._in_flight.held > self._in_flight.most:
            waiting: Counter[str] = Counter()
            for _, size, namespace in self.waiting.values():
                waiting[namespace] += size
            most = waiting.most_common(1)[0][0]
            oldest = next(one for one, (_, _, namespace) in self.waiting.items() if namespace == most)
            self._abort(oldest, "there is no room for it any more")

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        with self.loop.step():
            now = loop.time()
            for connection, (ends, _, _) in list(self.waiting.items()):
                if not connection.unsent():
                    self.taken(connection)
                elif ends <= now:
                    self._abort(connection, "its time is over")
            self._end_slow_heads(now)
        is_needed = self.waiting or self._heads
        self._timer = loop.call_later(SWEEP_SECONDS, self._sweep) if is_needed else None

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _end_slow_heads(self, now: float) -> None:
        late = [connection for connection, ends in self._heads.items() if ends <= now]
        for connection in late:
            del self._heads[connection]
            if connection.idle_since is None:  # a request is running, during which heads are not read
                self._heads[connection] = now + self._head_seconds
            else:
                self.slow_heads += 1
                connection.end_head()

    def _abort(self, connection: Connection, why: str) -> None:
        self.untaken += 1
        self._untaken.failed(f"an answer with {self.waiting[connection][1]} bytes waits, and {why}")
        self.taken(connection)
        connection.abort()
