"""The socket side: aiohttp's low-level server, listening and draining.

A request that cannot even be parsed is answered with a problem document too.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from itertools import islice
from typing import Any, cast

from aiohttp import EMPTY_PAYLOAD, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong

from cachesvc.config.addresses import address
from cachesvc.config.service import Server
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.telemetry.traces.trace import under
from cachesvc.tiers.names import look_up
from cachesvc.web.connections import Connections
from cachesvc.web.handshakes import Handshake, Handshakes
from cachesvc.web.lane import END_OF_HEAD, Lane, Plain
from cachesvc.web.replies.problems import problem_reply
from cachesvc.web.replies.reply import Reply
from cachesvc.web.requests.limits import MAX_HEADER_LINE
from cachesvc.web.routing import place_of

log = logging.getLogger(__name__)

PIECE_BYTES = 1 << 14
"""The bytes that the parser is given at once; a transport brings up to 256 KiB.

After each piece it is known whether a head has ended in it, so no more than a piece of the next
head goes uncounted."""
AT_ONCE_BYTES = 1 << 12
"""A single request of at most so many bytes is not counted while it waits for its turn.

A fast peer's next request comes before the task that answered the last one has ended, so counting
would be a part of most requests."""
MOST_HEADS = 4
"""A head that has not ended after so many times `max_header_bytes` ends its connection.

A shorter one is answered 431 when it has ended."""
MOST_UNTAKEN_BYTES = 1 << 16
"""Bytes that wait below TLS without being counted, as many as wait above a socket."""
MOST_WAITING_BYTES = 1 << 16
"""A connection with more bytes of requests that wait is not read until they have begun."""

HEAD_BYTES = 10 << 10
"""The head of an answer to a plain read has at most so many bytes."""
LANE_BYTES = MOST_UNTAKEN_BYTES - HEAD_BYTES
"""The most bytes that wait in a connection's buffers and belong to values of the lane.

Their heads come on top. So the lane never pauses writing: its answers need not wait for their
peer."""
_OF_AIOHTTP = (
    "_buffer_paused",
    "_keepalive_timeout",
    "_messages",
    "_next_keepalive_close_time",
    "_reading_paused",
    "_request_in_progress",
    "_upgraded",
    "_waiter",
)
"""The attributes of aiohttp's connection that the lane needs, and that are not public."""

_UNKNOWN = -1
"""Stands for a number of bytes that is not known."""

_parse = web.RequestHandler.data_received

_SLOW_HEAD = RequestError(ProblemKind.HEAD_TIMEOUT, "the head of the request did not come to its end in time")
_TOO_MANY_LINES = "Too many headers received"
"""aiohttp's message; it has no exception of its own for this."""

ANSWERED_SECONDS = 0.05
"""The pause between two looks whether a half-closed connection has begun its requests."""
LINGER_SECONDS = 2.0
"""How long the rest of a refused body is read and dropped, so that the refusal is seen."""

BACKLOG = 1024
"""The most connections that wait to be accepted."""
ACCEPTED_AT_ONCE = 32
"""The connections that are accepted in one turn of the loop. libuv accepts one per turn
and listening socket, so the socket is listened on so often. Otherwise new connections, which
callers open whose last request was too late, queue where nobody can refuse them (950 of them were
seen), and are served when their callers have gone."""


