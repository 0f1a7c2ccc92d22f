"""The questions that workers of one host ask each other, so that each can answer for all.

Each listens on a socket that only processes of the same user on this machine may ask: the name is
in Linux' abstract namespace, so nothing is left on a disk. One question per connection:

    metrics ACCEPT    the text of the worker's metrics, in the format for this `Accept`
    readiness         `/readyz?verbose` of the worker, as JSON
    fences REGION P   the items of the region's `fences` that follow the position P, in frames, as
                      they come (`changes/relay/`): the first worker reads them for all
"""

import asyncio
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp.web import BaseRequest

from cachesvc.changes.relay.relay import Relay
from cachesvc.changes.relay.wires import connect
from cachesvc.config.service import Server
from cachesvc.config.workers import Worker, socket_of
from cachesvc.telemetry.metrics.merged import merged
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.web.contract import Readiness

ANSWER_SECONDS = 2.0
"""How long the others have for their answers. Then one is left out, and named as silent."""
_SIZE = struct.Struct(">I")
"""The size of an answer, in bytes, which precedes it."""
_PEER = struct.Struct("3i")
"""`struct ucred` of Linux: process, user, group."""


class Host:
    """The host of one worker.

    `start` and `stop` are called once each, on the loop that serves.
    """

    def __init__(
        self,
        worker: Worker,
        server: Server,
        readiness: Readiness,
        metrics: Metrics,
        relays: Mapping[str, Relay],
    ) -> None:
        """`relays`: what other workers may follow here, by region."""
        self._relays = relays
        self._worker = worker
        self._ports = {server.port, server.operations.port}
        self._readiness = readiness
        self._metrics = metrics
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        return f"<Host {self._worker.host} [{len(self._worker.names)} workers]>"

    async def start(self) -> None:
        """Begins to answer the other workers."""
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(socket_of(self._worker, self._worker.number))
        listening.setblocking(False)
        self._server = await asyncio.start_unix_server(self._answer, sock=listening)

    async def stop(self) -> None:
        """Ends answering."""
        if self._server is not None:
            self._server.close()

    # what one worker answers for all -----------------------------------------------------------------

    def is_asked(self, request: BaseRequest) -> bool:
        """Returns whether the request came to a port that the workers share."""
        transport = request.transport
        here = transport.get_extra_info("sockname") if transport is not None else None
        return isinstance(here, tuple) and here[1] in self._ports

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """Returns the metrics of all workers that answer, and the content type.

        Each series has the label `worker`, the number.
        """
        own, content_type = await self._metrics.exposition(accept)
        texts = await self._ask(f"metrics {accept}", own)
        return merged({str(number): text for number, text in texts.items() if text}, "worker"), content_type

    async def readiness(self) -> tuple[bool, Mapping[str, object]]:
        """Returns whether one worker at least may be sent requests, and the reasons of each."""
        texts = await self._ask("readiness", self._told())
        workers: dict[str, Any] = {
            name: msgspec.json.decode(texts[number]) if texts[number] else None
            for number, name in enumerate(self._worker.names)
        }
        troubles = [f"worker {name} does not answer" for name, found in workers.items() if found is None]
        for found in workers.values():
            troubles += [one for one in (found or {}).get("troubles", ()) if one not in troubles]
        is_ready = any(found is not None and found["ready"] for found in workers.values())
        return is_ready, {"troubles": troubles, "instance": self._worker.host, "workers": workers}

    async def _ask(self, question: str, own: bytes) -> Mapping[int, bytes]:
        """Returns the answer of each worker by number; an empty one of a worker that is silent."""
        numbers = range(len(self._worker.names))
        found: Sequence[bytes] = await asyncio.gather(
            *(self._asked(number, question, own) for number in numbers)
        )
        return dict(zip(numbers, found, strict=True))

    async def _asked(self, number: int, question: str, own: bytes) -> bytes:
        if number == self._worker.number:
            return own
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await connect(socket_of(self._worker, number))
                try:
                    writer.write(f"{question}\n".encode())
                    (size,) = _SIZE.unpack(await reader.readexactly(_SIZE.size))
                    return await reader.readexactly(size)
                finally:
                    writer.close()
        except (OSError, EOFError):  # it is away, took too long, or ended meanwhile
            return b""

    # what one worker tells the others ---------------------------------------------------------------

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ValueError):  # one that asks has left, or does not speak this
            if _user_of(writer) == os.getuid():
                async with asyncio.timeout(ANSWER_SECONDS):
                    question, _, rest = (await reader.readline()).decode().rstrip("\n").partition(" ")
                    if question != "fences":
                        text = self._told()
                        if question == "metrics":
                            text, _ = await self._metrics.exposition(rest)
                        writer.write(_SIZE.pack(len(text)) + text)
                        await writer.drain()
                if question == "fences":
                    region, _, position = rest.partition(" ")
                    await self._hand_on(region, position, writer)
        writer.close()

    async def _hand_on(self, region: str, position: str, writer: asyncio.StreamWriter) -> None:
        """Writes what follows the position, for as long as the worker at the other end takes it."""
        if (relay := self._relays.get(region)) is None:
            return
        following = relay.follow(position)
        try:
            while piece := await following.next():
                writer.write(piece)
                await writer.drain()
        finally:
            following.close()

    def _told(self) -> bytes:
        ready, reasons = self._readiness()
        return msgspec.json.encode({"ready": ready, **reasons})


def _user_of(writer: asyncio.StreamWriter) -> int:
    """Returns the id of the user whose process is at the other end."""
    link: socket.socket = writer.get_extra_info("socket")
    told = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return int(_PEER.unpack(told)[1])
