"""A TCP proxy whose links can be broken: it stands between some instances and a server.

    python -m tests.faults.proxy 25000 us-sees-eu-1=25001:26101 …

The arguments are the control port, and name=listen:target of each link.

The proxy is a process of its own, so that neither a busy test nor a stopped one slows the
traffic. It obeys one `Order` per line on its control port and answers each with `Passed`. A
direction of a link is in one of these modes:

    open   bytes pass, after `delay_ms` and up to `jitter_ms` more, in order. Of the pieces in which
           they come, the share `loss` is late by the time in which TCP notices a loss and sends a
           packet again, and what comes behind it on its connection with it
    hold   bytes wait and are delivered when the link opens, also those of a caller that hung up
           meanwhile, as a network would do: a write that was given up arrives late
    lose   bytes are dropped; connections that lost some are reset when the link opens
    cut    connections are reset, and so is every new one; this concerns both directions
"""

import asyncio
import random
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Literal

import msgspec
import uvloop
from msgspec import Struct

CHUNK = 1 << 16
MOST_ON_THE_WAY = 1024
"""Pieces that are on the way at once, for each connection and direction."""
RESENT_AFTER_SECONDS = 0.2
"""TCP sends a packet again after so long and a round trip (Linux, `TCP_RTO_MIN`)."""

Mode = Literal["open", "hold", "lose", "cut"]


class Order(Struct, forbid_unknown_fields=True):
    """A command for one link."""

    link: str
    mode: Mode = "open"
    way: Literal["both", "up", "down"] = "both"
    """`up` is the direction from the client to the server."""
    delay_ms: float = 0
    jitter_ms: float = 0
    loss: float = 0
    to: int = 0
    """The port that new connections lead to, as when a name moves; 0: the link's own server."""


class Passed(Struct, frozen=True):
    """Counts of a link since it was made."""

    connections: int
    up: int
    """Bytes that came from clients, delivered or not."""
    down: int
    refused: int
    """Connections that were reset because the link was cut."""
    stopped: int
    """Bytes that were held or lost."""


class Way:
    """One direction of a link, for all its connections."""

    def __init__(self) -> None:
        self._mode: Mode = "open"
        self._delay = self._jitter = self._loss = 0.0
        self._dice = random.Random(1)
        self._opened = asyncio.Event()
        self._opened.set()
        self.bytes = self.stopped = 0

    def set(self, order: Order) -> None:
        """Sets the mode, the delay, and what makes some pieces later."""
        self._mode, mode = order.mode, order.mode
        self._delay, self._jitter, self._loss = order.delay_ms / 1000, order.jitter_ms / 1000, order.loss
        if mode in ("hold", "lose"):
            self._opened.clear()
        else:
            self._opened.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries bytes until the sender has ended.

        Raises `ConnectionError` when some of its bytes were lost.
        """
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MOST_ON_THE_WAY)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._take(reader, on_the_way))
            both.create_task(self._deliver(on_the_way, writer))

    async def _take(
        self, reader: asyncio.StreamReader, on_the_way: "asyncio.Queue[tuple[float, bytes]]"
    ) -> None:
        """Puts pieces on the way, each with the time when it is there; the last one is empty."""
        due = 0.0
        while True:
            chunk = await reader.read(CHUNK)
            self.bytes += len(chunk)
            due = max(due, asyncio.get_running_loop().time() + self._seconds())
            await on_the_way.put((due, chunk))
            if not chunk:
                return

    async def _deliver(
        self, on_the_way: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter
    ) -> None:
        while True:
            due, chunk = await on_the_way.get()
            if (left := due - asyncio.get_running_loop().time()) > 0:
                await asyncio.sleep(left)
            await self._pass(len(chunk))
            if not chunk:
                writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()

    def _seconds(self) -> float:
        """Returns the time that the next piece takes."""
        seconds = self._delay + self._dice.uniform(0, self._jitter)
        while self._loss and self._dice.random() < self._loss:
            seconds += RESENT_AFTER_SECONDS + 2 * self._delay
        return seconds

    async def _pass(self, size: int) -> None:
        """Returns when the bytes may pass: at once if the direction is open.

        The end of a stream (size 0) is held back and lost like its bytes.
        """
        if self._opened.is_set():
            return
        self.stopped += size
        is_lost = self._mode == "lose"
        await self._opened.wait()
        if is_lost:
            raise ConnectionResetError("lost on the way")  # the caller resets both ends


class Link:
    """A listening port and the server that it leads to."""

    def __init__(self, target: int) -> None:
        self._target = self._leads_to = target
        self._is_cut = False
        self._up, self._down = Way(), Way()
        self._open: set[asyncio.StreamWriter] = set()
        self._connections = self._refused = 0

    async def listen(self, port: int) -> asyncio.Server:
        """Listens at this port."""
        return await asyncio.start_server(self._serve, "127.0.0.1", port)

    def obey(self, order: Order) -> Passed:
        """Changes the link as ordered; returns its counts."""
        self._is_cut = order.mode == "cut"
        self._leads_to = order.to or self._target
        for name, way in (("up", self._up), ("down", self._down)):
            if order.way in ("both", name):
                way.set(order)
        if self._is_cut:
            for writer in self._open:
                _reset(writer)
        stopped = self._up.stopped + self._down.stopped
        return Passed(self._connections, self._up.bytes, self._down.bytes, self._refused, stopped)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            self._refused += 1
            _reset(writer)
            return
        self._connections += 1
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._leads_to)
        except OSError:
            _reset(writer)
            return
        ends = {writer, server_writer}
        self._open |= ends
        try:
            # A failure of either direction ends both. After the end of one direction the other one still
            # carries its answers.
            async with asyncio.TaskGroup() as both:
                both.create_task(self._up.carry(reader, server_writer))
                both.create_task(self._down.carry(server_reader, writer))
        except* OSError:
            for end in ends:
                _reset(end)
        finally:
            self._open -= ends
            for end in ends:
                end.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Resets a connection: the other side sees no orderly end, and unsent bytes are dropped."""
    if writer.transport.is_closing():  # it was reset before
        return
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def obey(links: Mapping[str, Link], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Obeys the orders of one control connection."""
    while line := await reader.readline():
        order = msgspec.json.decode(line, type=Order)
        writer.write(msgspec.json.encode(links[order.link].obey(order)) + b"\n")
        await writer.drain()
    writer.close()


async def main(control: int, specified: list[str]) -> None:
    """Runs until it is killed."""
    links: dict[str, Link] = {}
    servers = []
    for one in specified:
        name, _, ports = one.partition("=")
        listen, target = map(int, ports.split(":"))
        links[name] = Link(target)
        servers.append(await links[name].listen(listen))
    servers.append(
        await asyncio.start_server(lambda reader, writer: obey(links, reader, writer), "127.0.0.1", control)
    )
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2:]))