class Listener:
    """The listening socket and its connections. `start` and `stop` are called once each."""

    def __init__(
        self,
        handle: Callable[[web.BaseRequest], Awaitable[Reply]],
        handle_extra: Callable[[web.BaseRequest], Awaitable[Reply]],
        complete: Callable[[Reply], None],
        connections: Connections,
        limits: Server,
        handshakes: Handshakes | None = None,
        lane: Lane | None = None,
    ) -> None:
        """`handle` answers a request, `handle_extra` the one of a connection that is one too many.

        `complete` completes the replies to what is no request. Without `handshakes` the port speaks plain
        HTTP. Without a `lane` aiohttp reads every request.
        """
        self._handle = handle
        self._handle_extra = handle_extra
        self._connections = connections
        self._complete = complete
        self._limits = limits
        self._handshakes = handshakes
        self._lane = lane
        self._runner: web.ServerRunner | None = None
        self.is_stopping = False

    def __repr__(self) -> str:
        started = self._runner.addresses if self._runner else "not started"
        return f"<Listener [{'stopping' if self.is_stopping else started}]>"

    async def start(self, host: str, port: int, own: int | None = None, *, is_shared: bool = False) -> int:
        """Starts to listen; returns the bound port.

        Raises `OSError`, whose `filename` is the address. `own` is one more port to listen on. With
        `is_shared` other processes listen on `port`, too.
        """
        if lacking := [name for name in _OF_AIOHTTP if not hasattr(web.RequestHandler, name)]:
            log.warning("this aiohttp has no %s: plain reads have no fast lane", ", ".join(lacking))
        server = _Server(
            self._handle,
            self._handle_extra,
            self._complete,
            self._connections,
            self._handshakes,
            None if lacking else self._lane,
            access_log=None,
            auto_decompress=False,
            most_head_bytes=MOST_HEADS * self._limits.max_header_bytes,
            keepalive_timeout=self._limits.idle_timeout.seconds,
            lingering_time=LINGER_SECONDS,
            max_field_size=MAX_HEADER_LINE,
            max_headers=self._limits.max_header_lines,
        )
        runner = web.ServerRunner(server, shutdown_timeout=self._limits.shutdown_timeout.seconds)
        await runner.setup()
        try:
            with ExitStack() as stack:
                listening = [
                    stack.enter_context(one) for one in await _bound(host, port, is_shared=is_shared)
                ]
                if own is not None:
                    listening += [stack.enter_context(one) for one in await _bound(host, own)]
                for one in listening * ACCEPTED_AT_ONCE:
                    await web.SockSite(runner, one.dup(), backlog=BACKLOG).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Closes the listening socket, then idle connections, then those of running requests.

        Running requests get `shutdown_seconds` to end.
        """
        self.is_stopping = True
        if self._handshakes is not None:
            self._handshakes.stop()
        if self._runner is not None:
            await self._runner.cleanup()


async def _bound(host: str, port: int, *, is_shared: bool = False) -> list[socket.socket]:
    """Returns `_listening(…)`. Raises `OSError`, whose `filename` is the address."""
    try:
        return await _listening(host, port, is_shared=is_shared)
    except OSError as error:
        error.filename = address(host, port)
        raise


async def _listening(host: str, port: int, *, is_shared: bool = False) -> list[socket.socket]:
    """Returns sockets that listen on the addresses of the host. Raises `OSError`.

    With `is_shared` (SO_REUSEPORT) each new connection goes to one of the processes that listen so.
    `localhost` has two addresses, and a caller may try either first. `::` takes IPv4 callers, too. An
    address that this machine does not have (IPv6 is switched off) is passed over if there is another.
    """
    bound: list[socket.socket] = []
    lacking: OSError | None = None
    for family, *_, found in await look_up(host, port, flags=socket.AI_PASSIVE):
        at = (found[0], bound[0].getsockname()[1] if bound else port, *found[2:])
        is_dual = at[0] == "::" and socket.has_dualstack_ipv6()
        try:
            made = socket.create_server(
                at[:2] if is_dual else at,
                family=socket.AddressFamily(family),
                backlog=BACKLOG,
                reuse_port=is_shared,
                dualstack_ipv6=is_dual,
            )
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                lacking = error
                continue
            for one in bound:
                one.close()
            raise
        bound.append(made)
    if not bound:
        raise lacking or OSError(f"{host} has no address")
    return bound


class _Server(web.Server):
    def __init__(
        self,
        handle: Callable[[web.BaseRequest], Awaitable[Reply]],
        handle_extra: Callable[[web.BaseRequest], Awaitable[Reply]],
        complete: Callable[[Reply], None],
        connections: Connections,
        handshakes: Handshakes | None,
        lane: Lane | None,
        *,
        most_head_bytes: int,
        **settings: Any,
    ) -> None:
        super().__init__(handle, **settings)
        self.most_head_bytes = most_head_bytes
        self._handshakes = handshakes
        self.lane = lane
        self.handle_extra = handle_extra
        self.complete = complete
        self.callers = connections

    def __call__(self) -> Any:
        """Returns the protocol of a new connection: what serves it, or its handshake before that."""
        return self._served() if self._handshakes is None else Handshake(self._handshakes, self._served)

    def _served(self, handshake: Handshake | None = None) -> "_Connection":
        kind = _Connection if handshake is None else _EncryptedConnection
        return kind(self, handshake, loop=self._loop, **self._kwargs)

    def _make_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        protocol.begins(message, payload)  # type: ignore[attr-defined]  # it is a `_Connection`
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop)


class _Connection(web.RequestHandler):
    """A connection that is counted, and whose errors are problem documents too.

    They repeat nothing that the peer sent.
    """

    __slots__ = (
        "_callers",
        "_complete",
        "_handle_extra",
        "_handshake",
        "_is_closing",
        "_kept",
        "_landing",
        "_lane",
        "_most_head_bytes",
        "_peer",
        "_read_on",
        "_rest",
        "_socket",
        "_target",
        "_unbegun",
        "_unended",
        "body",
        "is_half_closed",
        "plain_read",
    )

    def __init__(self, server: _Server, handshake: Handshake | None, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._handshake = handshake
        """As what the connection was counted until now; None without TLS."""
        self._complete = server.complete
        self._callers = server.callers
        self._most_head_bytes = server.most_head_bytes
        self._handle_extra = server.handle_extra
        self._lane = server.lane
        self._rest = 0
        """The bytes of a body that are still to come; 0: the parser stands between two requests.

        `_UNKNOWN` unless that is certain."""
        self.plain_read: Plain | Reply | None = None
        """The next request, if the lane has read it and could not answer it; or its answer."""
        self._read_on = b""
        """The head of the plain read whose answer is on its way; empty if there is none."""
        self._kept = b""
        """The bytes that came behind that head, or behind a request that has just been answered."""
        self._landing: asyncio.Future[None] | None = None
        """Ends when that answer is there, if the drain waits for it."""
        self._is_closing = False
        """True: the connection is to be closed after that answer."""
        self._peer = ""
        self._socket: asyncio.Transport | None = None
        """The transport, also while it closes."""
        self._target = ""
        """The target of the request that began last."""
        self.body: StreamReader | None = None
        """The body of that request."""
        self._unended = 0
        """The bytes that are counted of the head that has not ended."""
        self._unbegun = 0
        """The bytes that are counted of requests that have not begun, with those of that head."""
        self.is_half_closed = False
        """True: the peer sends no more, and may still read; or it has gone."""

    # how the callers' connections are counted (`Connection`) -----------------------------------------

    @property
    def idle_since(self) -> float | None:
        return self._next_keepalive_close_time - self._keepalive_timeout if self._is_idle() else None

    def _is_idle(self) -> bool:
        waiter = self._waiter
        return waiter is not None and not waiter.done() and not self._messages and not self._read_on

    def close_idle(self) -> None:
        self.force_close()

    def abort(self) -> None:
        if self._socket is not None:
            self._socket.abort()

    def end_head(self) -> None:
        reply = problem_reply(_SLOW_HEAD, "")
        self._complete(reply)
        if self._socket is not None:
            self._socket.write(reply.head + b"Connection: close\r\n\r\n" + reply.payload)
        self.force_close()

    def _process_keepalive(self) -> None:
        was_closing = self._force_close
        if self._read_on:
            self._note_life()
        super()._process_keepalive()
        self._callers.idled += self._force_close and not was_closing

    def unsent(self) -> int:
        return self._socket.get_write_buffer_size() if self._socket is not None else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._socket = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if isinstance(peer, tuple) else ""
        if not self._callers.opened(self, self._peer, instead_of=self._handshake):
            self._request_handler = self._handle_extra
            self._lane = None

    def connection_lost(self, exc: BaseException | None) -> None:
        self._callers.closed(self, self._peer)
        self._callers.begun(self._unbegun)
        self._unbegun = 0
        self._kept = b""
        self._socket = None
        super().connection_lost(exc)

    # the fast lane ------------------------------------------------------------------------------------

    def _answer_plain_reads(self, lane: Lane, data: bytes) -> int:
        """Answers the plain reads with which `data` begins; returns the place behind them.

        Stops at the first request that is not the lane's. If the answer to one comes later, the rest is
        kept.
        """
        at, transport = 0, self.transport
        if transport is None or transport.is_closing():
            return 0
        while at < len(data) and (read := lane.read(data, at)) is not None:
            try:
                answer = lane.answer(read, LANE_BYTES - self.unsent(), self)
            except Exception:  # noqa: BLE001  the ordinary way meets the same failure, and tells and logs it
                answer = None
            if answer is None:
                if read.end == len(data):
                    self.plain_read = read
                break
            if not answer:
                self._read_on = data[at : read.end]
                if read.end < len(data):
                    self._keep(data[read.end :])
                return len(data)
            transport.write(answer)
            at = read.end
        if at:
            self._note_life()
        return at

    def _note_life(self) -> None:
        """Notes that the peer has asked, and begins the time anew after which it is idle."""
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    def _keep(self, data: bytes) -> None:
        """Keeps what came behind a read that goes on, and stops to read if that is much."""
        self._kept += data
        self._unbegun += len(data)
        self._callers.unbegun(self, len(data))
        if len(self._kept) > MOST_WAITING_BYTES and not self._buffer_paused:
            self._pause_reading_for_buffer()

    def _take_kept(self) -> None:
        """Goes on with what was kept."""
        kept, self._kept = self._kept, b""
        self._unbegun -= len(kept)
        self._callers.begun(len(kept))
        if self._buffer_paused:
            self._resume_reading_for_buffer()
        if kept:
            self._take(kept)

    def has_left(self) -> bool:
        return self.transport is None or self.is_half_closed

    def take(self, reply: Reply) -> None:
        """Writes the answer to the read that went on, and goes on with what was kept.

        A large answer, or one that the buffer has no room for, goes by aiohttp's way, where a task waits
        for the peer.
        """
        head, self._read_on = self._read_on, b""
        if self._landing is not None:
            self._landing.set_result(None)
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        is_last = self._is_closing or reply.is_last
        if len(reply.head) + len(reply.payload) <= LANE_BYTES - self.unsent():
            transport.write(reply.whole())
            self._note_life()
            if is_last:
                self.force_close()
        else:
            self.plain_read = reply
            _parse(self, head)
            if is_last:
                self.close()
        if self._kept and not is_last:
            with under(None):
                self._take_kept()

    def close(self) -> None:
        """Closes the connection after the answers that are being made."""
        if self._read_on:
            self._is_closing = True
        else:
            super().close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109  aiohttp's signature
        """Ends the connection as aiohttp does, after the answer to the read that goes on."""
        if self._read_on:
            self._landing = self._loop.create_future()
            await asyncio.wait((self._landing,), timeout=timeout)
        await super().shutdown(timeout)

    def _parse(self, data: bytes) -> None:
        """Has aiohttp parse the data, and finds out whether its parser is between requests then.

        It is if the data end the body of a request that says how long it is, and began where the parser
        was between requests. Without bodies, it is if as many heads have ended in the data as the data have
        ends of heads, and the data end with one. (A paused parser keeps a part of the data.) If it was
        between requests before, these heads are the data, and the lane learns from them.
        """
        rest, self._rest = self._rest, _UNKNOWN
        messages = self._messages
        count = len(messages)
        _parse(self, data)
        if (lane := self._lane) is None or self._upgraded:
            return
        if rest > 0 or not data:  # without data, what the parser has kept is parsed
            self._rest = max(rest - len(data), _UNKNOWN)
            return
        if not rest and len(messages) == count + 1 and messages[-1][1] is not EMPTY_PAYLOAD:
            self._rest, head = _rest_of(asked := cast(RawRequestMessage, messages[-1][0]), data)
            if not self._rest:
                lane.learn(head, asked)
            return
        if (
            not data.endswith(END_OF_HEAD)
            or self._buffer_paused
            or self._reading_paused
            or len(messages) - count != data.count(END_OF_HEAD)
        ):
            return
        parsed = [messages[-1]] if len(messages) == count + 1 else list(islice(messages, count, None))
        if any(
            body is not EMPTY_PAYLOAD or not isinstance(message, RawRequestMessage)
            for message, body in parsed
        ):
            return
        self._rest = 0
        if not rest:
            for head, (message, _) in zip(data.split(END_OF_HEAD), parsed, strict=False):
                lane.learn(head + END_OF_HEAD, cast(RawRequestMessage, message))

    # what is counted of requests that have not begun --------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._read_on or self._kept:
            if not self._is_closing:
                self._keep(data)
        elif self._is_ending() and self._lane is not None and not self._rest:
            # The task of the last request has answered it, and ends in this turn of the loop. A fast peer's
            # next request would never come to the lane.
            self._keep(data)
            self._loop.call_soon(self._take_kept)
        else:
            self._take(data)

    def _is_ending(self) -> bool:
        """True if aiohttp's task has answered the last request, and does not wait yet."""
        return (
            self._waiter is None
            and not self._messages
            and not self._request_in_progress
            and (self.body is None or self.body.is_eof())
        )

    def _take(self, data: bytes) -> None:
        """Has the data answered by the lane, or parsed."""
        lane = self._lane
        if lane is not None and not self._rest and self._is_idle() and len(data) <= AT_ONCE_BYTES:
            data = data[self._answer_plain_reads(lane, data) :]
            if self.plain_read is not None:
                _parse(self, data)  # one request, which begins now
                return
            if not data:
                return
        if (
            self._messages
            or self._unended
            or len(data) > AT_ONCE_BYTES
            or (self._waiter is None and self.body is not None and not self.body.is_eof())
        ):
            for at in range(0, len(data) or 1, PIECE_BYTES):
                self._receive(data[at : at + PIECE_BYTES])
            return
        self._parse(data)
        if len(self._messages) != 1:  # else one small request, which begins now or is the next: nearly always
            self._note_unbegun(len(data), has_ended=bool(self._messages))

    def _receive(self, piece: bytes) -> None:
        is_body, count = self._is_body(), self._request_count
        self._parse(piece)
        if (has_ended := self._request_count != count) or not is_body:
            self._note_unbegun(len(piece), has_ended=has_ended)

    def _note_unbegun(self, size: int, *, has_ended: bool) -> None:
        """Counts bytes of requests that have not begun; `has_ended`: a head has ended in them."""
        self._unended = 0 if has_ended else self._unended + size
        self._unbegun += size
        self._callers.unbegun(self, size)
        if self._unended:
            self._callers.head_begun(self)
        else:
            self._callers.head_ended(self)
        if self._unended > self._most_head_bytes >= self._unended - size:
            self._callers.endless(self)
        elif self._messages and self._unbegun > MOST_WAITING_BYTES and not self._buffer_paused:
            self._pause_reading_for_buffer()

    def _is_body(self) -> bool:
        """True if what comes now belongs to the body of the request whose head ended last."""
        body = self._messages[-1][1] if self._messages else self.body
        return body is not None and not body.is_eof()

    @property
    def namespace(self) -> str:
        try:
            return place_of(self._target, lambda *_: None).namespace
        except RequestError:
            return ""

    def begins(self, message: RawRequestMessage, body: StreamReader) -> None:
        """Notes that the next request begins, whose body this is."""
        self._target = message.path
        self.body = body
        if self._unbegun and not self._messages:
            self._callers.begun(self._unbegun - self._unended)
            self._unbegun = self._unended

    def pause_writing(self) -> None:
        super().pause_writing()
        self._callers.waits(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._callers.taken(self)

    async def start(self) -> None:
        """Serves the connection. What is left in its buffer then has a time to be taken, too."""
        try:
            await super().start()
        finally:
            self._callers.waits(self)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # asyncio's may return True
        """Keeps the connection for the answers to complete requests whose peer sends no more."""
        body = self._messages[-1][1] if self._messages else self.body
        is_busy = self._read_on or self._kept or (body is not None and body.is_eof())
        if self.idle_since is not None or not is_busy:
            return None
        if self._handshake is not None:
            return None  # event loops close both halves of a TLS connection at once
        self.is_half_closed = True
        self._close_when_answered()
        return True

    def _close_when_answered(self) -> None:
        if self._messages or self._kept:
            self._loop.call_later(ANSWERED_SECONDS, self._close_when_answered)
        elif self.idle_since is None:
            self.close()  # after the answer that is being made
        else:
            self.force_close()

    # answers to what is no request -------------------------------------------------------------------

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers a request that is not HTTP (400, 431), or a failure outside the handler (500).

        It always closes the connection. Raises `ConnectionError` if a part of an answer was sent already.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("part of an answer is on its way already")
        if status >= 500:
            log.error("answering failed", exc_info=exc)
            error = RequestError(ProblemKind.INTERNAL, "the service failed")
        elif isinstance(exc, LineTooLong) or message == _TOO_MANY_LINES:
            error = RequestError(
                ProblemKind.HEAD_TOO_LARGE, "the request line or a header is too long, or there are too many"
            )
        else:
            error = RequestError(ProblemKind.BAD_REQUEST, "this is no well-formed HTTP/1.1 request")
        reply = problem_reply(error, "")
        self._complete(reply)
        reply.close_after()
        return reply


def _rest_of(message: RawRequestMessage, data: bytes) -> tuple[int, bytes]:
    """Returns how many bytes of a request are still to come, and its head.

    The request, which has a body, begins the data. `_UNKNOWN` if it does not say of which length, or if
    the lines of its head do not all end with CR LF.
    """
    length = message.headers.get("Content-Length", "")
    head = data[: data.find(END_OF_HEAD) + len(END_OF_HEAD)]
    if message.chunked or not length or head.count(b"\n") != head.count(b"\r\n"):
        return _UNKNOWN, head
    return max(len(head) + int(length) - len(data), _UNKNOWN), head


def plain_read_of(request: web.BaseRequest) -> Plain | Reply | None:
    """Returns the request as the fast lane has read it, or its answer if the lane has got it.

    None if the lane did not read it. To be asked once.
    """
    connection = request.protocol
    if not isinstance(connection, _Connection) or connection.plain_read is None:
        return None
    read, connection.plain_read = connection.plain_read, None
    return read


class _EncryptedConnection(_Connection):
    """A connection over TLS, whose answers wait in the buffer of the TCP connection below it.

    TLS does not tell that buffer's state: it pauses writing only when a further answer has no room
    there. So it is looked at after each answer.
    """

    __slots__ = ()

    def unsent(self) -> int:
        if (transport := self._socket) is None:
            return 0
        size = transport.get_write_buffer_size()
        if (handshake := self._handshake) is not None and (below := handshake.transport) is not None:
            size += below.get_write_buffer_size()
        return size

    def _note_life(self) -> None:
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._callers.waiting:
            self._callers.taken(self)

    async def finish_response(self, *answered: Any) -> tuple[web.StreamResponse, bool]:
        done = await super().finish_response(*answered)
        self._callers.taken(self)  # what waited before, as its peer has asked again
        if self.unsent() > MOST_UNTAKEN_BYTES:
            self._callers.waits(self)
        return done
