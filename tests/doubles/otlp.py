"""A real OTLP/HTTP receiver on a free port, which keeps what an exporter sends.

`opentelemetry-proto` decodes the messages. The server runs in threads of its own; `until` waits
for what is exported in the background.
"""

import asyncio
import gzip
import ssl
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1 import trace_pb2

Value = str | bool | int | float

_KINDS = {
    trace_pb2.Span.SPAN_KIND_INTERNAL: "internal",
    trace_pb2.Span.SPAN_KIND_SERVER: "server",
    trace_pb2.Span.SPAN_KIND_CLIENT: "client",
    trace_pb2.Span.SPAN_KIND_PRODUCER: "producer",
    trace_pb2.Span.SPAN_KIND_CONSUMER: "consumer",
}
_VARYING = frozenset({"cachesvc.lag_ms", "server.address"})


class ReceivedSpan(NamedTuple):
    """A span as it was received."""

    name: str
    kind: str
    trace_id: str
    """A hexadecimal number, as in a `traceparent`; so are the other ids."""
    span_id: str
    parent_id: str
    """Empty for the root of its trace."""
    attributes: dict[str, Value]
    links: list[tuple[str, str]]
    """Trace and span of each link."""
    failed: bool
    """True if the span's status is an error."""
    seconds: float
    resource: dict[str, Value]


class ReceivedPoint(NamedTuple):
    """A data point of a metric as it was received."""

    name: str
    unit: str
    kind: str
    """`sum`, `gauge` or `histogram`."""
    attributes: dict[str, Value]
    value: float
    """The number of observations for a histogram, else the value."""
    total: float = 0.0
    """The sum of the observations if the metric is a histogram."""
    bounds: tuple[float, ...] = ()
    buckets: tuple[int, ...] = ()
    """Not cumulative; one more than there are bounds."""


class OtlpReceiver:
    """The receiver, a context manager for tests with and without `async`.

    Starting and stopping take a few milliseconds.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._scheme = "http" if tls is None else "https"
        self.bodies: list[bytes] = []
        """The body of every request, unpacked but not decoded.

        A test searches it for text that must not be sent.
        """
        self.headers: list[dict[str, str]] = []
        """The headers of every request, names in lower case."""
        self.status = 200
        """The status that the receiver answers. If it is not 200 the request is not kept."""
        self._traces: list[ExportTraceServiceRequest] = []
        self._metrics: list[ExportMetricsServiceRequest] = []
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="otlp receiver", daemon=True
        )

    @property
    def url(self) -> str:
        """The receiver's URL, for `telemetry.otlp`."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "OtlpReceiver":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    # what has come --------------------------------------------------------------------------------

    def spans(self, trace_id: str = "") -> list[ReceivedSpan]:
        """All received spans, or those of one trace, in the order of their start."""
        with self._changed:
            found = [span for request in self._traces for span in _spans(request)]
        return [
            span for _, span in sorted(found, key=lambda each: each[0]) if trace_id in ("", span.trace_id)
        ]

    def tree(self, trace_id: str, *, hide: Collection[str] = _VARYING) -> str:
        """The spans of a trace as text, one line per span.

        A line has kind, name, attributes and links. Children are indented under their parent, siblings
        stand in the order of their start. A linked span is named if it was received (`→ get c1`), else by
        its ids (`→ trace:span`). Attributes in `hide` are left out.
        """
        names = {(span.trace_id, span.span_id): span.name for span in self.spans()}
        spans = self.spans(trace_id)
        known = {span.span_id for span in spans}
        roots = [span for span in spans if span.parent_id not in known]
        return "\n".join(line for root in roots for line in _branch(root, spans, names, hide, 0))

    def metrics(self) -> list[ReceivedPoint]:
        """Every data point that was received, oldest first."""
        with self._changed:
            requests = list(self._metrics)
        return [
            point
            for request in requests
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in _points(metric)
        ]

    def latest(self, name: str) -> list[ReceivedPoint]:
        """The newest point of each series of this metric."""
        return list(
            {
                tuple(sorted(point.attributes.items())): point
                for point in self.metrics()
                if point.name == name
            }.values()
        )

    async def until(self, holds: Callable[["OtlpReceiver"], bool], *, seconds: float = 10.0) -> None:
        """Waits until `holds`, which is called again after each request.

        Raises `TimeoutError` with the spans that were received.
        """
        await asyncio.to_thread(self.wait_until, holds, seconds=seconds)

    def wait_until(self, holds: Callable[["OtlpReceiver"], bool], *, seconds: float = 10.0) -> None:
        """Does the same in a test that is not `async`."""
        with self._changed:
            if not self._changed.wait_for(lambda: holds(self), seconds):
                spans = "\n".join(
                    self.tree(trace_id) for trace_id in {span.trace_id for span in self.spans()}
                )
                raise TimeoutError(f"not within {seconds:g} s; spans received:\n{spans}")

    # receiving ------------------------------------------------------------------------------------

    def _receive(self, path: str, headers: dict[str, str], body: bytes) -> int:
        with self._changed:
            self.headers.append(headers)
            if self.status != 200:
                return self.status
            self.bodies.append(body)
            if path == "/v1/traces":
                self._traces.append(ExportTraceServiceRequest.FromString(body))
            elif path == "/v1/metrics":
                self._metrics.append(ExportMetricsServiceRequest.FromString(body))
            else:
                return 404
            self._changed.notify_all()
            return 200

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receive = self._receive

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                unpacked = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                headers = {name.lower(): value for name, value in self.headers.items()}
                self.send_response(receive(self.path, headers, unpacked))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Writes nothing: tests are silent."""

        return Handler


def _spans(request: ExportTraceServiceRequest) -> Iterator[tuple[int, ReceivedSpan]]:
    """Yields the spans with their start."""
    for resource in request.resource_spans:
        named = _attributes(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield span.start_time_unix_nano, _span(span, named)


def _span(span: trace_pb2.Span, resource: dict[str, Value]) -> ReceivedSpan:
    return ReceivedSpan(
        span.name,
        _KINDS[span.kind],
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        _attributes(span.attributes),
        [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        resource,
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Value]:
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> Value:
    one = pair.value
    if one.HasField("bool_value"):
        return one.bool_value
    if one.HasField("int_value"):
        return one.int_value
    return one.double_value if one.HasField("double_value") else one.string_value


def _points(metric: Metric) -> Iterator[ReceivedPoint]:
    for kind, found in (("sum", metric.sum.data_points), ("gauge", metric.gauge.data_points)):
        for number in found:
            value = number.as_double if number.HasField("as_double") else float(number.as_int)
            yield ReceivedPoint(metric.name, metric.unit, kind, _attributes(number.attributes), value)
    for point in metric.histogram.data_points:
        yield ReceivedPoint(
            metric.name,
            metric.unit,
            "histogram",
            _attributes(point.attributes),
            point.count,
            point.sum,
            tuple(point.explicit_bounds),
            tuple(point.bucket_counts),
        )


def _branch(
    span: ReceivedSpan,
    spans: Sequence[ReceivedSpan],
    names: dict[tuple[str, str], str],
    hide: Collection[str],
    depth: int,
) -> Iterator[str]:
    said = [f"{name}={_text(value)}" for name, value in sorted(span.attributes.items()) if name not in hide]
    links = [f"→ {names.get(link, ':'.join(link))}" for link in span.links]
    failed = ["failed"] if span.failed else []
    yield "  " * depth + " ".join([span.kind, span.name, *failed, *said, *links])
    for child in spans:
        if child.parent_id == span.span_id:
            yield from _branch(child, spans, names, hide, depth + 1)


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
