"""The fake service on a thread of its own, for clients that block."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from aiohttp import web
from cachesvc_client.instances.region import TOPOLOGY_PATH

from clients.python.tests.fake_service import FakeService
from clients.python.tests.sync.callers import PATIENCE

T = TypeVar("T")


class ServiceWithTopology(FakeService):
    """Requests for the topology are answered at once and not recorded: when they come is the client's own affair."""

    def __init__(self) -> None:
        super().__init__()
        self.topology: dict[str, Any] = {"version": 1, "regions": {}}

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == TOPOLOGY_PATH and self.tokens is None:
            return web.json_response(self.topology)
        return await super()._handle(request)


class ThreadedService:
    """`fake` may be read and changed from the test's thread, except for its gate and what waits."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake service", daemon=True)
        self.fake = ServiceWithTopology()

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return self.fake.url

    def start(self, port: int = 0) -> None:
        self._run(self.fake.start(port))

    def stop(self) -> None:
        self._run(self.fake.stop())

    def shut_gate(self) -> None:
        self.fake.gate.clear()

    def begin_load(self, key: str) -> None:
        self.fake.slow[key] = asyncio.Event()

    def end_load(self, key: str) -> None:
        self._loop.call_soon_threadsafe(self.fake.slow[key].set)

    def open_gate(self) -> None:
        self._loop.call_soon_threadsafe(self.fake.gate.set)

    def await_arrivals(self, number: int = 1) -> None:
        for _ in range(number):
            self._run(self._arrival())

    async def _arrival(self) -> None:
        await self.fake.arrived.acquire()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)
