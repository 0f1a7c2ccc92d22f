"""TLS handshakes of a listening port, before there is a connection to serve.

    TCP connection ─► counted as a connection ─► start_tls ─┬─► served, counted anew in its place
                                                            └─► failed: counted by reason, closed

uvloop reads from a new connection before a task can begin its handshake. So the first bytes may
arrive here, and are given to TLS with its buffers (`_Begun`).

A connection that shakes hands counts as idle since it was accepted. So handshakes have the limits
of connections, and where room is needed, the slowest ones are closed first.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any, cast

from cachesvc.web.connections import Connections

log = logging.getLogger(__name__)

_PLAIN = ("HTTP_REQUEST", "WRONG_VERSION_NUMBER", "HTTPS_PROXY_REQUEST")
"""OpenSSL's reasons for bytes that are no TLS."""


class Handshakes:
    """The handshakes of one listening port, now and since the start."""

    def __init__(self, context: ssl.SSLContext, seconds: float, callers: Connections) -> None:
        """`seconds` is the time limit of a handshake."""
        self.context = context
        self.seconds = seconds
        self.callers = callers
        self.running: set[Handshake] = set()
        self.done = 0
        """Handshakes that succeeded."""
        self.plain = 0
        """Connections that did not speak TLS."""
        self.late = 0
        """Handshakes that took too long."""
        self.certificate = 0
        """Handshakes that failed for a certificate, the caller's or ours."""
        self.left = 0
        """Connections that ended before their handshakes did."""
        self.other = 0
        """Handshakes that failed for another reason, such as an old version of TLS."""

    def __repr__(self) -> str:
        return f"<Handshakes [{len(self.running)} running, {self.done} done]>"

    def failed(self, error: Exception) -> None:
        """Counts a handshake that failed."""
        reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
        if reason in _PLAIN:
            self.plain += 1
        elif "CERTIFICATE" in reason or reason.endswith("UNKNOWN_CA"):
            self.certificate += 1
        elif isinstance(error, ConnectionAbortedError | TimeoutError):
            self.late += 1
        elif isinstance(error, ssl.SSLError):
            self.other += 1
        else:
            self.left += 1
        log.debug("a handshake failed: %s", error)

    def stop(self) -> None:
        """Closes the connections whose handshakes have not ended."""
        for one in list(self.running):
            one.abort()


class _Begun(ssl.SSLContext):
    """A context for one connection, the first bytes of which have been read already."""

    def __new__(cls, context: ssl.SSLContext, begun: bytes) -> "_Begun":
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, context: ssl.SSLContext, begun: bytes) -> None:
        self._context = context
        self._bytes = begun

    def wrap_bio(self, incoming: ssl.MemoryBIO, *args: Any, **settings: Any) -> ssl.SSLObject:
        incoming.write(self._bytes)
        return self._context.wrap_bio(incoming, *args, **settings)


class Handshake(asyncio.Protocol):
    """One connection until its handshake ends; then `make` makes the protocol that serves it."""

    def __init__(self, handshakes: Handshakes, make: Callable[["Handshake"], asyncio.Protocol]) -> None:
        self._of = handshakes
        self._make = make
        self.transport: asyncio.Transport | None = None
        """The TCP connection, which is below that of TLS later."""
        self._task: asyncio.Task[None] | None = None
        self._began = 0.0
        self._peer = ""
        self._served: asyncio.Protocol | None = None
        self._early: list[bytes] = []
        """The bytes that came before the handshake began, and the data that came with its end."""
        self._has_ended = False

    # how it is counted (`Connection`) ---------------------------------------------------------------

    @property
    def idle_since(self) -> float | None:
        return self._began

    @property
    def namespace(self) -> str:
        return ""

    def close_idle(self) -> None:
        self.abort()

    def end_head(self) -> None:
        self.abort()  # it has none before the handshake ends

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def unsent(self) -> int:
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    # the handshake ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        loop = asyncio.get_running_loop()
        self.transport = cast(asyncio.Transport, transport)
        self._began = loop.time()
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if isinstance(peer, tuple) else ""
        self._of.callers.opened(self, self._peer)
        self._of.running.add(self)
        self._task = loop.create_task(self._shake(self.transport), name="TLS handshake")

    async def _shake(self, transport: asyncio.Transport) -> None:
        begun, self._early = b"".join(self._early), []
        try:
            if self._has_ended:
                raise ConnectionResetError
            encrypted = await asyncio.get_running_loop().start_tls(
                transport,
                self,
                _Begun(self._of.context, begun) if begun else self._of.context,
                server_side=True,
                ssl_handshake_timeout=self._of.seconds,
            )
        except (OSError, TimeoutError, RuntimeError, TypeError) as error:
            self._of.failed(error)  # RuntimeError, TypeError: the transport was closed meanwhile
            transport.abort()
            encrypted = None
        finally:
            self._of.running.discard(self)
        if encrypted is None or self._has_ended:
            self._of.callers.closed(self, self._peer)
            return
        self._of.done += 1
        self._serve(encrypted)

    def _serve(self, encrypted: asyncio.Transport) -> None:
        served = self._served = self._make(self)
        encrypted.set_protocol(served)
        served.connection_made(encrypted)
        for data in self._early:
            served.data_received(data)
        self._early.clear()

    # what a loop tells this protocol although another one serves, as it was on its way --------------

    def data_received(self, data: bytes) -> None:
        if self._served is None:
            self._early.append(data)
        else:
            self._served.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._served is None else self._served.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._served is None:
            self._has_ended = True
        else:
            self._served.connection_lost(exc)
