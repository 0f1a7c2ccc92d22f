"""Requests over HTTP by urllib3: deadline, failover, retries, forks.

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

There is no thread to keep the list of instances up to date: the call that finds it due asks for it
first. That costs one call in half a minute one more round trip, at most `connect_timeout`. A probe
has a thread of its own, which ends with it.
"""

import random
import ssl
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
from cachesvc_client.instances.endpoints import PROBE_SECONDS, Endpoint
from cachesvc_client.instances.profiles import Profile
from cachesvc_client.instances.region import TOPOLOGY_PATH, Region
from cachesvc_client.instances.retries import Backoff
from cachesvc_client.requests.http import Reply, Request, is_late_reply, passing_failure, says_it_stops
from cachesvc_client.sync import forks
from cachesvc_client.sync.bearer import Bearer
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
        bearer: Bearer,
        session: Session | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`session`: used instead of one of its own, and left open. Then its owner sees to forks.

        `tls` is for one of its own.
        """
        self._region = region
        self.bearer = bearer
        self._connect_timeout = profile.connect_timeout
        self._max_connections = max_connections
        self._traceparent = traceparent
        self._tls = tls
        self._backoff = Backoff(profile.retries, random.Random())  # noqa: S311  spreads load, guards nothing
        self._given = session
        self._stand_in: Session | None = None
        self._own: urllib3.PoolManager | None = None
        self._session: Session | None = None
        self._lock = threading.Lock()
        """Guards the region, the budget and the counters; never held while waiting."""
        self.requests = 0
        self.failovers = 0
        forks.register(self)

    # the connections ------------------------------------------------------------------------------

    def open(self) -> None:
        if self._given is None:
            self._own = urllib3.PoolManager(maxsize=self._max_connections, ssl_context=self._tls)
        self._session = self._stand_in or self._given or self._own

    def replace_session(self, stand_in: Session | None) -> Session | None:
        """Has requests go over `stand_in` from now on; None ends that. Returns the one before."""
        before, self._stand_in = self._stand_in, stand_in
        self.bearer.known.is_off = stand_in is not None
        if self._session is not None:
            self._session = stand_in or self._given or self._own
        return before

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

    def reader(self, key_digest: int) -> Endpoint:
        """The instance to read a key from: `home`, unless it is a hot key."""
        self._refresh()
        with self._lock:
            return self._region.reader(key_digest, time.monotonic())

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
            until = now + self._connect_timeout
            shown = self._shown(self.bearer.token(until), source)
            reply = self._replied(source, _TOPOLOGY, shown, until, until)
            if reply.status == 200:
                with self._lock:
                    self._region.learn(reply.body)
        except (CacheError, HTTPError, TimeoutError, ValueError):
            with self._lock:
                self._region.failed()

    def _start_probes(self) -> None:
        with self._lock:
            due = self._region.probes(time.monotonic())
        for endpoint in due:
            threading.Thread(target=self._probe, args=(endpoint,), name="cache probe", daemon=True).start()

    def _probe(self, endpoint: Endpoint) -> None:
        until = time.monotonic() + PROBE_SECONDS
        try:
            shown = self._shown(self.bearer.token(until), endpoint)
            reply = self._replied(endpoint, _TOPOLOGY, shown, until, until)
        except (ReadTimeoutError, TimeoutError):
            endpoint.failed(time.monotonic(), "no answers")
        except HTTPError as error:
            endpoint.failed(time.monotonic(), error)
        except CacheError:
            pass  # the client was closed meanwhile, or there is no token
        else:
            if not says_it_stops(reply.headers):
                endpoint.probed(reply.seconds)

    def _shown(self, token: str, endpoint: Endpoint) -> dict[str, str]:
        return self.bearer.known.lines(token, is_tls=endpoint.base.scheme == "https")

    # a request ------------------------------------------------------------------------------------

    def send(self, request: Request, deadline: float, home: Endpoint | None = None) -> Reply:
        """Returns the reply of `home`, or of the next instance that gives one before `deadline`.

        `deadline` is a time on `time.monotonic`. A request that may be repeated is retried within
        it. Raises `CacheError`.
        """
        self._start_probes()
        with self._lock:
            self._backoff.begin()
        retry, is_renewed = 0, False
        while True:
            token = self.bearer.token(deadline)
            try:
                with request_span(request.operation, items=request.items) as span:
                    reply = self._sent(request, deadline, home, span, token)
            except CacheError as error:
                pause = self._pause(request, error, retry, deadline)
                if pause is None:
                    raise
            else:
                if reply.status == 401 and not is_renewed:
                    is_renewed = self.bearer.is_renewed(token, deadline)
                    if is_renewed:  # nothing was done, so that any request may be sent again
                        continue
                if reply.is_share and is_late_reply(reply):
                    request, home = request.staying(), reply.endpoint
                    continue
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

    def _sent(
        self, request: Request, deadline: float, home: Endpoint | None, span: Call | None, token: str
    ) -> Reply:
        """Makes one try: returns the reply of the first instance that gives one."""
        traced = trace_headers(self._traceparent)
        failure: Exception | None = None
        silent: list[Endpoint] = []
        with self._lock:
            attempts, well = self._region.attempts(time.monotonic(), home)
        tries = max(1, min(request.tries, well, attempts[0].shares(deadline - time.monotonic())))
        for endpoint in attempts:
            asked_at = time.monotonic()
            try:
                shown = {**traced, **self._shown(token, endpoint)} if token else traced
                reply = self._replied(
                    endpoint, request, shown, asked_at + (deadline - asked_at) / tries, deadline
                )
            except (ReadTimeoutError, TimeoutError) as error:
                now = time.monotonic()
                silent.append(endpoint)
                endpoint.left_unanswered(now, now - asked_at)
                if tries == 1 or now >= deadline:
                    raise request.not_answered(silent) from (failure or error)
                tries -= 1
                with self._lock:
                    self.failovers += 1
            except (ConnectTimeoutError, NewConnectionError, ProtocolError, SSLError) as error:
                failure = error
                self._note_failure(endpoint, error)
            except HTTPError as error:
                raise CacheError("bad-answer", f"{type(error).__name__}: {error}") from error
            else:
                endpoint.worked(reply.seconds)
                if says_it_stops(reply.headers):
                    endpoint.stops()
                tell_server(span, endpoint.base.host or "", endpoint.base.port, reply.status)
                return reply._replace(is_moved=bool(silent), is_share=tries > 1)
        raise request.not_taken(failure) from failure

    def _note_failure(self, endpoint: Endpoint, error: Exception) -> None:
        endpoint.failed(time.monotonic(), error)
        with self._lock:
            self.failovers += 1
            self._region.failed()

    def _replied(
        self, endpoint: Endpoint, request: Request, more: dict[str, str], until: float, deadline: float
    ) -> Reply:
        """Returns the reply of one instance. It begins before `until`, ends before `deadline`.

        `more` are further header lines.         Raises urllib3's errors, and `TimeoutError`.
        """
        session = self._session
        if session is None:
            raise CacheError("closed", "the cache is not open: use it inside `with`")
        asked_at = time.monotonic()
        left = until - asked_at
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
                **more,
                **request.headers,
            },
            timeout=urllib3.Timeout(connect=min(self._connect_timeout, left), total=left),
            retries=False,
            redirect=False,
            preload_content=False,
        )
        seconds = time.monotonic() - asked_at
        return Reply(response.status, response.headers, _body(response, deadline), endpoint, seconds)


def _body(response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    """Reads a body before the deadline. Raises `TimeoutError`.

    A socket's timeout counts from one packet to the next, so that each packet of a body that
    trickles in is given the time that is left.
    """
    chunks: list[bytes] = []
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            response.close()
            raise TimeoutError
        connection = response.connection
        if isinstance(connection, HTTPConnection) and connection.sock is not None:
            connection.sock.settimeout(left)
        chunk = response.read1(decode_content=False)
        if chunk:
            chunks.append(chunk)
        if not chunk or response.connection is None:  # then the connection is back in its pool
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
