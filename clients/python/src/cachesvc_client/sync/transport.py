"""Requests over HTTP by urllib3: deadline, failover, retries, forks.

A request that no instance took, or whose connection broke, is sent to the next one, within the
same deadline. That holds for writes as well: applying one twice costs misses and nothing else. An
answer, even 503, is an answer and is not tried elsewhere, as that would pass an overload on; nor is
a request that ran out of time. A failure that may pass is retried after a pause, if the request may
be repeated and the client's budget allows it (retries.py).

There is no thread to keep the list of instances up to date: the call that finds it due asks for it
first. That costs one call in half a minute one more round trip, at most `connect_timeout`.
"""

import random
import threading
import time

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util import SKIP_HEADER

from cachesvc_client.errors import CacheError
from cachesvc_client.instances.endpoints import Endpoint
from cachesvc_client.instances.profiles import Profile
from cachesvc_client.instances.region import TOPOLOGY_PATH, Region
from cachesvc_client.instances.retries import Backoff
from cachesvc_client.requests.http import Reply, Request, passing_failure
from cachesvc_client.sync import forks
from cachesvc_client.sync.session import Session
from cachesvc_client.tracing.spans import Call, request_span, tell_server
from cachesvc_client.tracing.traceparent import Traceparent, trace_headers

_HEADERS = {"User-Agent": "cachesvc-client/0.1", "Accept-Encoding": SKIP_HEADER}
_TOPOLOGY = Request("GET", TOPOLOGY_PATH, is_fixed=True)

UNBATCHED_CONNECTIONS = 1024
"""Kept for as many threads; more than these open a connection for each request."""


