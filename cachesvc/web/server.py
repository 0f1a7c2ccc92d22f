"""The HTTP front: one handler on aiohttp's low-level server.

It dispatches on the raw request target, starts and stops. It has no middlewares, no router, no
access log and no timer per request: a bare aiohttp application spends 34 µs per request on these
and on building its response; an L1 hit here takes less than that altogether.
"""

import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from random import Random
from time import monotonic, perf_counter

from aiohttp import web
from msgspec.structs import replace

from cachesvc.changes.broadcast.broadcast import Broadcast
from cachesvc.changes.relay.relay import Relay
from cachesvc.config.service import Server, Service
from cachesvc.config.topology import Topology
from cachesvc.config.workers import Worker
from cachesvc.model.caller import Caller
from cachesvc.model.change import Target
from cachesvc.model.clock import Clock, SystemClock
from cachesvc.model.entry import Entry
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Answer
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.telemetry.traces.trace import Recorder, Span, under
from cachesvc.web.access.door import Door, grant_of
from cachesvc.web.access.grants import Grant
from cachesvc.web.access.routes import ROUTES, check_routes
from cachesvc.web.bytes_in_flight import BytesInFlight
from cachesvc.web.connections import Connections
from cachesvc.web.contract import Host, Paths, Readiness
from cachesvc.web.core_time import CoreTime
from cachesvc.web.deadlines import Deadlines, within
from cachesvc.web.handlers.audit_view import AuditView
from cachesvc.web.handlers.batches import Batches
from cachesvc.web.handlers.entries import HIT, Entries
from cachesvc.web.handlers.fence_stream import Streams
from cachesvc.web.handlers.hot_keys import HotKeysView
from cachesvc.web.handlers.invalidations import Invalidations
from cachesvc.web.handlers.probes import Probes
from cachesvc.web.handshakes import Handshakes
from cachesvc.web.inspections import Inspections
from cachesvc.web.lane import Lane, Plain, PlainBatch, PlainRead, Waits
from cachesvc.web.listener import HEAD_BYTES, Listener, plain_read_of
from cachesvc.web.overload import Overload
from cachesvc.web.ports import DATA, EITHER, OPERATIONS, Calls, Elsewhere, Handler, Port, only
from cachesvc.web.rates import RateLimits
from cachesvc.web.replies.problems import HURRIED, LEFT, STOPPED, problem_reply, request_id_of
from cachesvc.web.replies.rendering import NOSNIFF, SANDBOX, Tail
from cachesvc.web.replies.reply import CURRENT, END_OF_LINES, Reply, has_left
from cachesvc.web.replies.server_timing import FROM_SECONDS, server_timing
from cachesvc.web.requests.bodies import STOPPED as BODY_STOPPED
from cachesvc.web.requests.bodies import WAITED
from cachesvc.web.requests.callers import peer_of
from cachesvc.web.requests.hosts import Hosts
from cachesvc.web.requests.limits import check_header_bytes
from cachesvc.web.requests.options import plain_headers, timeout_of
from cachesvc.web.routing import Kind, Place, check_namespace, place_of, plain_key_place
from cachesvc.web.spans import RawHeaders, ServerSpans, passing

log = logging.getLogger(__name__)

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
_TIMED = (*_SHEDDABLE, "release", "delete", "invalidate")
"""Operations whose answers say what they cost, if they took long: reads and writes."""
_AUDITED = (401, 403, 421)
"""The statuses of calls that are refused to their caller, and stand in the audit."""
OWN_HEAD_BYTES = 1 << 10
"""The answer to a batch has a head of fewer bytes."""
_AT_ANY_TIME: AbstractContextManager[object] = nullcontext()
_UNTRACED = _AT_ANY_TIME


