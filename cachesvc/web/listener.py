"""The socket side: aiohttp's low-level server, listening and draining.

A request that cannot even be parsed is answered with a problem document too.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.web.replies.problems import problem_reply
from cachesvc.web.replies.reply import Reply
from cachesvc.web.requests.limits import MAX_HEADER_LINE

log = logging.getLogger(__name__)

LINGER_SECONDS = 2.0
"""How long the rest of a refused body is read and dropped, so that the refusal is seen."""
KEEPALIVE_SECONDS = 75.0
"""How long an idle connection stays open. Proxies keep theirs for less (60 s is usual), so
that they close first, and send nothing on a connection that is being closed here."""


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
        complete: Callable[[Reply], None],
        shutdown_seconds: float,
    ) -> None:
        """`handle` answers a request. `complete` adds the header lines that every reply has."""
        self._handle = handle
        self._complete = complete
        self._shutdown_seconds = shutdown_seconds
        self._runner: web.ServerRunner | None = None
        self.is_stopping = False

    def __repr__(self) -> str:
        started = self._runner.addresses if self._runner else "not started"
        return f"<Listener [{'stopping' if self.is_stopping else started}]>"

    async def start(self, host: str, port: int) -> int:
        """Starts to listen; returns the bound port. Raises `OSError`."""
        server = _Server(
            self._handle,
            self._complete,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=LINGER_SECONDS,
            max_field_size=MAX_HEADER_LINE,
        )
        runner = web.ServerRunner(server, shutdown_timeout=self._shutdown_seconds)
        await runner.setup()
        try:
            with await _listening(host, port) as listening:
                for _ in range(ACCEPTED_AT_ONCE):
                    await web.SockSite(runner, listening.dup(), backlog=BACKLOG).start()
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
        if self._runner is not None:
            await self._runner.cleanup()


async def _listening(host: str, port: int) -> socket.socket:
    """Returns a socket that is bound to the first address of the host. Raises `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, *_, address = found[0]
    return socket.create_server(address, family=family, backlog=BACKLOG)


class _Server(web.Server):
    def __init__(
        self,
        handle: Callable[[web.BaseRequest], Awaitable[Reply]],
        complete: Callable[[Reply], None],
        **settings: Any,
    ) -> None:
        super().__init__(handle, **settings)
        self._complete = complete

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, self._complete, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    """A connection whose errors are problem documents too.

    They repeat nothing that the peer sent.
    """

    __slots__ = ("_complete",)

    def __init__(self, server: web.Server, complete: Callable[[Reply], None], **settings: Any) -> None:
        super().__init__(server, **settings)
        self._complete = complete

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
        elif isinstance(exc, LineTooLong):
            error = RequestError(ProblemKind.HEAD_TOO_LARGE, "the request line or a header is too long")
        else:
            error = RequestError(ProblemKind.BAD_REQUEST, "this is no well-formed HTTP/1.1 request")
        reply = problem_reply(error, "")
        self._complete(reply)
        reply.close_after()
        return reply