class Transport:
    """Connections to the instances, for any number of threads."""

    def __init__(
        self,
        region: Region,
        profile: Profile,
        *,
        max_connections: int,
        traceparent: Traceparent,
        session: Session | None = None,
    ) -> None:
        """`session`: used instead of one of its own, and left open. Then its owner sees to forks."""
        self._region = region
        self._connect_timeout = profile.connect_timeout
        self._max_connections = max_connections
        self._traceparent = traceparent
        self._backoff = Backoff(profile.retries, random.Random())  # noqa: S311  spreads load, guards nothing
        self._given = session
        self._own: urllib3.PoolManager | None = None
        self._session: Session | None = None
        self._lock = threading.Lock()
        """Guards the region, the budget and the counters; never held while waiting."""
        self.requests = 0
        self.failovers = 0
        forks.register(self)

    # the connections ------------------------------------------------------------------------------

    def open(self) -> None:
        if self._given is not None:
            self._session = self._given
            return
        self._session = self._own = urllib3.PoolManager(maxsize=self._max_connections)

    def after_fork(self) -> None:
        """Opens connections of the child's own.

        The old ones are closed as garbage; the other side hears nothing of it while the parent has
        them open.
        """
        self._lock = threading.Lock()
        if self._own is not None:
            self.open()

    def close(self) -> None:
        self._session = None
        if self._own is not None:
            session, self._own = self._own, None
            session.clear()

    @property
    def is_open(self) -> bool:
        return self._session is not None

    @property
    def retries(self) -> int:
        return self._backoff.granted

    # the instances --------------------------------------------------------------------------------

    @property
    def sole_home(self) -> Endpoint | None:
        """The instance to ask for any key, if there is but one."""
        self._refresh()
        return self._region.sole

    def home(self, key_digest: int) -> Endpoint:
        """The instance to ask for a key. A hint: `send` goes on to the next one if need be."""
        self._refresh()
        with self._lock:
            return self._region.home(key_digest, time.monotonic())

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._session is None or not self._region.is_due(now):
            return
        with self._lock:
            if not self._region.is_due(now):  # another thread has begun meanwhile
                return
            self._region.asked(now)
            source = self._region.sources(now)[0]
        try:
            reply = self._replied(source, _TOPOLOGY, {}, now + self._connect_timeout)
            if reply.status == 200:
                with self._lock:
                    self._region.learn(reply.body)
        except (CacheError, HTTPError, ValueError):
            with self._lock:
                self._region.failed()

    # a request ------------------------------------------------------------------------------------

    def send(self, request: Request, deadline: float, home: Endpoint | None = None) -> Reply:
        """Returns the reply of `home`, or of the next instance that gives one before `deadline`.

        `deadline` is a time on `time.monotonic`. A request that may be repeated is retried within
        it. Raises `CacheError`.
        """
        with self._lock:
            self._backoff.begin()
        retry = 0
        while True:
            try:
                with request_span(request.operation, items=request.items) as span:
                    reply = self._sent(request, deadline, home, span)
            except CacheError as error:
                pause = self._pause(request, error, retry, deadline)
                if pause is None:
                    raise
            else:
                failure = passing_failure(reply)
                pause = None if failure is None else self._pause(request, failure, retry, deadline)
                if pause is None:
                    return reply
            time.sleep(pause)
            retry += 1

    def _pause(self, request: Request, error: CacheError, retry: int, deadline: float) -> float | None:
        if not request.is_repeatable:
            return None
        with self._lock:
            return self._backoff.pause(error, retry, deadline - time.monotonic())

    def _sent(self, request: Request, deadline: float, home: Endpoint | None, span: Call | None) -> Reply:
        """Makes one try: returns the reply of the first instance that gives one."""
        traced = trace_headers(self._traceparent)
        failure: Exception | None = None
        for endpoint in self._attempts(home):
            asked_at = time.monotonic()
            try:
                reply = self._replied(endpoint, request, traced, deadline)
            except (ReadTimeoutError, TimeoutError) as error:
                self._note_silence(endpoint, asked_at)
                raise request.not_answered() from (failure or error)
            except (ConnectTimeoutError, NewConnectionError, ProtocolError, SSLError) as error:
                failure = error
                self._note_failure(endpoint, error)
            except HTTPError as error:
                raise CacheError("bad-answer", f"{type(error).__name__}: {error}") from error
            else:
                endpoint.worked()
                tell_server(span, endpoint.base.host or "", endpoint.base.port, reply.status)
                return reply
        raise request.not_taken(failure) from failure

    def _attempts(self, home: Endpoint | None) -> list[Endpoint]:
        with self._lock:
            return self._region.attempts(time.monotonic(), home)

    def _note_silence(self, endpoint: Endpoint, asked_at: float) -> None:
        now = time.monotonic()
        with self._lock:
            endpoint.left_unanswered(now, now - asked_at)

    def _note_failure(self, endpoint: Endpoint, error: Exception) -> None:
        with self._lock:
            self.failovers += 1
            endpoint.failed(time.monotonic(), error)
            self._region.failed()

    def _replied(
        self, endpoint: Endpoint, request: Request, traced: dict[str, str], deadline: float
    ) -> Reply:
        """Returns the reply of one instance. Raises urllib3's errors, and `TimeoutError`."""
        session = self._session
        if session is None:
            raise CacheError("closed", "the cache is not open: use it inside `with`")
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        with self._lock:
            self.requests += 1
        response = session.request(
            request.method,
            str(request.url_at(endpoint)),
            body=request.body,
            headers={
                **_HEADERS,
                "Cachesvc-Timeout": request.timeout_header(left),
                **traced,
                **request.headers,
            },
            timeout=urllib3.Timeout(connect=min(self._connect_timeout, left), total=left),
            retries=False,
            redirect=False,
            preload_content=False,
        )
        return Reply(response.status, response.headers, _body(response, deadline))


def _body(response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    """Reads a body before the deadline. Raises `TimeoutError`.

    A socket's timeout counts from one packet to the next, so that each packet of a body that
    trickles in is given the time that is left.
    """
    chunks: list[bytes] = []
    while chunk := response.read1(decode_content=False):
        chunks.append(chunk)
        connection = response.connection
        if connection is None:  # the body is complete, and the connection back in its pool
            break
        left = deadline - time.monotonic()
        if left <= 0:
            response.close()
            raise TimeoutError
        if isinstance(connection, HTTPConnection) and connection.sock is not None:
            connection.sock.settimeout(left)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
