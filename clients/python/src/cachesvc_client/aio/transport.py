"""Requests over HTTP: deadline, failover, retries.

A request that no instance took, or whose connection broke, is sent to the next one at once, within
the same deadline. That holds for writes as well: applying one twice costs misses and nothing else.
An answer, even 503, is an answer and is not tried elsewhere, as that would pass an overload on. It
may be tried again after a pause, if the request may be repeated (retries.py).
"""

import asyncio
import logging
import random

import aiohttp

from cachesvc_client.aio.clean_connector import CleanConnector
from cachesvc_client.aio.session import Session
from cachesvc_client.errors import CacheError
from cachesvc_client.instances.endpoints import Endpoint
from cachesvc_client.instances.profiles import Profile
from cachesvc_client.instances.region import TOPOLOGY_PATH, Region
from cachesvc_client.instances.retries import Backoff
from cachesvc_client.requests.http import Reply, Request, passing_failure
from cachesvc_client.tracing.spans import Call, request_span, tell_server
from cachesvc_client.tracing.traceparent import Traceparent, trace_headers

log = logging.getLogger(__name__)

REFRESH_TIMEOUT = 5.0
"""Seconds for the list of instances, which nobody waits for."""

UNBATCHED_CONNECTIONS = 0
"""No limit: unbatched, every caller needs a connection, and would queue for it unseen."""


class Transport:
    """One HTTP session. To be opened on the loop it is used on."""

    def __init__(
        self,
        region: Region,
        profile: Profile,
        *,
        max_connections: int,
        traceparent: Traceparent,
        session: Session | None = None,
    ) -> None:
        """`session`: used instead of one of its own, and left open."""
        self._region = region
        self._refreshing: asyncio.Task[None] | None = None
        self._connect_timeout = profile.connect_timeout
        self._max_connections = max_connections
        self._traceparent = traceparent
        self._backoff = Backoff(profile.retries, random.Random())  # noqa: S311  spreads load, guards nothing
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
            connector=CleanConnector(limit=self._max_connections),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout),
            headers={"User-Agent": "cachesvc-client/0.1"},
            skip_auto_headers=("Accept-Encoding", "Accept"),
        )

    def check_movable(self) -> None:
        """Raises `CacheError` (`other-loop`) if the session that was given is of one loop only."""
        if isinstance(self._given, aiohttp.ClientSession):
            raise CacheError(
                "other-loop", "the session= of this cache belongs to another event loop: leave it out"
            )

    def abandon(self) -> tuple[aiohttp.ClientSession | None, list[asyncio.Task[None]]]:
        """Returns the session and the tasks of a loop that is left; they end there, or never."""
        own, self._own, self._session = self._own, None, None
        refreshing, self._refreshing = self._refreshing, None
        return own, [] if refreshing is None else [refreshing]

    async def close(self) -> None:
        self._session = None
        if self._refreshing is not None and not self._refreshing.done():
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])
            self._refreshing = None  # the next `open` may be on another loop
        if self._own is not None:
            session, self._own = self._own, None
            await session.close()

    @property
    def session(self) -> Session | None:
        """The session in use; None while the client is not open."""
        return self._session

    @property
    def is_open(self) -> bool:
        return self._session is not None

    @property
    def retries(self) -> int:
        return self._backoff.granted

    @property
    def sole_home(self) -> Endpoint | None:
        """The instance to ask for any key, if there is but one."""
        return self._region.sole

    def home(self, key_digest: int) -> Endpoint:
        """The instance to ask for a key."""
        return self._region.home(key_digest, asyncio.get_running_loop().time())

    def _refresh_if_due(self) -> None:
        """Asks for the list of instances if it is old; no call waits for that."""
        now = asyncio.get_running_loop().time()
        if self._region.is_due(now) and self._session is not None:
            self._region.asked(now)
            self._refreshing = asyncio.create_task(self._refresh(self._session, now), name="cache topology")

    async def _refresh(self, session: Session, now: float) -> None:
        url = self._region.sources(now)[0].url(TOPOLOGY_PATH)
        try:
            async with (
                asyncio.timeout(REFRESH_TIMEOUT),
                session.request("GET", url, allow_redirects=False) as response,
            ):
                if response.status == 200:
                    self._region.learn(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            log.debug("the topology could not be had from %s: %r", url, error)
            self._region.failed()

    async def send(self, request: Request, deadline: float, home: Endpoint | None = None) -> Reply:
        """Returns the reply of `home`, or of the next instance that gives one before `deadline`.

        `deadline` is a time on the loop's clock. A request that may be repeated is retried within
        it. Raises `CacheError`.
        """
        self._refresh_if_due()
        self._backoff.begin()
        retry = 0
        while True:
            try:
                with request_span(request.operation, items=request.items) as span:
                    reply = await self._sent(request, deadline, home, span)
            except CacheError as error:
                pause = self._pause(request, error, retry, deadline)
                if pause is None:
                    raise
            else:
                failure = passing_failure(reply)
                pause = None if failure is None else self._pause(request, failure, retry, deadline)
                if pause is None:
                    return reply
            await asyncio.sleep(pause)
            retry += 1

    def _pause(self, request: Request, failure: CacheError, retry: int, deadline: float) -> float | None:
        if not request.is_repeatable:
            return None
        return self._backoff.pause(failure, retry, deadline - asyncio.get_running_loop().time())

    async def _sent(
        self, request: Request, deadline: float, home: Endpoint | None, span: Call | None
    ) -> Reply:
        """Makes one try: returns the reply of the first instance that gives one."""
        session = self._session
        if session is None:
            raise CacheError("closed", "the cache is not open: use it inside `async with`")
        loop = asyncio.get_running_loop()
        headers = {**request.headers, **trace_headers(self._traceparent)}
        failure: Exception | None = None
        asked_at = loop.time()
        asked: Endpoint | None = None
        try:
            async with asyncio.timeout_at(deadline):
                for endpoint in self._region.attempts(loop.time(), home):
                    headers["Cachesvc-Timeout"] = request.timeout_header(deadline - loop.time())
                    url = request.url_at(endpoint)
                    self.requests += 1
                    asked, asked_at = endpoint, loop.time()
                    try:
                        async with session.request(
                            request.method, url, data=request.body, headers=headers, allow_redirects=False
                        ) as response:
                            reply = Reply(response.status, response.headers, await response.read())
                    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
                        failure = error
                        self.failovers += 1
                        endpoint.failed(loop.time(), error)
                        self._region.failed()
                    else:
                        endpoint.worked()
                        tell_server(span, endpoint.base.host or "", endpoint.base.port, reply.status)
                        return reply
        except TimeoutError:
            if asked is not None:
                asked.left_unanswered(loop.time(), loop.time() - asked_at)
            raise request.not_answered() from failure
        except aiohttp.ClientError as error:
            raise CacheError("bad-answer", f"{type(error).__name__}: {error}") from error
        raise request.not_taken(failure) from failure