class Web:
    """The server of one instance. `start` and `stop` are called once each.

    It opens the listening socket and the connections, nothing else: the parts that were passed in stay
    open after `stop`.
    """

    _has_lane = True
    """False: every request is read by aiohttp, which a test compares with the fast lane."""

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
        tls: ssl.SSLContext | None = None,
        operations_tls: ssl.SSLContext | None = None,
        rates: RateLimits | None = None,
        worker: Worker | None = None,
        host: Host | None = None,
        relays: Mapping[str, Relay] | None = None,
    ) -> None:
        """Without a `recorder` nothing is traced. Without `tls` the port speaks plain HTTP.

        Without `rates` no rate is limited. `worker` and `host` are those of a worker of several; `relays`
        what other instances may follow here.
        """
        self._worker = worker
        self._rates = rates = rates or RateLimits({}, {}, instances=1)
        self._limits = service.server
        self._namespaces = topology.namespaces
        self._lanes: list[Lane] = []
        self._reader = paths.reader
        self._trail = paths.trail
        self._fences = paths.fences
        self._homes = paths.homes
        self._clock = clock or SystemClock()
        self._counts = metrics.counts
        self._tail = Tail(SANDBOX if service.server.sandbox else NOSNIFF)
        self._fair_seconds = service.telemetry.slow.seconds
        """A shorter deadline that is not kept is the caller's haste, and no failure."""
        self.door = Door(topology.callers, topology.namespaces, self._clock)
        self._deadlines = Deadlines(service.server.request_timeout.seconds)
        self._core_time = CoreTime()
        self.overload = Overload(service.server, self._core_time, partial(_waiting_elsewhere, paths))
        reading = self.overload.reading
        self.in_flight = in_flight = BytesInFlight(
            service.server.max_bytes_in_flight, is_shared=len(topology.namespaces) > 1
        )
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
            rates,
        )
        self._batches = batches = Batches(
            service.server,
            topology.namespaces,
            paths,
            self._clock,
            metrics.counts,
            self.overload,
            in_flight,
            self._fair_seconds,
            rates,
        )
        limits = service.server
        self._streams = Streams(
            broadcast, limits.max_streams_per_peer, self.door, relays or {}, limits.max_streams
        )
        self._spans: ServerSpans | None = None
        if recorder is not None:
            rng = Random()  # noqa: S311  which requests are traced, nothing secret
            self._spans = ServerSpans(
                recorder, service.telemetry, topology.namespaces, paths.fences.lag_us, rng
            )
        self._probes = probes = Probes(service, topology, readiness, metrics, host)
        self._calls = _calls(
            self._entries,
            batches,
            Invalidations(service, paths.invalidator, in_flight, self.inspections, rates),
            self._streams,
            probes,
            HotKeysView(service, paths.hot_keys, paths.trail),
            AuditView(service, paths.trail, self._clock),
        )
        check_routes(operation for calls in self._calls.values() for operation, _ in calls.values())
        self._tls = {"server": tls, "server.operations": operations_tls}
        self.data = self._port("data port", self._calls, service.server, in_flight, "server")
        self.operations: Port | None = None
        self.ports = {"data": self.data}
        """The ports by the value of the label `port` of metrics, in the order of their stop."""
        if service.server.operations.port is not None:
            self.operations = self.ports["operations"] = self._operations(probes)
        self.handshakes = {
            (name,): port.handshakes for name, port in self.ports.items() if port.handshakes is not None
        }
        """The TLS handshakes by listening port."""
        listening = (port.connections.loop for port in self.ports.values())
        self.loops = (self._deadlines.loop, self.overload.loop, self._streams.loop, *listening)
        """The loops that timers call."""

    def __repr__(self) -> str:
        return f"<Web [{[*self.ports.values()]}, {self._deadlines!r}, {self._streams!r}]>"

    # the ports ------------------------------------------------------------------------------------

    def _operations(self, probes: Probes) -> Port:
        """Returns the operations port, and takes its routes from the data port."""
        calls, settings = self._calls, self._limits.operations
        limits = replace(
            self._limits,
            host=settings.host,
            max_connections=settings.max_connections,
            max_connections_per_peer=settings.max_connections,
        )
        in_flight = BytesInFlight(self._limits.max_bytes_in_flight)
        tables = only(OPERATIONS | EITHER, calls, lambda: self.data)
        port = self._port("operations port", tables, limits, in_flight, "server.operations")
        self.data.calls = {
            **only(DATA | EITHER, calls, lambda: port),
            Kind.TOPOLOGY: _viewed("topology", probes.instances),
            Kind.READYZ: _viewed("readyz", probes.readyz_of(port)),
        }
        return port

    def _port(self, name: str, calls: Calls, limits: Server, in_flight: BytesInFlight, settings: str) -> Port:
        connections = Connections(limits, in_flight, settings)
        return Port(
            name,
            calls,
            Hosts(limits.host, limits.hosts),
            connections,
            self._listener,
            self._handshakes(settings, connections),
            has_keys=settings == "server",
        )

    def take(self, topology: Topology) -> None:
        """Takes callers, the namespaces that are served, and the topology that is shown."""
        self.door.take(topology.callers, topology.namespaces)
        self.in_flight.is_shared = len(topology.namespaces) > 1
        for lane in self._lanes:
            lane.take(topology.namespaces)
        self._probes.topology_in_force = topology

    def _listener(self, port: Port) -> Listener:
        is_fast = port.has_keys and self._has_lane
        lane = Lane(partial(self._answer_soon, port), self._namespaces, port.hosts) if is_fast else None
        self._lanes += [lane] if lane is not None else []
        return Listener(
            partial(self.handle, port=port),
            partial(self._handle_extra, port),
            partial(self._complete_unread, port),
            port.connections,
            self._limits,
            port.handshakes,
            lane,
        )

    def _handshakes(self, settings: str, connections: Connections) -> Handshakes | None:
        block = self._limits.tls if settings == "server" else self._limits.operations.tls
        context = self._tls[settings]
        if context is None:
            return None
        return Handshakes(context, block.handshake_timeout.seconds, connections)

    # start and stop -------------------------------------------------------------------------------

    async def start(self, host: str, port: int) -> int:
        """Starts to listen; returns the data port that was bound (`port` may be 0).

        Raises `OSError`, whose `filename` is the address, if one of the ports is taken; then none is
        listened on.
        """
        operations, settings, worker = self.operations, self._limits.operations, self._worker
        is_shared = worker is not None
        own, own_of_operations = (worker.port, worker.operations_port) if worker else (None, None)
        self.overload.start()
        reserved = settings.max_connections if operations else 0
        bound = await self.data.start(host, port, own, is_shared=is_shared, reserved=reserved)
        if operations is not None:
            try:
                await operations.start(
                    settings.host, settings.port or 0, own_of_operations, is_shared=is_shared
                )
            except OSError:
                await self.data.stop()
                raise
        return bound

    async def stop(self) -> None:
        """Closes the listening sockets, and lets running requests end within `shutdown_timeout`.

        Then their connections are closed. Streams, which would never end, are ended at once: their
        subscribers go on at another instance. The operations port is closed when the data port is.
        """
        self._streams.stop()
        for port in self.ports.values():
            await port.stop()
        self._deadlines.stop()
        self.door.stop()
        self.overload.stop()
        self._core_time.close()

    # one request ----------------------------------------------------------------------------------

    async def handle(self, request: web.BaseRequest, port: Port | None = None) -> Reply:
        """Answers one request to a port (None: the data port).

        Raises nothing but `CancelledError`.
        """
        started = perf_counter()
        operation = namespace = ""
        place: Place | None = None
        port = port or self.data
        spans, hosts = self._spans, port.hosts
        span: Span | None = None
        try:
            plain: tuple[bytes, bytes] | None = None
            if type(read := plain_read_of(request)) is Reply:
                return read  # it was counted when it came, and is too large for the lane
            if type(read) is PlainBatch:
                place = Place(Kind.GET_MANY, read.namespace)
            elif type(read) is PlainRead:
                place = Place(Kind.KEY, read.key.namespace, read.key)
                plain = (read.traceparent, read.authorization)
            else:
                place = plain_key_place(request.raw_path, self._namespaces) if port.has_keys else None
                is_plain = place is not None and request.method == "GET"
                plain = plain_headers(request.raw_headers, hosts.admitted) if is_plain else None
            if (
                place is not None
                and plain is not None
                and (grant := self.door.reader(plain[1], place.namespace)) is not None
            ):
                traceparent, _ = plain
                operation, namespace = "get", place.namespace
                if spans is not None and spans.sampling.takes(traceparent):
                    span = spans.begin(operation, place, traceparent)
                entry = self._reader.peek(namespace, place.key)
                if entry is not None and not entry.negative:
                    if self._rates.is_on:
                        self._rates.check_hit(namespace, len(entry.value), started, grant.caller)
                    reply = self._entries.hit(entry, place.key)
                else:
                    span = span or (passing(traceparent) if spans is not None else None)
                    reply = await _part_of(span, self._read_beyond(request, place, entry, grant.caller))
            else:
                grant = await self.door.admit(request)
                if place is None:
                    check = partial(self._check_namespace, request.method, grant)
                    place = place_of(request.raw_path, check)
                else:
                    self._check_namespace(request.method, grant, place.kind, place.namespace)
                namespace = place.namespace
                calls = port.calls[place.kind]
                operation, handler = calls.get(request.method, _REFUSED)
                if handler is None:
                    reply = _not_allowed(request, calls)
                else:
                    check_header_bytes(request.raw_headers, self._limits.max_header_bytes)
                    hosts.check(request.headers.get("Host"))
                    if not isinstance(handler, Elsewhere):
                        self.door.check(grant, ROUTES[operation], place)
                    span = (
                        spans.begin_any(operation, place, request.raw_headers) if spans is not None else None
                    )
                    reply = await _part_of(
                        span, self._deadlines.hold(self._call(operation, handler, request, place))
                    )
                    reply.request_id = reply.request_id or request_id_of(request.headers)
                    # Few have marks beside their grant, and `get` is slow for what is not there.
                    if len(request) > 1:
                        started += request.get(WAITED, 0.0)  # the caller's time, not ours
        except RequestError as error:
            self.door.note(error)
            reply = self._refusal(request, error)
            started += request.get(WAITED, 0.0)
        except Exception:  # noqa: BLE001  `_broken` logs it
            with under(span or passing(request.headers.get("traceparent", "").encode("latin-1", "replace"))):
                reply = _broken(operation, namespace, request_id_of(request.headers))
        if (seconds := perf_counter() - started) > FROM_SECONDS and operation in _TIMED:
            reply.add_lines(server_timing(seconds, self._homes.distances(_concerned(reply, place))))
        self._complete(reply, port)
        self._count(
            reply, operation, namespace, started, span, request.raw_headers, lambda: has_left(request)
        )
        return reply

    def _count(
        self,
        reply: Reply,
        operation: str,
        namespace: str,
        started: float,
        span: Span | None,
        raw_headers: RawHeaders,
        has_left: Callable[[], bool],
    ) -> None:
        """Counts an answered request, and ends its span. `has_left` returns if its peer has gone."""
        if reply.outcome == "failed" and has_left():
            reply.outcome = LEFT
        seconds = perf_counter() - started
        self._counts.request(namespace, operation, reply.outcome, seconds)
        if (spans := self._spans) is not None and (
            span is not None or reply.outcome == "failed" or seconds > spans.sampling.slow_seconds
        ):
            spans.end(span, operation, namespace, reply, seconds, raw_headers)

    def _answer_soon(self, port: Port, read: Plain, most_bytes: int, waits: Waits) -> bytes | None:
        """Returns the whole answer to a plain read or batch, if `handle` would answer it at once.

        That is from L1, or, if L1 has no copy, with a refusal: the cheaper a refusal is under overload, the
        more is left for those who are not refused. Empty if L1 has no copy and the read goes on: `waits`
        gets its answer.
        None, and nothing is counted, where the read is for `handle`: also for values in L1 of more than
        `most_bytes`.
        """
        started = perf_counter()
        if isinstance(read, PlainBatch):
            return self._hit_many(port, read, most_bytes + HEAD_BYTES - OWN_HEAD_BYTES, started, waits)
        key, spans = read.key, self._spans
        if port.is_stopping or (grant := self.door.reader(read.authorization, key.namespace)) is None:
            return None
        entry = self._reader.peek_small(key.namespace, key, most_bytes)
        if entry is None and not self._reader.is_beyond_l1(key):
            return None
        span = None
        if spans is not None and spans.sampling.takes(read.traceparent):
            span = spans.begin("get", Place(Kind.KEY, key.namespace, key), read.traceparent)
        try:
            if entry is None:
                self._read_on(port, read, waits, started, grant.caller, span)
                return b""
            if self._rates.is_on:
                self._rates.check_hit(key.namespace, len(entry.value), started, grant.caller)
        except RequestError as error:
            reply = self._refused(error)
            self._complete(reply, port)
            self._count_plain(reply, read, started, span, waits)
            return reply.whole()
        head = self._entries.hit_head(entry, key) + self._end_lines()
        seconds = perf_counter() - started
        self._counts.request(key.namespace, "get", HIT, seconds)
        if spans is not None and (span is not None or seconds > spans.sampling.slow_seconds):
            reply = Reply(200, head, outcome=HIT)
            spans.end(span, "get", key.namespace, reply, seconds, _headers_of(read))
        return head + END_OF_LINES + entry.value

    def _read_on(
        self, port: Port, read: PlainRead, waits: Waits, started: float, caller: Caller, span: Span | None
    ) -> None:
        """Begins a plain read of which L1 has no copy, as `_read_beyond` does without a task.

        `span`: of a read that is sampled. Raises `RequestError` (`overloaded`, `rate-limited`).
        """
        key = read.key
        member = self.overload.admit(key.namespace, caller)
        member.__enter__()
        watermark = self._fences.watermark

        def answered(answer: Answer | Exception) -> None:
            member.__exit__()
            try:
                if isinstance(answer, Exception):
                    raise answer  # noqa: TRY301  as `get` would
                if self._rates.is_on and answer.entry is not None:
                    self._rates.charge_bytes(key.namespace, len(answer.entry.value), caller)
                reply = self._entries.answered_plainly(key, answer, watermark)
            except RequestError as error:
                reply = self._refused(error)
            except Exception:  # noqa: BLE001  `_broken` logs it
                reply = _broken("get", key.namespace)
            if (seconds := perf_counter() - started) > FROM_SECONDS:
                here = (Target.key(key.namespace, key.text),)
                reply.add_lines(server_timing(seconds, self._homes.distances(here)))
            self._complete(reply, port)
            self._count_plain(reply, read, started, span, waits)
            waits.take(reply)

        try:
            if self._rates.is_on:
                self._rates.check("reads", key.namespace, caller=caller)
            if (part_of := span or (passing(read.traceparent) if self._spans is not None else None)) is None:
                self._reader.get_soon(key, answered)
            else:
                with under(part_of):
                    self._reader.get_soon(key, answered)
        except BaseException:
            member.__exit__()
            raise

    def _count_plain(
        self, reply: Reply, read: PlainRead, started: float, span: Span | None, waits: Waits
    ) -> None:
        self._count(reply, "get", read.key.namespace, started, span, _headers_of(read), waits.has_left)

    def _hit_many(
        self, port: Port, read: PlainBatch, most_bytes: int, started: float, waits: Waits
    ) -> bytes | None:
        """Does the same for a batch, whose answer without its head may have `most_bytes`."""
        namespace, spans = read.namespace, self._spans
        if port.is_stopping or (grant := self.door.reader(read.authorization, namespace)) is None:
            return None
        overload, span = self.overload, None
        if spans is not None and spans.sampling.would_take(read.traceparent):
            span = spans.begin("get_many", Place(Kind.GET_MANY, namespace), read.traceparent)
        try:
            if overload.is_shedding and (error := overload.refusal(namespace, grant.caller)) is not None:
                raise error
            with _UNTRACED if span is None else under(span):
                reply = self._batches.hit(read, grant.caller, most_bytes)
            if reply is None:
                return None
        except RequestError as error:
            reply = self._refused(error)
        if (seconds := perf_counter() - started) > FROM_SECONDS:
            reply.add_lines(server_timing(seconds, {}))
        self._complete(reply, port)
        if spans is not None:
            spans.sampling.takes(read.traceparent)
        self._count(reply, "get_many", namespace, started, span, _headers_of(read), waits.has_left)
        return reply.whole()

    def _check_namespace(self, method: str, grant: Grant, kind: Kind, namespace: str) -> None:
        """Raises `RequestError` if the grant is not enough, or there is no such namespace.

        So nobody learns of a namespace in which they may do nothing, whether it is declared.
        """
        calls = self._calls[kind]
        operation, _ = calls.get(method) or next(iter(calls.values()))
        self.door.check_namespace(grant, ROUTES[operation], namespace)
        check_namespace(namespace, grant.namespaces, "namespace")

    async def _handle_extra(self, port: Port, request: web.BaseRequest) -> Reply:
        """Answers the one request of a connection that is one too many: probes and metrics only."""
        if request.raw_path.partition("?")[0] in _PROBES:
            reply = await self.handle(request, port)
        else:
            reply = problem_reply(_CROWDED, request_id_of(request.headers))
            self._complete_unread(port, reply)
            self._counts.request("", "crowded", reply.outcome, 0.0)
        reply.close_after()
        return reply

    def _attempted(self, request: web.BaseRequest) -> tuple[str, str]:
        """Returns the operation and the namespace of a refused request, as far as it says."""
        try:
            place = place_of(request.raw_path, lambda *_: None)
        except RequestError:
            return request.method, ""
        return self._calls[place.kind].get(request.method, _REFUSED)[0], place.namespace

    def _refusal(self, request: web.BaseRequest, error: RequestError) -> Reply:
        """Returns the reply to a request that failed as a whole, with the outcome that says why."""
        outcome = ""
        if error.status in _AUDITED:
            self._trail.refused(peer_of(request), error.kind.value, partial(self._attempted, request))
        if request.get(BODY_STOPPED):
            outcome = STOPPED
            if error.kind is ProblemKind.DEADLINE:
                error = RequestError(ProblemKind.BODY_TIMEOUT, "the body did not come to its end in time")
        elif error.kind is ProblemKind.DEADLINE:
            seconds = timeout_of(request.headers, self._limits.request_timeout.seconds)
            if seconds is not None and seconds < self._fair_seconds:
                outcome = HURRIED
        return self._refused(error, request_id_of(request.headers), outcome)

    def _refused(self, error: RequestError, request_id: str = "", outcome: str = "") -> Reply:
        self._counts.refusals[error.kind.value] += 1
        return problem_reply(error, request_id, outcome=outcome)

    async def _read_beyond(
        self, request: web.BaseRequest, place: Place, entry: Entry | None, caller: Caller
    ) -> Reply:
        """Answers a plain read that L1 does not hold.

        The read path bounds it, by the deadlines of its tiers, lease and origin.
        """
        with self.overload.admit(place.namespace, caller):
            return await self._entries.read_plainly(request, place, entry, caller)

    async def _call(self, operation: str, handler: Handler, request: web.BaseRequest, place: Place) -> Reply:
        seconds = (
            None
            if operation in _KEEP_TIME
            else timeout_of(request.headers, self._limits.request_timeout.seconds)
        )
        is_sheddable = operation in _SHEDDABLE
        caller = grant_of(request).caller
        with self.overload.admit(place.namespace, caller) if is_sheddable else _AT_ANY_TIME:
            return await (
                handler(request, place) if seconds is None else within(seconds, handler(request, place))
            )

    def _complete_unread(self, port: Port, reply: Reply) -> None:
        """Counts and completes the answer to what was refused before it was a request."""
        self._counts.refusals[reply.problem] += 1
        self._complete(reply, port)

    def _complete(self, reply: Reply, port: Port) -> None:
        """Adds the lines that every answer has."""
        if reply.watermark in (CURRENT, self._fences.watermark):
            reply.add_lines(self._end_lines())
        else:
            lag_us = self._fences.lag_us(reply.watermark)
            reply.add_lines(self._tail.lines_of(self._clock.now_us(), lag_us))
        if reply.request_id:
            reply.add_lines(f"X-Request-Id: {reply.request_id}\r\n".encode())
        if port.is_stopping:
            reply.close_after()

    def _end_lines(self) -> bytes:
        """Returns the lines that end the head of an answer whose values were judged just now."""
        now = self._clock.now_us()
        if self._tail.is_old(now):
            self._tail.render(now, self._fences.lag_us())
        return self._tail.lines


