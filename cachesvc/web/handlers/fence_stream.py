"""Endless answers about fences: `GET /v1/fences`, and `GET /v1/relay` for instances.

    /v1/fences    what this instance has merged, as server-sent events (`changes/broadcast/`)
    /v1/relay     what this instance has read of a region's stream, in frames (`changes/relay/`)

The body does not end by itself: it has neither a length nor chunks, and ends when the connection
does. Its last piece says that the instance stops, if it ends for that. Every piece is written at
the pace at which the subscriber reads (`writer.write` waits while the buffers are full). Meanwhile
its subscription is only a place in a log. One timer serves all streams: it makes the heartbeats,
and cuts off subscribers that have not read anything for long.
"""

import asyncio
from collections.abc import Collection, Mapping
from types import MappingProxyType
from urllib.parse import parse_qsl

from aiohttp import ClientConnectionError, web

from cachesvc.changes.broadcast.broadcast import Broadcast
from cachesvc.changes.broadcast.events import Vector, read_vector
from cachesvc.changes.broadcast.subscription import Subscription
from cachesvc.changes.relay.frames import LAST_FRAME
from cachesvc.changes.relay.relay import Following, Relay
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.scope import EVERY, Action
from cachesvc.telemetry.loops import Loop
from cachesvc.web.access.door import Door, grant_of
from cachesvc.web.access.grants import Grant
from cachesvc.web.replies.reply import Reply
from cachesvc.web.routing import Place

BEAT_SECONDS = 0.2
"""The period of the timer. Heartbeats come every two periods at least; 500 ms are
promised."""
STALL_SECONDS = 10.0
"""A peer that takes nothing for so long, while all buffers are full, is stopped or gone.
The log alone could not tell it from a slow peer: it takes hours to move on when little happens."""

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    b"X-Accel-Buffering: no\r\n"
)


_LAST_EVENT = b"event: stopping\ndata: {}\n\n"
"""Has no id: the subscriber resumes after the event before it."""
_RELAY_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nCache-Control: no-store\r\n"


class StreamReply(Reply):
    """Sends what its subscription gives until that is over or the peer leaves.

    Then the connection is closed.
    """

    def __init__(self, head: bytes, subscription: Subscription | Following, generation: int) -> None:
        super().__init__(200, head, outcome="opened")
        self.close_after()
        self.subscription = subscription
        self.generation = generation
        """The generation of the callers under which it was admitted."""
        self.writing_since: float | None = None
        """When the running write began, on the loop's clock; None if no write waits for the peer."""
        self.last = b""
        """The bytes that are written at the end of the subscription."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Writes until the stream ends; also without an error if the peer has gone.

        That is the only way for a peer to end a stream.
        """
        request, self._request = self._request, None
        if request is None:
            return
        loop = asyncio.get_running_loop()
        piece = self.head + b"Connection: close\r\n\r\n"
        try:
            while piece:
                self.writing_since = loop.time()
                await request.writer.write(piece)
                self.writing_since = None
                piece = await self.subscription.next() or self._take_last()
        except (ConnectionError, ClientConnectionError):
            return
        finally:
            self.subscription.close()

    def _take_last(self) -> bytes:
        last, self.last = self.last, b""
        return last


