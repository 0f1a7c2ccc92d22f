"""A connector of aiohttp that reuses a connection only if nothing arrived on it unasked.

aiohttp keeps a connection on which bytes arrive between two requests, and gives them to the next
request as its answer. One surplus answer of a server, such as a 408 for an idle connection, then
shifts all later answers by one: every request gets the answer to the request before it.

    bytes arrive …                              | the connection
    --------------------------------------------|------------------------------------------------
    behind the whole answer, in its last packet | is closed; the answer counts
    while no answer is awaited                  | is closed
    unread by the event loop, as it is taken    | is closed, and another one is taken
    before the first request                    | is closed; the request fails, and may be repeated

A surplus answer that arrives after the next request was sent cannot be told from its answer. Then
the request's own answer is the surplus one: it closes the connection if it arrives before a further
request is sent there. So a shift ends as soon as the connection idles for as long as the server
takes to answer.

The bytes of an answer that are not its body are bounded too. aiohttp bounds lines and their number;
chunk extensions, interim answers (1xx) and empty lines before an answer could go on for ever.
"""

import asyncio
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from cachesvc.tiers.arrivals import Arrivals, arrivals
from cachesvc.tiers.names import Resolver

MOST_BESIDE_BODY = 512 << 10
"""Bytes of an answer beside its body: heads, trailers, interim answers, framing."""
MOST_FRAMING = 8
"""Bytes of framing that each byte of a body may have beside that.

A chunk of one byte takes 5."""


class EndlessAnswerError(aiohttp.ClientPayloadError):
    """An answer has too many bytes beside its body. Its connection is closed."""


class CleanConnector(aiohttp.TCPConnector):
    """A `TCPConnector` whose connections are clean when a request gets them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(resolver=Resolver(), **settings)
        self._factory = partial(_new_connection, loop=self._loop)

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        """Returns a clean connection; raises `ClientConnectionError` if a new one is not clean."""
        while True:
            connection = await super().connect(*args, **kwargs)
            link = cast(_CleanConnection, connection.protocol)
            if link.is_clean():
                return connection
            connection.close()
            if link.is_new:
                raise aiohttp.ClientConnectionError("the server spoke before it was asked")


def _new_connection(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    return _CleanConnection(loop)


class _CleanConnection(ResponseHandler):
    """A connection that closes when it gets bytes that belong to no answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.is_new = True
        """True until the first request."""
        self._answers = 0
        """Answers to the last request, without interim ones (1xx)."""
        self._received = 0
        """Bytes that came since the last request."""
        self._arrivals: Arrivals | None = None
        self._is_encrypted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        link = transport.get_extra_info("socket")
        self._arrivals = None if link is None else arrivals(link.fileno())
        self._is_encrypted = transport.get_extra_info("sslcontext") is not None

    def is_clean(self) -> bool:
        """True if the connection is open and nothing arrived on it unasked.

        To be called while no answer is awaited.
        """
        if not self.is_connected():
            return False
        if self._arrivals is None or (self.is_new and self._is_encrypted):
            return True  # TLS 1.3 sends session tickets unasked, before the first answer
        return not self._arrivals()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends the read of a body that the end of the connection cuts short.

        aiohttp ends it only if its parser says so at the end. A parser that has failed, as at a
        trailer without end, says nothing, and the read would wait for its time limit.
        """
        body = self._payload
        super().connection_lost(exc)
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("the connection ended within the body"))

    def set_response_params(self, **params: Any) -> None:
        self.is_new = False
        self._answers = self._received = 0
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        # Without bytes this is aiohttp's own call to go on with bytes that it had put aside.
        if data and self._awaits_nothing():
            self.close()
            return
        self._received += len(data)
        super().data_received(data)
        if self._received > MOST_BESIDE_BODY and self._is_endless():
            self._give_up()
        elif self._answers and self._awaits_nothing() and self._has_more_than_the_answer():
            self.close()

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Takes an answer from the parser: its head, and its body which may still be read."""
        status = data[0].code
        if status >= 200 or status == 101:
            self._answers += 1
            if self._answers > 1:
                return
        super().feed_data(data, size)

    def _awaits_nothing(self) -> bool:
        if self.is_new:
            return True
        if not self._answers or self.upgraded:
            return False
        return self._answers > 1 or self._payload is None or self._payload.is_eof()

    def _is_endless(self) -> bool:
        body = 0 if self._payload is None else self._payload.total_bytes
        return self._received > MOST_BESIDE_BODY + (1 + MOST_FRAMING) * body

    def _give_up(self) -> None:
        """Closes the connection, and fails the request that it was for."""
        error = EndlessAnswerError("the answer has too many bytes beside its body")
        self._parser = None  # it would say that the body is cut short
        self.set_exception(error)
        if self._payload is not None:
            self._payload.set_exception(error)
        if self.transport is not None:
            self.transport.abort()

    def _has_more_than_the_answer(self) -> bool:
        if self._answers > 1 or self._parser is None:
            return True
        try:
            # The parser is asked what the end of the connection would mean now: nothing, unless it
            # has begun another answer. Its next use is for another request, and it is replaced then.
            return self._parser.feed_eof() is not None
        except Exception:  # noqa: BLE001  half an answer, of which the parser cannot make anything
            return True