_REFUSED = ("refused", None)


def _headers_of(read: Plain) -> RawHeaders:
    """Returns the header of a plain read or batch that its span needs."""
    return ((b"traceparent", read.traceparent),)


def _broken(operation: str, namespace: str, request_id: str = "") -> Reply:
    """Returns and logs the reply to a request that failed for the defect being handled.

    Keys may be personal data: the log gets the place of the failure, and the caller the id of it.
    """
    reply = problem_reply(_INTERNAL, request_id)
    log.exception("request %s failed: %s in namespace %r", reply.request_id, operation, namespace)
    return reply


def _concerned(reply: Reply, place: Place | None) -> Iterable[Target]:
    """Returns the targets whose home cells a request needed."""
    if reply.concerns is not None:
        return reply.concerns()
    if place is None or place.kind is not Kind.KEY:
        return ()
    return (Target.key(place.namespace, place.key.text),)


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
    audit: AuditView,
) -> Calls:
    """Returns the table of calls of a port that serves every route."""
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
        Kind.RELAY: _viewed("relay", streams.relay),
        Kind.TOPOLOGY: _viewed("topology", probes.topology),
        Kind.HOT_KEYS: _viewed("hotkeys", hot_keys.get),
        Kind.AUDIT: _viewed("audit", audit.get),
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
