"""Traces: what one request did, from its caller to the origin.

Plain records: `telemetry.sampling` decides, `telemetry.tracing` exports.

Whether a request is traced is decided once, where it arrives (W3C Trace Context, https://www.w3.org/TR/trace-context/). What is
called for it asks `current()`: None means that nothing is recorded, and that costs one look-up. Flights run in tasks that inherit
the context of who started them, so their spans are children of that request's.

A batch serves many: it is no child of one of them. Its span is linked from each (`Span.link`).

No key and no value belongs in a span. Attribute names: OpenTelemetry's where it has one, else `cachesvc.…`.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from random import getrandbits
from typing import Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Struct, field

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attribute: TypeAlias = str | bool | int | float

_TRACEPARENT = re.compile(
    r"(?!ff|00-.{53})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
_LONGEST = 128
MOST_LINKS = 128
"""Of a span for many, as OpenTelemetry limits them."""


class SpanContext(NamedTuple):
    """Who called, or what is linked."""

    trace_id: int
    span_id: int
    sampled: bool

    @classmethod
    def parse(cls, traceparent: str) -> "SpanContext | None":
        """None if it is no `traceparent`: then it is ignored, as the recommendation wants."""
        match = _TRACEPARENT.fullmatch(traceparent) if len(traceparent) <= _LONGEST else None
        return cls(int(match[1], 16), int(match[2], 16), bool(int(match[3], 16) & 1)) if match else None

    def __str__(self) -> str:
        """As a `traceparent`."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.sampled:02x}"


class Recorder(Protocol):
    """Where ended spans go. Called on the event loop; must not block and never raises."""

    def record(self, span: "Span") -> None: ...


class Span(Struct, eq=False):
    """One operation of a trace. Attributes and links may be added until it ends."""

    name: str
    kind: Kind
    context: SpanContext
    recorder: Recorder | None
    """None: not sampled. It is there only to hand the caller's context on."""
    parent_id: int = 0
    started_ns: int = field(default_factory=time.time_ns)
    ended_ns: int = 0
    attributes: dict[str, Attribute] = field(default_factory=dict)
    links: list[SpanContext] = field(default_factory=list)
    error: str = ""
    """`error.type`: a class of failures such as `timeout` or `503`. Empty if it went well."""

    def link(self, context: SpanContext) -> None:
        """This one has to do with another trace, or with another span that is not its parent."""
        self.links.append(context)

    def child(self, name: str, kind: Kind = "internal") -> "Span":
        """Begun now. Only of a sampled span."""
        context = SpanContext(self.context.trace_id, new_span_id(), True)
        return Span(name, kind, context, self.recorder, self.context.span_id)

    def end(self, *, error: str = "") -> None:
        """Once: it goes to the recorder."""
        self.error = error or self.error
        self.ended_ns = time.time_ns()
        if self.recorder is not None:
            self.recorder.record(self)


_CURRENT: ContextVar[Span | None] = ContextVar("cachesvc-span", default=None)


def current() -> Span | None:
    """The sampled span that this runs under."""
    span = _CURRENT.get()
    return span if span is not None and span.recorder is not None else None


def traceparent() -> str:
    """To hand on to whom this calls; empty if this runs for no trace. The caller's own if the trace is not sampled."""
    span = _CURRENT.get()
    return str(span.context) if span is not None else ""


@contextmanager
def under(span: Span | None) -> Iterator[None]:
    """What runs inside is part of it. With None: of no trace."""
    token = _CURRENT.set(span)
    try:
        yield
    finally:
        _CURRENT.reset(token)


_NOTHING: AbstractContextManager[Span | None] = nullcontext()


def span(
    name: str, kind: Kind = "internal", attributes: Mapping[str, Attribute] | None = None
) -> AbstractContextManager[Span | None]:
    """A child of the current span around what runs inside; ended with the exception's class as `error.type` if one is raised.

    Nothing, and None, where nothing is sampled.
    """
    parent = current()
    return _NOTHING if parent is None else _spanned(parent.child(name, kind), attributes)


def linked(
    recorder: Recorder | None, name: str, kind: Kind, links: Sequence[SpanContext]
) -> AbstractContextManager[Span | None]:
    """Around work that was asked for elsewhere, by any number of others: a trace of its own that says who they were.

    Nothing, and None, without a recorder or if none of `links` is sampled; `links` are those that are.
    """
    if recorder is None or not links:
        return _NOTHING
    context = SpanContext(new_trace_id(), new_span_id(), True)
    return _spanned(Span(name, kind, context, recorder, links=[*links[:MOST_LINKS]]), None)


@contextmanager
def _spanned(span: Span, attributes: Mapping[str, Attribute] | None) -> Iterator[Span]:
    if attributes:
        span.attributes.update(attributes)
    try:
        with under(span):
            yield span
    except BaseException as error:
        span.end(error=type(error).__name__)
        raise
    span.end()


def new_trace_id() -> int:
    return getrandbits(128) or 1


def new_span_id() -> int:
    return getrandbits(64) or 1
