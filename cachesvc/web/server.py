"""The HTTP front: one handler on aiohttp's low-level server.

It dispatches on the raw request target, starts and stops. It has no middlewares, no router, no
access log and no timer per request: a bare aiohttp application spends 34 µs per request on these
and on building its response; an L1 hit here takes less than that altogether.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from random import Random
from time import monotonic, perf_counter

from aiohttp import web

from cachesvc.changes.broadcast.broadcast import Broadcast
from cachesvc.config.service import Service
from cachesvc.config.topology import Topology
from cachesvc.model.clock import Clock, SystemClock
from cachesvc.model.entry import Entry
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.telemetry.traces.trace import Recorder, Span, under
from cachesvc.web.bytes_in_flight import BytesInFlight
from cachesvc.web.connections import Connections
from cachesvc.web.contract import Paths, Readiness
from cachesvc.web.core_time import CoreTime
from cachesvc.web.deadlines import Deadlines, within
from cachesvc.web.handlers.batches import Batches
from cachesvc.web.handlers.entries import Entries
from cachesvc.web.handlers.fence_stream import Streams
from cachesvc.web.handlers.hot_keys import HotKeysView
from cachesvc.web.handlers.invalidations import Invalidations
from cachesvc.web.handlers.probes import Probes
from cachesvc.web.inspections import Inspections
from cachesvc.web.listener import Listener
from cachesvc.web.overload import Overload
from cachesvc.web.replies.problems import HURRIED, LEFT, STOPPED, problem_reply, request_id_of
from cachesvc.web.replies.rendering import NOSNIFF, SANDBOX, Tail
from cachesvc.web.replies.reply import CURRENT, Reply, has_left
from cachesvc.web.requests.bodies import STOPPED as BODY_STOPPED
from cachesvc.web.requests.bodies import WAITED
from cachesvc.web.requests.hosts import Hosts
from cachesvc.web.requests.limits import check_header_bytes
from cachesvc.web.requests.options import plain_traceparent, timeout_of
from cachesvc.web.routing import Kind, Place, place_of, plain_key_place
from cachesvc.web.spans import ServerSpans, passing

log = logging.getLogger(__name__)

Handler = Callable[[web.BaseRequest, Place], Awaitable[Reply]]

_INTERNAL = RequestError(ProblemKind.INTERNAL, "the service failed; the request_id finds it in its log")
_CROWDED = RequestError(ProblemKind.OVERLOADED, "too many connections are open here, or from this peer")
_PROBES = ("/livez", "/readyz", "/metrics")
"""The paths that are answered on a connection that is one too many."""
_KEEP_TIME = ("get", "head", "get_many", "invalidate")
"""Operations that hold their `Cachesvc-Timeout` themselves: reads key by key, an
invalidation that waits for other instances by naming those that are missing."""
_SHEDDABLE = ("get", "head", "get_many", "put", "put_many")
"""Operations that are refused under overload. Invalidations are not, or all copies would
be out of date; nor are the calls that show that there is overload."""
_AT_ANY_TIME: AbstractContextManager[object] = nullcontext()


class Web:
    """The server of one instance. `start` and `stop` are called once each.

    It opens the listening socket and the connections, nothing else: the parts that were passed in stay
    open after `stop`.
    """

    def __init__(
        self,
        service: Service,
        topology: Topology,
        paths: Paths,
        broadcast: Broadcast,
        readiness: Readiness,
        metrics: Metrics,
        *,
        clock: Clock | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        """Without a `recorder` nothing is traced."""
        self._limits = service.server
        self._namespaces = topology.namespaces
        self._reader = paths.reader
        self._fences = paths.fences
        self._clock = clock or SystemClock()
        self._counts = metrics.counts
        self._tail = Tail(SANDBOX if service.server.sandbox else NOSNIFF)
        self._fair_seconds = service.telemetry.slow.seconds
        """A shorter deadline that is not kept is the caller's haste, and no failure."""
        self._hosts = Hosts(service.server.host, service.server.hosts)
        self._deadlines = Deadlines(service.server.request_timeout.seconds)
        self._core_time = CoreTime()
        self.overload = Overload(service.server, self._core_time, partial(_waiting_elsewhere, paths))
        reading = self.overload.reading
        self.in_flight = in_flight = BytesInFlight(
            service.server.max_bytes_in_flight, is_shared=len(topology.namespaces) > 1
        )
        self.connections = Connections(service.server, in_flight)
        self.inspections = Inspections(service.server.max_inspections, monotonic)
        self._entries = Entries(
            service.server,
            topology.namespaces,
            paths,
            self._clock,
            reading,
            in_flight,
            self.inspections,
            self._fair_seconds,
        )
        batches = Batches(
            service.server,
            topology.namespaces,
            paths,
            self._clock,
            metrics.counts,
            self.overload,
            in_flight,
            self._fair_seconds,
        )
        self._streams = Streams(broadcast, service.server.max_streams_per_peer)
        self._spans: ServerSpans | None = None
        if recorder is not None:
            rng = Random()  # noqa: S311  which requests are traced, nothing secret
            self._spans = ServerSpans(
                recorder, service.telemetry, topology.namespaces, paths.fences.lag_us, rng
            )
        self._calls = _calls(
            self._entries,
            batches,
            Invalidations(service, topology.namespaces, paths.invalidator, in_flight, self.inspections),
            self._streams,
            Probes(service, topology, readiness, metrics),
            HotKeysView(service, topology.namespaces, paths.hot_keys),
        )
        self.loops = (self._deadlines.loop, self.overload.loop, self._streams.loop, self.connections.loop)
        """The loops that timers call."""
        self._listener = Listener(
            self.handle,
            self._handle_extra,
            self._complete,
            self.connections,
            self._limits.shutdown_timeout.seconds,
        )

    def __repr__(self) -> str:
        return f"<Web [{self._listener!r}, {self._deadlines!r}, {self._streams!r}]>"

    # start and stop -------------------------------------------------------------------------------

    async def start(self, host: str, port: int) -> int:
        """Starts to listen; returns the port that was bound (`port` may be 0).

        Raises `OSError` if it is taken.
        """
        self.overload.start()
        self.connections.start()
        return await self._listener.start(host, port)

    async def stop(self) -> None:
        """Closes the listening socket, and lets running requests end within `shutdown_timeout`.

        Then their connections are closed. Streams, which would never end, are ended at once: their
        subscribers go on at another instance.
        """
        self._streams.stop()
        await self._listener.stop()
        self.connections.stop()
        self._deadlines.stop()
        self.overload.stop()
        self._core_time.close()

    # one request ----------------------------------------------------------------------------------

    async def handle(self, request: web.BaseRequest) -> Reply:
        """Answers one request. Raises nothing but `CancelledError`."""
        started = perf_counter()
        operation = namespace = ""
        spans, hosts = self._spans, self._hosts
        span: Span | None = None
        try:
            target = request.raw_path
            place = plain_key_place(target, self._namespaces) or place_of(target, self._namespaces)
            namespace = place.namespace
            calls = self._calls[place.kind]
            operation, handler = calls.get(request.method, _REFUSED)
            if (
                operation == "get"
                and (traceparent := plain_traceparent(request.raw_headers, hosts.admitted)) is not None
            ):
                if spans is not None and spans.sampling.takes(traceparent):
                    span = spans.begin(operation, place, traceparent)
                entry = self._reader.peek(namespace, place.key)
                if entry is not None and not entry.negative:
                    reply = self._entries.hit(entry)
                else:
                    span = span or (passing(traceparent) if spans is not None else None)
                    reply = await _part_of(span, self._read_on(request, place, entry))
            elif handler is None:
                reply = _not_allowed(request, calls)
            else:
                check_header_bytes(request.raw_headers)
                hosts.check(request.headers.get("Host"))
                span = spans.begin_any(operation, place, request.raw_headers) if spans is not None else None
                reply = await _part_of(
                    span, self._deadlines.hold(self._call(operation, handler, request, place))
                )
                reply.request_id = reply.request_id or request_id_of(request.headers)
                if len(request):  # few have marks, and `get` is slow for what is not there
                    started += request.get(WAITED, 0.0)  # the caller's time, not ours
        except RequestError as error:
            reply = self._refusal(request, error)
            started += request.get(WAITED, 0.0)
        except Exception:
            reply = problem_reply(_INTERNAL, request_id_of(request.headers))
            # Keys may be personal data: the log gets the place of the failure, and the caller the id of it.
            with under(span or passing(request.headers.get("traceparent", "").encode("latin-1", "replace"))):
                log.exception("request %s failed: %s in namespace %r", reply.request_id, operation, namespace)
        self._complete(reply)
        if reply.outcome == "failed" and has_left(request):
            reply.outcome = LEFT
        seconds = perf_counter() - started
        self._counts.request(namespace, operation, reply.outcome, seconds)
        if spans is not None and (
            span is not None or reply.outcome == "failed" or seconds > spans.sampling.slow_seconds
        ):
            spans.end(span, operation, namespace, reply, seconds, request.raw_headers)
        return reply

    async def _handle_extra(self, request: web.BaseRequest) -> Reply:
        """Answers the one request of a connection that is one too many: probes and metrics only."""
        if request.raw_path.partition("?")[0] in _PROBES:
            reply = await self.handle(request)
        else:
            reply = problem_reply(_CROWDED, request_id_of(request.headers))
            self._complete(reply)
            self._counts.request("", "crowded", reply.outcome, 0.0)
        reply.close_after()
        return reply

    def _refusal(self, request: web.BaseRequest, error: RequestError) -> Reply:
        """Returns the reply to a request that failed as a whole, with the outcome that says why."""
        outcome = ""
        if request.get(BODY_STOPPED):
            outcome = STOPPED
            if error.kind is ProblemKind.DEADLINE:
                error = RequestError(ProblemKind.BODY_TIMEOUT, "the body did not come to its end in time")
        elif error.kind is ProblemKind.DEADLINE:
            seconds = timeout_of(request.headers, self._limits.request_timeout.seconds)
            if seconds is not None and seconds < self._fair_seconds:
                outcome = HURRIED
        return problem_reply(error, request_id_of(request.headers), outcome=outcome)

    async def _read_on(self, request: web.BaseRequest, place: Place, entry: Entry | None) -> Reply:
        """Answers a plain read that L1 does not hold.

        The read path bounds it, by the deadlines of its tiers, lease and origin.
        """
        with self.overload.admit(place.namespace):
            return await self._entries.read_plainly(request, place, entry)

    async def _call(self, operation: str, handler: Handler, request: web.BaseRequest, place: Place) -> Reply:
        seconds = (
            None
            if operation in _KEEP_TIME
            else timeout_of(request.headers, self._limits.request_timeout.seconds)
        )
        with self.overload.admit(place.namespace) if operation in _SHEDDABLE else _AT_ANY_TIME:
            return await (
                handler(request, place) if seconds is None else within(seconds, handler(request, place))
            )

    def _complete(self, reply: Reply) -> None:
        """Adds the lines that every answer has."""
        now = self._clock.now_us()
        if self._tail.is_old(now):
            self._tail.render(now, self._fences.lag_us())
        if reply.watermark in (CURRENT, self._fences.watermark):
            reply.add_lines(self._tail.lines)
        else:
            reply.add_lines(self._tail.lines_of(now, self._fences.lag_us(reply.watermark)))
        if reply.request_id:
            reply.add_lines(f"X-Request-Id: {reply.request_id}\r\n".encode())
        if self._listener.is_stopping:
            reply.close_after()