class Streams:
    """The streams that are open. `stop` ends them at once, and later ones are refused."""

    def __init__(
        self,
        broadcast: Broadcast,
        most_of_peer: int,
        door: Door,
        relays: Mapping[str, Relay] = MappingProxyType({}),
        most_followers: int = 0,
    ) -> None:
        """`most_of_peer`: the streams of `/v1/fences` that one peer's address may have open.

        `relays`: what instances may follow here, by region; `most_followers` of them.
        """
        self._broadcast = broadcast
        self._relays = relays
        self._most_followers = most_followers
        self._door = door
        self._most_of_peer = most_of_peer
        self._open: dict[StreamReply, web.BaseRequest] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.loop = Loop("heartbeats of /v1/fences")
        self._is_stopped = False

    def __repr__(self) -> str:
        return f"<Streams [{len(self._open)} open]>"

    async def fences(self, request: web.BaseRequest, _: Place) -> Reply:
        """Answers with a stream that resumes after `Last-Event-ID`, or begins with a reset.

        It names the namespaces that the caller may read; the digests of keys and tags are those of all. It
        ends when the identity does, and when callers change: a subscriber that may go on connects again.

        Raises `RequestError`: `stopping`, `too-many-subscribers`, or `bad-header` for an id that is none.
        """
        if self._is_stopped:
            raise RequestError(ProblemKind.STOPPING, "this instance stops: ask another one")
        after = _last_event_id(request)
        if request.method == "HEAD":
            return Reply(200, _HEAD)
        self._check_peer(request.remote)
        seen = _seen(grant_of(request))
        return self._opened(request, _HEAD, self._broadcast.subscribe(after, seen))

    async def relay(self, request: web.BaseRequest, place: Place) -> Reply:
        """Answers with the items that follow a position, in frames (`changes/relay/frames.py`).

        It ends when the log has not what follows, as `fences` does, and when this instance stops. Raises
        `RequestError`: `stopping`, `no-such-path` at an instance that is no relay, `bad-query`.
        """
        if self._is_stopped:
            raise RequestError(ProblemKind.STOPPING, "this instance stops: read from the queue")
        if not self._relays:
            raise RequestError(ProblemKind.NO_SUCH_PATH, "this instance is no relay (regions.*.relays)")
        asked = dict(parse_qsl(place.query, errors="replace"))
        relay = self._relays.get(asked.get("region", ""))
        if relay is None or asked.keys() != {"region", "after"}:
            why = "say which stream, and from where: ?region=NAME&after=POSITION"
            raise RequestError(ProblemKind.BAD_QUERY, why, field="query")
        if request.method == "HEAD":
            return Reply(200, _RELAY_HEAD)
        self._sweep()
        if sum(one.followers for one in self._relays.values()) >= self._most_followers:
            why = f"{self._most_followers} followers are connected to this relay already (server.max_streams)"
            raise RequestError(ProblemKind.TOO_MANY_SUBSCRIBERS, why)
        return self._opened(request, _RELAY_HEAD, relay.follow(asked["after"]))

    def _opened(
        self, request: web.BaseRequest, head: bytes, subscription: Subscription | Following
    ) -> StreamReply:
        stream = StreamReply(head, subscription, self._door.generation)
        self._open[stream] = request
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)
        return stream

    def _check_peer(self, peer: str | None) -> None:
        self._sweep()
        if sum(request.remote == peer for request in self._open.values()) >= self._most_of_peer:
            why = f"{self._most_of_peer} subscribers of this address are connected to this instance already"
            raise RequestError(ProblemKind.TOO_MANY_SUBSCRIBERS, why)

    def stop(self) -> None:
        """Ends all streams at once, and tells why; their subscribers go on at another instance."""
        self._is_stopped = True
        for stream in self._open:
            stream.last = LAST_FRAME if isinstance(stream.subscription, Following) else _LAST_EVENT
            stream.subscription.close()
        self._sweep()

    def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        with self.loop.step():
            self._broadcast.beat()
            self._end_outdated()
            self._lose_stalled(loop.time())
            self._sweep()
        self._timer = loop.call_later(BEAT_SECONDS, self._beat) if self._open else None

    def _end_outdated(self) -> None:
        for stream, request in self._open.items():
            if stream.generation != self._door.generation or self._door.is_over(grant_of(request)):
                stream.subscription.close()

    def _lose_stalled(self, now: float) -> None:
        for stream in self._open:
            if stream.writing_since is not None and now - stream.writing_since > STALL_SECONDS:
                stream.subscription.lose()

    def _sweep(self) -> None:
        """Forgets the streams that are over.

        The connection of a stream whose last write still waits is aborted: it could wait for as long as its
        peer likes.
        """
        for stream in [one for one in self._open if one.subscription.is_over]:
            request = self._open.pop(stream)
            if stream.writing_since is not None and request.transport is not None:
                request.transport.abort()


def _seen(grant: Grant) -> Collection[str] | None:
    """Returns the namespaces that a stream may name; None if all."""
    if grant.has_any(Action.READ, EVERY) or grant.has_any(Action.OBSERVE, EVERY):
        return None
    return [
        name
        for name in grant.namespaces
        if grant.has_any(Action.READ, name) or grant.has_any(Action.OBSERVE, name)
    ]


def _last_event_id(request: web.BaseRequest) -> Vector | None:
    text = request.headers.get("Last-Event-ID", "").strip()
    try:
        return read_vector(text) if text else None
    except ValueError as error:
        raise RequestError(ProblemKind.BAD_HEADER, str(error), field="Last-Event-ID") from None
