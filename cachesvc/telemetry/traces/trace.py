"""Spans of a trace: the parts of one request, from its caller to the origin.

Spans are plain records: `sampling.py` decides which are made, `export.py` sends them.

Whether a request is traced is decided once, where it arrives (W3C Trace Context,
https://www.w3.org/TR/trace-context/). Code that runs for the request asks `current()`: None means
that nothing is recorded, and that costs one look-up. Flights run in tasks that inherit the
context of the request that started them, so the spans of a flight are children of that request's
span.

A batch serves many requests. The requests whose span is not the parent of the batch's span link
to it (`Span.link`).

No key and no value belongs in a span. Attribute names are OpenTelemetry's where it has one, else
`cachesvc.…`.
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
"""The most links of a span that serves many callers; OpenTelemetry has the same limit."""


class SpanContext(NamedTuple):
    """The identity of a span: of a caller's span, or of one that is linked."""

    trace_id: int
    span_id: int
    sampled: bool

    @classmethod
    def parse(cls, traceparent: str) -> "SpanContext | None":
        """The context that a `traceparent` header names; None for a malformed one.

        The recommendation wants a malformed header to be ignored.
        """
        match = _TRACEPARENT.fullmatch(traceparent) if len(traceparent) <= _LONGEST else None
        return cls(int(match[1], 16), int(match[2], 16), bool(int(match[3], 16) & 1)) if match else None

    def __str__(self) -> str:
        """The context as a `traceparent` header."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.sampled:02x}"


class Recorder(Protocol):
    """Takes ended spans. Called on the event loop; must not block and never raises."""

    def record(self, span: "Span") -> None:
        """Takes an ended span."""
        ...


class Span(Struct, eq=False):
    """One operation of a trace. Attributes and links may be added until it ends."""

    name: str
    kind: Kind
    context: SpanContext
    recorder: Recorder | None
    """None: the trace is not sampled, and this span only hands the caller's context on."""
    parent_id: int = 0
    started_ns: int = field(default_factory=time.time_ns)
    ended_ns: int = 0
    attributes: dict[str, Attribute] = field(default_factory=dict)
    links: list[SpanContext] = field(default_factory=list)
    error: str = ""
    """The attribute `error.type`: a class of failures, such as `timeout` or `503`.

    Empty if nothing failed.
    """

    def link(self, context: SpanContext) -> None:
        """Links this span to another trace, or to another span that is not its parent."""
        self.links.append(context)

    def child(self, name: str, kind: Kind = "internal") -> "Span":
        """A span below this one that begins now. Call it only on a sampled span."""
        context = SpanContext(self.context.trace_id, new_span_id(), True)
        return Span(name, kind, context, self.recorder, self.context.span_id)

    def end(self, *, error: str = "") -> None:
        """Ends the span and gives it to the recorder. Call it once."""
        self.error = error or self.error
        self.ended_ns = time.time_ns()
        if self.recorder is not None:
            self.recorder.record(self)


_CURRENT: ContextVar[Span | None] = ContextVar("cachesvc-span", default=None)


def current() -> Span | None:
    """The sampled span that the caller runs under; None if there is none."""
    span = _CURRENT.get()
    return span if span is not None and span.recorder is not None else None


def traceparent() -> str:
    """The `traceparent` header for calls to other services; empty outside of a trace.

    If the trace is not sampled, it is the header that the caller sent.
    """
    span = _CURRENT.get()
    return str(span.context) if span is not None else ""


@contextmanager
def under(span: Span | None) -> Iterator[None]:
    """Makes `span` the current span of what runs inside. With None, nothing is traced inside."""
    token = _CURRENT.set(span)
    try:
        yield
    finally:
        _CURRENT.reset(token)


_NOTHING: AbstractContextManager[Span | None] = nullcontext()


def span(
    name: str, kind: Kind = "internal", attributes: Mapping[str, Attribute] | None = None
) -> AbstractContextManager[Span | None]:
    """Records a child of the current span around what runs inside.

    If an exception is raised, the child's `error.type` is the exception's class. Where nothing is
    sampled, this records nothing and yields None.
    """
    parent = current()
    return _NOTHING if parent is None else _spanned(parent.child(name, kind), attributes)


def linked(
    recorder: Recorder | None, name: str, kind: Kind, links: Sequence[SpanContext]
) -> AbstractContextManager[Span | None]:
    """Records a new trace around work that other traces asked for, with links to them.

    `links` are the sampled ones among those traces; at most `MOST_LINKS` are kept. Without a recorder
    or without links, this records nothing and yields None.
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
    """A random 128-bit id that is not 0."""
    return getrandbits(128) or 1


def new_span_id() -> int:
    """A random 64-bit id that is not 0."""
    return getrandbits(64) or 1
