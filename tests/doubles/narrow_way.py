"""A narrow way to a server: so many bytes per second, in each direction of a connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

PIECE_BYTES = 1 << 16
LATE_SECONDS = 0.1
"""A busy machine that forwards a piece so late at most makes up for it with the next ones."""


@asynccontextmanager
async def narrow_way(port: int, bytes_per_second: float) -> AsyncIterator[int]:
    """Leads to a server on this machine. Yields the port of the near end."""
    tasks: set[asyncio.Task[None]] = set()

    async def passing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        free_at = 0.0
        with suppress(ConnectionError):
            while piece := await reader.read(PIECE_BYTES):
                writer.write(piece)
                await writer.drain()
                free_at = max(free_at, loop.time() - LATE_SECONDS) + len(piece) / bytes_per_second
                await asyncio.sleep(free_at - loop.time())
        writer.close()

    async def connected(near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        far, to_far = await asyncio.open_connection("127.0.0.1", port)
        for reader, writer in ((near, to_far), (far, to_near)):
            task = asyncio.create_task(passing(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
