"""Requests over HTTP: deadline, failover, and problem documents as `CacheError`.

A request that no instance took, or whose connection broke, is sent to the next one within the same deadline. That holds for
writes as well: applying one twice costs misses and nothing else. An answer, even 503, is an answer and is not tried elsewhere,
as that would pass an overload on; nor is a request that ran out of time.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

import aiohttp
import msgspec
from multidict import CIMultiDictProxy
from yarl import URL

from cachesvc_client.durations import header_of
from cachesvc_client.endpoints import Endpoint, Endpoints
from cachesvc_client.errors import CacheError
from cachesvc_client.wire import PROBLEM_TYPES, Problem

_decode_problem = msgspec.json.Decoder(Problem).decode


class Reply(NamedTuple):
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class Session(Protocol):
    """What is used of an `aiohttp.ClientSession`: one that is passed in, or a stand-in (`cachesvc_client.testing`)."""

    @property
    def request(self) -> Callable[..., AbstractAsyncContextManager[aiohttp.ClientResponse]]: ...


class Transport:
    """One HTTP session. To be opened on the loop it is used on."""

    def __init__(
        self, urls: Sequence[URL], *, connect_timeout: float, max_connections: int, session: Session | None = None
    ) -> None:
        """`session`: used instead of one of its own, and left open."""
        self._endpoints = Endpoints(urls)
        self._connect_timeout = connect_timeout
        self._max_connections = max_connections
        self._given = session
        self._own: aiohttp.ClientSession | None = None
        self._session: Session | None = None
        self.requests = 0
        self.failovers = 0

    def open(self) -> None:
        if self._given is not None:
            self._session = self._given
            return
        self._session = self._own = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._max_connections),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout),
            headers={"User-Agent": "cachesvc-client/0.1"},
            skip_auto_headers=("Accept-Encoding", "Accept"),
        )

    async def close(self) -> None:
        self._session = None
        if self._own is not None:
            session, self._own = self._own, None
            await session.close()

    @property
    def is_open(self) -> bool:
        return self._session is not None

    async def post(
        self, path: str, body: bytes, content_type: str, deadline: float, headers: dict[str, str] | None = None
    ) -> Reply:
        """`path` is one of few. Raises `CacheError`."""
        return await self._sent("POST", path, body, content_type, deadline, headers)

    async def send(self, method: str, path: str, deadline: float, headers: dict[str, str] | None = None) -> Reply:
        """A request without a body. Raises `CacheError`."""
        return await self._sent(method, path, None, "", deadline, headers)

    async def _sent(
        self, method: str, path: str, body: bytes | None, content_type: str, deadline: float, extra: dict[str, str] | None = None
    ) -> Reply:
        """The reply of the first instance that gives one before `deadline`, a time on the loop's clock."""
        session = self._session
        if session is None:
            raise CacheError("closed", "the cache is not open: use it inside `async with`")
        loop = asyncio.get_running_loop()
        failure: Exception | None = None
        try:
            async with asyncio.timeout_at(deadline):
                for endpoint in self._attempts(loop.time()):
                    headers = {"Cachesvc-Timeout": header_of(_told(deadline - loop.time())), **(extra or {})}
                    if content_type:
                        headers["Content-Type"] = content_type
                    url = endpoint.url(path) if body is None else endpoint.batch_url(path)
                    self.requests += 1
                    try:
                        async with session.request(method, url, data=body, headers=headers, allow_redirects=False) as response:
                            reply = Reply(response.status, response.headers, await response.read())
                    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
                        failure = error
                        self.failovers += 1
                        endpoint.failed(loop.time())
                    else:
                        endpoint.worked()
                        return reply
        except TimeoutError:
            raise CacheError("deadline", f"no answer to {method} {path[:200]} in time", retryable=True) from failure
        except aiohttp.ClientError as error:
            raise CacheError("bad-answer", f"{type(error).__name__}: {error}") from error
        raise CacheError("unreachable", f"no instance took {method} {path[:200]}: {failure}", retryable=True) from failure

    def _attempts(self, now: float) -> list[Endpoint]:
        """Each instance once, and the first once more: a kept connection that the server has just closed says nothing of it."""
        candidates = self._endpoints.candidates(now)
        return [*candidates, candidates[0]]


def problem_error(reply: Reply) -> CacheError:
    """The error that a reply other than 2xx stands for."""
    try:
        problem = _decode_problem(reply.body)
    except msgspec.MsgspecError:
        problem = Problem(detail=f"status {reply.status} without a problem document", retryable=reply.status >= 500)
    error = error_of(problem, reply.status)
    error.retry_after = _seconds_or_none(reply.headers.get("Retry-After"))
    error.request_id = problem.request_id or reply.headers.get("X-Request-Id", "")
    return error


def error_of(problem: Problem | None, status: int = 0) -> CacheError:
    problem = problem or Problem(detail="an error without a problem document", status=500)
    return CacheError(
        problem.type.removeprefix(PROBLEM_TYPES) or "bad-answer",
        problem.detail or problem.title,
        status=status or problem.status,
        retryable=problem.retryable,
        request_id=problem.request_id,
        field=problem.field,
    )


def _told(seconds: float) -> float:
    """What the service is told of the time that is left: a little less, so that its partial answer still arrives in time."""
    return max(seconds * 0.9, seconds - 0.05)


def _seconds_or_none(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() else None
