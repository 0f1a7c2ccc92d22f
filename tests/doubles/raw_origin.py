"""`RawOrigin`: an origin that writes exactly the bytes that a test gives it, however
wrong.

It keeps the requests that it saw.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum


class Then(Enum):
    """The fate of the connection after an answer."""

    KEEP = "wait for the next request"
    CLOSE = "close it"
    HANG = "say nothing more"


Body = Callable[[], AsyncIterable[bytes]]


def http(status: int = 200, body: bytes = b"", *headers: str, length: bool = True) -> bytes:
    """A well-formed answer as bytes; tests make it wrong."""
    lines = [f"HTTP/1.1 {status} Whatever", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class RawOrigin:
    """Answers every request with `answer`, then with what `stream` yields, then does `then`."""

    def __init__(self) -> None:
        self.answer = http()
        self.stream: Body | None = None
        self.then = Then.KEEP
        self.requests: list[str] = []
        """The head of each request, as a whole."""
        self.connections = 0
        self.open = 0
        self.url = ""
        self._changed = asyncio.Event()

    @property
    def targets(self) -> list[str]:
        """The request targets, as they arrived."""
        return [head.split(" ")[1] for head in self.requests]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits until `holds`, which is called again when requests or connections change."""
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection."""
        self.connections += 1
        self.open += 1
        try:
            while True:
                self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
                self._changed.set()
                await self._write(writer)
                if self.then is Then.CLOSE:
                    break
                if self.then is Then.HANG:
                    await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client left
        finally:
            self.open -= 1
            self._changed.set()
            writer.close()

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self.answer)
        if self.stream is not None:
            async for chunk in self.stream():
                writer.write(chunk)
                await writer.drain()


@asynccontextmanager
async def raw_origin() -> AsyncIterator[RawOrigin]:
    """A running origin."""
    origin = RawOrigin()
    server = await asyncio.start_server(origin.serve, "127.0.0.1", 0)
    origin.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield origin
    finally:
        server.close()
