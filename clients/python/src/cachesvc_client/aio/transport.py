"""Requests over HTTP: deadline, failover, retries.

    no instance took it, or its connection broke   → the next one at once, in the same deadline
    no answer within its share of the time         → the next one, if it has tries left
                                                     (`Request.tries`), and one is well
    an answer, even 503                            → an answer, and not tried elsewhere, as that
                                                     would pass an overload on; after a pause it
                                                     may be tried again (retries.py)
    a read of one key, late at the end of a share  → asked again at the instance that said so, for
                                                     all of the time that is left

The first line holds for writes as well: applying one twice costs misses and nothing else. The share
tells a hung instance from a slow origin: the instance was told it, and answers within it.
"""

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Coroutine

import aiohttp

from cachesvc_client.aio.bearer import Bearer
from cachesvc_client.aio.clean_connector import CleanConnector
from cachesvc_client.aio.session import Session
from cachesvc_client.errors import CacheError
from cachesvc_client.instances.endpoints import PROBE_SECONDS, Endpoint
from cachesvc_client.instances.profiles import Profile
from cachesvc_client.instances.region import TOPOLOGY_PATH, Region
from cachesvc_client.instances.retries import Backoff
from cachesvc_client.requests.http import Reply, Request, is_late_reply, passing_failure, says_it_stops
from cachesvc_client.tracing.spans import Call, request_span, tell_server
from cachesvc_client.tracing.traceparent import Traceparent, trace_headers

log = logging.getLogger(__name__)

