"""A tour of the tiers in one process, on embedded servers and a reference origin.

Run it with `make demo`. Each step is a real HTTP request, and its answer is checked, so the tour
is a test as well. The exit code is 0 if every step answered as it must.
"""

import asyncio
import os
import sys
import tempfile

import aiohttp
import uvloop
from msgspec.structs import replace

from cachesvc.app.embedded.set_up import Embedded, embedded
from cachesvc.app.instance import App
from cachesvc.config.service import Server, Service
from cachesvc.config.topology import Namespace, Origin
from cachesvc.model.entry import Key
from loadtests.origin import ReferenceOrigin

KEY = "{ws-7}:block:42"
ONLY_IF_CACHED = {"Cache-Control": "only-if-cached"}


class Tour:
    """The steps of the tour, over HTTP. `failed` counts the steps with a wrong answer."""

    def __init__(self, app: App, servers: Embedded, http: aiohttp.ClientSession, base: str) -> None:
        self._app = app
        self._servers = servers
        self._http = http
        self._url = f"{base}/v1/docs/{KEY}"
        self._base = base
        self.failed = 0

    async def until_ready(self) -> None:
        """Waits until the service is ready, but for no more than about 5 s."""
        for _ in range(100):
            async with self._http.get(f"{self._base}/readyz") as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.05)

    async def walk(self) -> None:
        """Runs the steps in order."""
        await self._read("nothing is cached yet (only-if-cached)", 504, "fwd=uri-miss", ONLY_IF_CACHED)
        await self._read(
            "miss: loaded from the origin, kept in every tier", 200, "cachesvc-l3; fwd=uri-miss; stored"
        )
        await self._read("L1 hit", 200, "cachesvc-l1; hit")
        self._app.paths.l1.clear()
        await self._read("L2 hit, after L1 was dropped", 200, "cachesvc-l2; hit")
        self._app.paths.l1.clear()
        await self._restart_memcached()
        lost = (
            "memcached was restarted empty"
            if self._servers.memcached
            else "the stand-in for memcached lost it"
        )
        await self._read(f"L3 hit, after {lost}", 200, "cachesvc-l3; hit")
        await self._invalidate()
        await self._read("miss: every copy is refused (only-if-cached)", 504, "cachesvc-l1", ONLY_IF_CACHED)
        await self._read("loaded again", 200, "stored")

    async def _read(self, what: str, status: int, part: str, headers: dict[str, str] | None = None) -> None:
        async with self._http.get(self._url, headers=headers) as response:
            await response.read()
            told = response.headers.get("Cache-Status", "(no Cache-Status)")
            held = response.status == status and part in told
        self._tell(held, what, f"{response.status}  Cache-Status: {told}")

    async def _invalidate(self) -> None:
        async with self._http.post(
            f"{self._base}/v1/invalidations", json={"namespace": "docs", "keys": [KEY]}
        ) as response:
            receipt = await response.json()
        self._tell(
            response.status == 200 and bool(receipt.get("applied")),
            "invalidate",
            f"{response.status}  receipt {receipt.get('id')}",
        )

    async def _restart_memcached(self) -> None:
        server = self._servers.memcached
        if server is not None:
            await asyncio.to_thread(server.restart)
            await self._until_l2_answers()
        else:
            await self._app.remote.l2.delete_many([Key.of("docs", KEY)])

    async def _until_l2_answers(self) -> None:
        """Reads until L2 answers again.

        The breaker of the restarted memcached server closes only with its next probe.
        """
        for attempt in range(100):
            async with self._http.put(f"{self._base}/v1/pages/probe-{attempt}", data=b"x"):
                pass
            self._app.paths.l1.clear()
            async with self._http.get(f"{self._base}/v1/pages/probe-{attempt}") as response:
                await response.read()
                if "cachesvc-l2; hit" in response.headers.get("Cache-Status", ""):
                    return
            await asyncio.sleep(0.1)

    def _tell(self, held: bool, what: str, told: str) -> None:
        self.failed += not held
        print(f"{'ok  ' if held else 'NOT '} {what}\n       {told}")


async def main() -> int:
    """Starts the origin and the service, runs the tour; the process's exit code."""
    service = Service(instance="demo", server=Server(port=0))
    origin = ReferenceOrigin()
    await origin.start()
    with tempfile.TemporaryDirectory(prefix="cachesvc-demo-") as runtime:
        servers = await embedded(service, {**os.environ, "XDG_RUNTIME_DIR": runtime})
        docs = Namespace(owner="demo", origin=Origin(url=origin.template))
        topology = replace(servers.topology, namespaces={**servers.topology.namespaces, "docs": docs})
        print("\n".join(servers.lines), f"\norigin: {origin.template}\n")
        app = App(service, topology)
        try:
            port = await app.start()
            try:
                async with aiohttp.ClientSession() as http:
                    tour = Tour(app, servers, http, f"http://127.0.0.1:{port}")
                    await tour.until_ready()
                    await tour.walk()
            finally:
                await app.stop()
        finally:
            await servers.stop()
            await origin.stop()
    print(f"\n{tour.failed} steps did not hold" if tour.failed else "\nevery step held", end="; ")
    print(f"the origin was asked {origin.stats().loads} times")
    return 1 if tour.failed else 0


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