_REFUSED = ("refused", None)


def _part_of(span: Span | None, work: Awaitable[Reply]) -> Awaitable[Reply]:
    """Returns `work`, which has not begun, as a part of `span`."""
    return work if span is None else _under(span, work)


async def _under(span: Span, work: Awaitable[Reply]) -> Reply:
    with under(span):
        return await work


def _waiting_elsewhere(paths: Paths) -> int:
    return paths.reader.waiting_elsewhere() + paths.writer.waiting_elsewhere()


def _calls(
    entries: Entries,
    batches: Batches,
    invalidations: Invalidations,
    streams: Streams,
    probes: Probes,
    hot_keys: HotKeysView,
) -> Mapping[Kind, Mapping[str, tuple[str, Handler]]]:
    """Returns the table of calls: kind of place → method → operation's name and handler."""
    return {
        Kind.KEY: {
            "GET": ("get", entries.read),
            "HEAD": ("head", entries.read),
            "PUT": ("put", entries.write),
            "POST": ("release", entries.release),
            "DELETE": ("delete", entries.invalidate),
        },
        Kind.EXPLAIN: _viewed("explain", entries.explain),
        Kind.GET_MANY: {"POST": ("get_many", batches.get_many)},
        Kind.PUT_MANY: {"POST": ("put_many", batches.put_many)},
        Kind.INVALIDATIONS: {"POST": ("invalidate", invalidations.post)},
        Kind.RECEIPT: _viewed("receipt", invalidations.receipt),
        Kind.FENCES: _viewed("fences", streams.fences),
        Kind.TOPOLOGY: _viewed("topology", probes.topology),
        Kind.HOT_KEYS: _viewed("hotkeys", hot_keys.get),
        Kind.LIVEZ: _viewed("livez", probes.livez),
        Kind.READYZ: _viewed("readyz", probes.readyz),
        Kind.METRICS: _viewed("metrics", probes.metrics),
        Kind.OPENAPI: _viewed("openapi", probes.openapi),
    }


def _viewed(operation: str, handler: Handler) -> Mapping[str, tuple[str, Handler]]:
    return {"GET": (operation, handler), "HEAD": (operation, handler)}


def _not_allowed(request: web.BaseRequest, allowed: Iterable[str]) -> Reply:
    methods = ", ".join(allowed)
    error = RequestError(ProblemKind.METHOD, f"here: {methods}", field="method")
    return problem_reply(error, request_id_of(request.headers), lines=f"Allow: {methods}\r\n".encode())
