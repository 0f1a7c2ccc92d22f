"""Records a client's spans and shows them as text.

Each span stands beneath its parent, with its attributes and its links.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from opentelemetry.trace import Span

_LEFT_OUT = ("server.address", "server.port", "cachesvc.namespace", "http.response.status_code")
"""Attributes that are the same for all spans, or that differ from run to run."""


class RecordedSpans:
    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=ParentBased(ALWAYS_ON))
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._unsampled = TracerProvider(sampler=ALWAYS_OFF)

    @contextmanager
    def page(self, name: str = "page", *, sampled: bool = True) -> Iterator[Span]:
        """A request of the application, in a trace of its own."""
        tracer = (self.provider if sampled else self._unsampled).get_tracer("application")
        with tracer.start_as_current_span(name) as span:
            yield span

    @property
    def ended(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.ended if span.name == name]

    def tree(self) -> list[str]:
        """Returns the spans as indented lines, in the order in which the spans began."""
        spans = sorted(self.ended, key=lambda span: span.start_time or 0)
        ids = {span.context.span_id for span in spans}
        return [
            line
            for span in spans
            if span.parent is None or span.parent.span_id not in ids
            for line in _lines(span, spans)
        ]


def _lines(span: ReadableSpan, spans: Sequence[ReadableSpan]) -> Iterator[str]:
    told = [
        f"{name}={value!s}"
        for name, value in sorted((span.attributes or {}).items())
        if name not in _LEFT_OUT
    ]
    linked = [
        f"→ {other.name}"
        for link in span.links
        for other in spans
        if other.context.span_id == link.context.span_id
    ]
    yield " ".join([span.name, span.kind.name.lower(), *told, *linked])
    for child in spans:
        if child.parent is not None and child.parent.span_id == span.context.span_id:
            yield from (f"  {line}" for line in _lines(child, spans))
