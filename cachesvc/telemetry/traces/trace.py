"""Spans of a trace: the parts of one request, from its caller to the origin.

The spans are plain records: `sampling.py` decides which are made, `export.py` exports them.

Whether a request is traced is decided once, when it arrives (W3C Trace Context,
https://www.w3.org/TR/trace-context/). Code that works for a request asks `current()`: None means
that nothing is recorded, and costs one look-up. Flights run in tasks that inherit the context of
the request that started them, so their spans are children of that request's span.

A batch serves many requests: it is not a child of one of them. Its span is linked from each
(`Span.link`).

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
"""Links of one span at most; OpenTelemetry has the same limit."""


class SpanContext(NamedTuple):
    """The identity of a span: of the caller's span, or of a linked one."""

    trace_id: int
    span_id: int
    sampled: bool

    @classmethod
    def parse(cls, traceparent: str) -> "SpanContext | None":
        """Returns the context in a `traceparent`.

        None if the text is no `traceparent`: it is ignored then, as the recommendation wants.
        """
        match = _TRACEPARENT.fullmatch(traceparent) if len(traceparent) <= _LONGEST else None
        return cls(int(match[1], 16), int(match[2], 16), bool(int(match[3], 16) & 1)) if match else None

    def __str__(self) -> str:
        """The context as a `traceparent`."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.sampled:02x}"


class Recorder(Protocol):
    """Takes the spans that have ended.

    Called on the event loop; must not block and never raises.
    """

    def record(self, span: "Span") -> None: ...


class Span(Struct, eq=False):
    """One operation of a trace. Attributes and links may be added until it ends."""

    name: str
    kind: Kind
    context: SpanContext
    recorder: Recorder | None
    """None if the trace is not sampled: then the span only hands the caller's context on."""
    parent_id: int = 0
    started_ns: int = field(default_factory=time.time_ns)
    ended_ns: int = 0
    attributes: dict[str, Attribute] = field(default_factory=dict)
    links: list[SpanContext] = field(default_factory=list)
    error: str = ""
    """`error.type`: a class of failures, such as `timeout` or `503`. Empty if nothing failed."""

    def link(self, context: SpanContext) -> None:
        """Links another trace, or another span that is not this one's parent."""
        self.links.append(context)

    def child(self, name: str, kind: Kind = "internal") -> "Span":
        """Returns a span that begins now. Called only on a sampled span."""
        context = SpanContext(self.context.trace_id, new_span_id(), True)
        return Span(name, kind, context, self.recorder, self.context.span_id)

    def end(self, *, error: str = "") -> None:
        """Ends the span and gives it to the recorder. Called once."""
        self.error = error or self.error
        self.ended_ns = time.time_ns()
        if self.recorder is not None:
            self.recorder.record(self)


_CURRENT: ContextVar[Span | None] = ContextVar("cachesvc-span", default=None)


def current() -> Span | None:
    """The sampled span that this code runs under; None if there is none."""
    span = _CURRENT.get()
    return span if span is not None and span.recorder is not None else None


def traceparent() -> str:
    """The `traceparent` for calls to other services.

    Empty if this code runs for no trace. If the trace is not sampled, it is the caller's own.
    """
    span = _CURRENT.get()
    return str(span.context) if span is not None else ""


@contextmanager
def under(span: Span | None) -> Iterator[None]:
    """Runs the block as a part of the span; with None, as a part of no trace."""
    token = _CURRENT.set(span)
    try:
        yield
    finally:
        _CURRENT.reset(token)


_NOTHING: AbstractContextManager[Span | None] = nullcontext()


def span(
    name: str, kind: Kind = "internal", attributes: Mapping[str, Attribute] | None = None
) -> AbstractContextManager[Span | None]:
    """Runs the block in a child of the current span.

    If the block raises, the exception's class is the `error.type` of the span. Where nothing is
    sampled, the block gets None and there is no span.
    """
    parent = current()
    return _NOTHING if parent is None else _spanned(parent.child(name, kind), attributes)


def linked(
    recorder: Recorder | None, name: str, kind: Kind, links: Sequence[SpanContext]
) -> AbstractContextManager[Span | None]:
    """Runs a block that does work for other traces in a trace of its own, linked to them.

    `links` are the sampled ones of these traces. Without a recorder or without links, the block gets
    None and there is no span.
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
    """Returns a random trace id, never 0."""
    return getrandbits(128) or 1


def new_span_id() -> int:
    """Returns a random span id, never 0."""
    return getrandbits(64) or 1
