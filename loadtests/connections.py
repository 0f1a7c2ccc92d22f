"""Measures one instance with 10,000 idle connections and 2,000 busy ones.

    python -m loadtests.connections --idle 10000 --busy 2000 --seconds 10

Real servers, one instance with the default limits, and two processes that hold the connections,
from several addresses of this machine. Each idle connection has asked once and stays. It prints

    memory       of an idle connection: what the instance grew by, per connection
    answers      per second on the busy connections, and what was answered otherwise than 200
    probes       the longest time of `/livez` meanwhile, asked five times a second
    closed       idle connections that the instance closed
"""

import argparse
import asyncio
import multiprocessing
import re
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import yaml

from cachesvc.app.descriptors import raise_descriptor_limit
from loadtests.fleet import Fleet
from loadtests.fleet_topology import one_region

ADDRESSES = [f"127.0.0.{last}" for last in range(2, 6)]
"""The addresses that the connections come from."""
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)")
AT_ONCE = 64
"""Connections that are being made at a time."""


class Caller(asyncio.Protocol):
    """One connection that asks for one key, once or all the time."""

    def __init__(self, request: bytes, found: Counter[str], *, is_busy: bool) -> None:
        self._request = request
        self._found = found
        self._is_busy = is_busy
        self._received = b""
        self.answered = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or length is None or len(body) < int(length[1]):
            return
        self._received = b""
        self._found["200" if head.startswith(b"HTTP/1.1 200 ") else "other"] += 1
        if not self.answered.done():
            self.answered.set_result(None)
        if self._is_busy:
            self._transport.write(self._request)

    def connection_lost(self, error: Exception | None) -> None:
        self._found["closed"] += 1
        if not self.answered.done():
            self.answered.set_result(None)


def _hold(port: int, count: int, pipe: Connection, *, is_busy: bool) -> None:
    """Makes the connections, then tells what they have seen whenever it is asked."""
    raise_descriptor_limit()

    async def run() -> None:
        request = f"GET /v1/pages/k HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        found: Counter[str] = Counter()
        loop, turns = asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE)

        async def connect(nth: int) -> None:
            async with turns:
                _, caller = await loop.create_connection(
                    lambda: Caller(request, found, is_busy=is_busy),
                    "127.0.0.1",
                    port,
                    local_addr=(ADDRESSES[nth % len(ADDRESSES)], 0),
                )
                await caller.answered

        await asyncio.gather(*map(connect, range(count)))
        while True:
            pipe.send(dict(found))
            if not await asyncio.to_thread(pipe.recv):
                return

    asyncio.run(run())


class Holder:
    """A process that holds connections."""

    def __init__(self, port: int, count: int, *, is_busy: bool) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(
            target=_hold, args=(port, count, theirs), kwargs={"is_busy": is_busy}, daemon=True
        )
        self.process.start()
        self.seen: dict[str, int] = self._pipe.recv()

    def look(self) -> dict[str, int]:
        """Returns what the connections have seen so far."""
        self._pipe.send(True)
        self.seen = self._pipe.recv()
        return self.seen

    def end(self) -> None:
        self._pipe.send(False)
        self.process.join()


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the figures; returns 0 if all was answered and no idle connection was closed."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--idle", type=int, default=10_000)
    options.add_argument("--busy", type=int, default=2_000)
    options.add_argument("--seconds", type=float, default=10.0)
    asked = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "document.yaml")
        source.write_text(yaml.safe_dump(one_region(["a"], ttl="30m", jitter=0)))
        with Fleet(source, Path(folder, "run")) as fleet:
            return _measure(fleet, asked.idle, asked.busy, asked.seconds)


def _measure(fleet: Fleet, idle_count: int, busy_count: int, seconds: float) -> int:
    url, pid = fleet.url("a"), fleet.instances["a"].pid
    port = int(url.rpartition(":")[2])
    while True:
        with suppress(HTTPError), urlopen(Request(f"{url}/v1/pages/k", b"v" * 500, method="PUT")):
            break  # cells that are new wait a little
    before = _resident_bytes(pid)
    idle = Holder(port, idle_count, is_busy=False)
    grown = _resident_bytes(pid) - before
    busy = Holder(port, busy_count, is_busy=True)
    first, began, longest = busy.look(), time.monotonic(), 0.0
    while time.monotonic() - began < seconds:
        asked_at = time.monotonic()
        with urlopen(f"{url}/livez", timeout=30):
            longest = max(longest, time.monotonic() - asked_at)
        time.sleep(0.2)
    last, took = busy.look(), time.monotonic() - began
    closed = idle.look().get("closed", 0)
    others = last.get("other", 0) + last.get("closed", 0)
    print(f"memory of an idle connection: {grown / max(idle_count, 1):,.0f} bytes ({idle_count:,} of them)")
    print(
        f"answers: {(last['200'] - first['200']) / took:,.0f} per second; {others} others ({busy_count:,} busy)"
    )
    print(f"probes: {longest * 1000:,.0f} ms at most")
    print(f"closed: {closed} idle connections")
    busy.end()
    idle.end()
    return int(bool(others or closed))


def _resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has no VmRSS")


if __name__ == "__main__":
    raise SystemExit(main())
