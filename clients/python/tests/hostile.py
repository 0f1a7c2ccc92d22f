"""An instance that misbehaves: a small server over real sockets, on a thread of its own."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Self

from cachesvc_client.instances.region import TOPOLOGY_PATH

PATIENCE = 10.0
"""Seconds a test waits for what must come at once."""


def answer(status: str, body: bytes = b"{}") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def probes_only(path: str) -> bytes | None:
    return answer("200 OK") if path == TOPOLOGY_PATH else None


class Hostile:
    """Takes connections and requests, and answers what `answers` says: None is silence."""

    def __init__(self, answers: Callable[[str], bytes | None] = probes_only) -> None:
        self.answers = answers
        self.asked: list[str] = []
        """The paths of callers' requests, in the order in which they came."""
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hostile", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        ended = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1].decode()
                lengths = [
                    line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
                ]
                await reader.readexactly(int(lengths[0].partition(b":")[2]) if lengths else 0)
                if path != TOPOLOGY_PATH:
                    self.asked.append(path)
                if (said := self.answers(path)) is not None:
                    writer.write(said)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)


def is_proven(cache: Any) -> bool:
    """True if the client knows its instances, and nothing speaks against any of them."""
    region = cache._region
    return bool(region._instances) and all(endpoint.is_clean for endpoint in region.candidates(0.0))