REFRESH_TIMEOUT = 5.0
"""Seconds for the list of instances, which nobody waits for."""
STALLED_SECONDS = 0.05
"""A time limit that is noticed so late shows that this loop was busy.

It says nothing of the instance.
"""

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
        bearer: Bearer,
        session: Session | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`session`: used instead of one of its own, and left open. `tls` is for one of its own."""
        self._region = region
        self.bearer = bearer
        self._errands: set[asyncio.Task[None]] = set()
        """The requests of the client's own: for the list of instances, and probes."""
        # aiohttp's limit covers TLS, which takes two round trips more; urllib3's is one of each step.
        self._open_seconds = profile.connect_timeout * (3 if region.has_tls else 1)
        self._max_connections = max_connections
        self._traceparent = traceparent
        self._tls = tls
        self._backoff = Backoff(profile.retries, random.Random())  # noqa: S311  spreads load, guards nothing
        self._given = session
        self._stand_in: Session | None = None
        self._own: aiohttp.ClientSession | None = None
        self._session: Session | None = None
        self.requests = 0
        self.failovers = 0

    def open(self) -> None:
        if self._given is not None:
            self._session = self._stand_in or self._given
            return
        self._own = aiohttp.ClientSession(
            connector=CleanConnector(limit=self._max_connections, ssl=self._tls or True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._open_seconds),
            headers={"User-Agent": "cachesvc-client/0.1"},
            skip_auto_headers=("Accept-Encoding", "Accept"),
        )
        self._session = self._stand_in or self._own

    def replace_session(self, stand_in: Session | None) -> Session | None:
        """Has requests go over `stand_in` from now on; None ends that. Returns the one before."""
        before, self._stand_in = self._stand_in, stand_in
        self.bearer.known.is_off = stand_in is not None
        if self._session is not None:
            self._session = stand_in or self._given or self._own
        return before

    def check_movable(self) -> None:
        """Raises `CacheError` (`other-loop`) if the session that was given is of one loop only."""
        if isinstance(self._given, aiohttp.ClientSession):
            raise CacheError(
                "other-loop", "the session= of this cache belongs to another event loop: leave it out"
            )

    def abandon(self) -> tuple[aiohttp.ClientSession | None, list[asyncio.Task[None]]]:
        """Returns the session and the tasks of a loop that is left; they end there, or never."""
        own, self._own, self._session = self._own, None, None
        errands, self._errands = self._errands, set()
        return own, list(errands)

    async def close(self) -> None:
        self._session = None
        errands = tuple(self._errands)
        for errand in errands:
            errand.cancel()
        await asyncio.gather(*errands, return_exceptions=True)  # the next `open` may be on another loop
        await self.bearer.close()
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
        return self._region.home(key_digest, time.monotonic())

    def reader(self, key_digest: int) -> Endpoint:
        """The instance to read a key from: `home`, unless it is a hot key."""
        return self._region.reader(key_digest, time.monotonic())

    def _run_errands(self) -> None:
        """Asks for the list of instances if it is old, and probes instances. No call waits."""
        session = self._session
        if session is None:
            return
        now = time.monotonic()
        if self._region.is_due(now):
            self._region.asked(now)
            self._run(self._refresh(session, now), "cache topology")
        for endpoint in self._region.probes(now):
            self._run(self._probe(session, endpoint), "cache probe")

    def _run(self, errand: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(errand, name=name)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _refresh(self, session: Session, now: float) -> None:
        source = self._region.sources(now)[0]
        try:
            reply = await self._document(session, source, REFRESH_TIMEOUT)
            if reply.status == 200:
                self._region.learn(reply.body)
        except (CacheError, aiohttp.ClientError, TimeoutError, ValueError) as error:
            # Not its `repr`: those of aiohttp's errors have the request's headers.
            log.debug("the topology could not be had from %s: %s", source.base, type(error).__name__)
            self._region.failed()
        else:
            self._run_errands()  # probes of the instances that are new

    async def _probe(self, session: Session, endpoint: Endpoint) -> None:
        began = time.monotonic()
        try:
            reply = await self._document(session, endpoint, PROBE_SECONDS)
        except CacheError:
            pass  # there is no token, which says nothing of the instance
        except (aiohttp.ClientError, TimeoutError) as error:
            endpoint.failed(time.monotonic(), str(error) or "no answers")
        else:
            if not says_it_stops(reply.headers):
                endpoint.probed(time.monotonic() - began)

    async def _document(self, session: Session, endpoint: Endpoint, seconds: float) -> Reply:
        """Asks for the list of instances, which is there at once and small: a good probe, too."""
        url = endpoint.fixed_url(TOPOLOGY_PATH)
        token = await self.bearer.token(asyncio.get_running_loop().time() + seconds)
        async with (
            asyncio.timeout(seconds),
            session.request(
                "GET", url, headers=self._shown(token, endpoint), allow_redirects=False
            ) as response,
        ):
            return Reply(response.status, response.headers, await response.read())

    def _shown(self, token: str, endpoint: Endpoint) -> dict[str, str]:
        return self.bearer.known.lines(token, is_tls=endpoint.base.scheme == "https")

    async def send(self, request: Request, deadline: float, home: Endpoint | None = None) -> Reply:
        """Returns the reply of `home`, or of the next instance that gives one before `deadline`.

        `deadline` is a time on the loop's clock. A request that may be repeated is retried within
        it. Raises `CacheError`.
        """
        self._run_errands()
        self._backoff.begin()
        retry, is_renewed = 0, False
        while True:
            token = await self.bearer.token(deadline)
            try:
                with request_span(request.operation, items=request.items) as span:
                    reply = await self._sent(request, deadline, home, span, token)
            except CacheError as error:
                pause = self._pause(request, error, retry, deadline)
                if pause is None:
                    raise
            else:
                if reply.status == 401 and not is_renewed:
                    is_renewed = await self.bearer.is_renewed(token, deadline)
                    if is_renewed:  # nothing was done, so that any request may be sent again
                        continue
                if reply.is_share and is_late_reply(reply):
                    request, home = request.staying(), reply.endpoint
                    continue
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
        self, request: Request, deadline: float, home: Endpoint | None, span: Call | None, token: str
    ) -> Reply:
        """Makes one try: returns the reply of the first instance that gives one."""
        session = self._session
        if session is None:
            raise CacheError("closed", "the cache is not open: use it inside `async with`")
        loop = asyncio.get_running_loop()
        headers = {**request.headers, **trace_headers(self._traceparent)}
        failure: Exception | None = None
        silent: list[Endpoint] = []
        attempts, well = self._region.attempts(time.monotonic(), home)
        tries = max(1, min(request.tries, well, attempts[0].shares(deadline - loop.time())))
        for endpoint in attempts:
            asked_at = loop.time()
            until = asked_at + (deadline - asked_at) / tries
            headers["Cachesvc-Timeout"] = request.timeout_header(until - asked_at)
            self.requests += 1
            try:
                async with asyncio.timeout_at(until) as limit:
                    async with session.request(
                        request.method,
                        request.url_at(endpoint),
                        data=request.body,
                        headers={**headers, **self._shown(token, endpoint)} if token else headers,
                        allow_redirects=False,
                    ) as response:
                        limit.reschedule(deadline)  # it answers; its body may be long
                        answered_at = loop.time()
                        body = await response.read()
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
                failure = error
                self.failovers += 1
                endpoint.failed(time.monotonic(), error)
                self._region.failed()
            except TimeoutError as error:
                now = loop.time()
                silent.append(endpoint)
                if now - (limit.when() or now) < STALLED_SECONDS:
                    endpoint.left_unanswered(time.monotonic(), now - asked_at)
                if tries == 1 or now >= deadline:
                    raise request.not_answered(silent) from (failure or error)
                tries -= 1
                self.failovers += 1
            except aiohttp.ClientError as error:
                raise CacheError("bad-answer", f"{type(error).__name__}: {error}") from error
            else:
                tell_server(span, endpoint.base.host or "", endpoint.base.port, response.status)
                seconds, is_share = answered_at - asked_at, tries > 1
                endpoint.worked(seconds)
                if says_it_stops(response.headers):
                    endpoint.stops()
                return Reply(
                    response.status, response.headers, body, endpoint, seconds, bool(silent), is_share
                )
        raise request.not_taken(failure) from failure
