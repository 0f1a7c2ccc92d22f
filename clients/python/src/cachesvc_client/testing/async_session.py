"""A double of `aiohttp.ClientSession` that hands requests to the fake service.

The client's own code makes the requests and handles answers and failures; only the way to the
service is replaced.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from cachesvc_client.testing.faults import Dropped, TooLate
from cachesvc_client.testing.feed import Subscription
from cachesvc_client.testing.http import Refused, Request, Response
from cachesvc_client.testing.responder import Responder

BEAT_SECONDS = 0.4
"""Real seconds between heartbeats; fewer than a near cache takes for a broken feed."""


class AsyncSession:
    """The session of an async client of the fake service."""

    def __init__(self, service: Responder) -> None:
        self._service = service

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        url: URL | str,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **_: Any,
    ) -> AsyncIterator[Any]:
        lowered = {name.lower(): value for name, value in (headers or {}).items()}
        request = Request(method, URL(url, encoded=True).raw_path_qs, lowered, data or b"")
        try:
            if request.target == "/v1/fences":
                yield _Stream(self._service, self._service.subscribe(request))
            else:
                yield _Answer(await self._answered(request))
        except Dropped as error:
            raise aiohttp.ClientConnectionError(str(error)) from error
        except TooLate as error:
            raise TimeoutError from error
        except Refused as refused:
            yield _Answer(refused.response(request))

    request: Any = _request

    async def _answered(self, request: Request) -> Response:
        response = self._service.respond(request)
        if response is not None:
            return response
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        leave = self._service.listen(lambda: loop.call_soon_threadsafe(changed.set))
        try:
            return await self._waited(request, changed)
        finally:
            leave()

    async def _waited(self, request: Request, changed: asyncio.Event) -> Response:
        """Asks again until another caller has filled the key, or the time to wait is over.

        The time goes by the fake clock or by the real one, whichever is over first.
        """
        loop = asyncio.get_running_loop()
        wait = self._service.wait_of(request)
        until_us, until = self._service.clock.now_us() + round(wait * 1e6), loop.time() + wait
        while True:
            is_patient = self._service.clock.now_us() < until_us and loop.time() < until
            response = self._service.respond(request, is_first=False, is_patient=is_patient)
            if response is not None:
                return response
            changed.clear()
            try:
                async with asyncio.timeout_at(until):
                    await changed.wait()
            except TimeoutError:
                continue


class _Answer:
    def __init__(self, response: Response) -> None:
        self.status = response.status
        self.headers = CIMultiDictProxy(CIMultiDict(response.headers))
        self._body = response.body

    async def read(self) -> bytes:
        return self._body


class _Stream:
    """A response whose body does not end; it is also its own `content`."""

    status = 200

    def __init__(self, service: Responder, subscription: Subscription) -> None:
        self.headers = CIMultiDictProxy(CIMultiDict({"Content-Type": "text/event-stream"}))
        self.content = self
        self._service = service
        self._subscription = subscription

    async def iter_any(self) -> AsyncIterator[bytes]:
        """Yields bytes as they come, with a heartbeat at least every `BEAT_SECONDS`."""
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        self._subscription.wake = lambda: loop.call_soon_threadsafe(told.set)
        try:
            while True:
                if taken := self._subscription.take():
                    yield taken
                if self._subscription.is_over:
                    return
                told.clear()
                try:
                    async with asyncio.timeout(BEAT_SECONDS):
                        await told.wait()
                except TimeoutError:
                    self._service.beat()
        finally:
            self._subscription.leave()
