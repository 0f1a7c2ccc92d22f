"""Spans of OpenTelemetry: one for each call, and one for each request that serves calls.

    cache.get          (internal)  a caller's call; it waits for its batch
      cache.get        (client)    the request, beneath the first of its callers that is sampled;
                                   the service's span is beneath it
    cache.get          (internal)  another caller in the batch: linked to that request
    cache.get_or_load  (internal)
      cache.get        (client)    the lease
      cache.load       (internal)  the loader runs in it
      cache.set        (internal)  the fill

A call has spans only if the caller's own span is sampled: no span is begun for a trace that nobody
keeps. A process that does not use OpenTelemetry pays for one look-up; OpenTelemetry is not imported
from here. Answers of a near cache have no span. No key and no value is in a span, nor the message
of an error, which may quote them.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias

from cachesvc_client.errors import CacheError
from cachesvc_client.protocol.wire import Got

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

Attributes: TypeAlias = Mapping[str, str | int | bool]

_SCOPE = "cachesvc_client"
_API = "opentelemetry.trace"


class Call:
    """A span that was begun here, and the tracer that begins the spans beneath it."""

    __slots__ = ("span", "tracer")

    def __init__(self, span: "Span", tracer: "Tracer") -> None:
        self.span = span
        self.tracer = tracer


_NOTHING: AbstractContextManager[Call | None] = nullcontext()
_CALLERS: ContextVar[tuple[Call, ...]] = ContextVar("cachesvc-callers", default=())
"""The sampled calls that the running code works for: all callers of a batch, else one."""


class Spans:
    """The spans of one client's calls."""

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        """`provider` is used instead of the process's own."""
        self._provider = provider
        self._tracer: Tracer | None = None

    def call(self, name: str, namespace: str, *, items: int = 1) -> AbstractContextManager[Call | None]:
        """Returns a span to enter around one caller's call.

        It is no span, and gives None, if the caller's trace is not sampled.
        """
        api = sys.modules.get(_API)
        if api is None or not api.get_current_span().get_span_context().trace_flags & 1:
            return _NOTHING
        tracer = self._tracer
        if tracer is None:
            tracer = self._tracer = (self._provider or api.get_tracer_provider()).get_tracer(_SCOPE)
        return _around(api, tracer, name, {"cachesvc.namespace": namespace, **_batch_size(items)})


def inner(name: str) -> AbstractContextManager[Call | None]:
    """Returns a span to enter around a part of the call that the running code works for.

    It is no span, and gives None, if the call is not sampled.
    """
    callers = _CALLERS.get()
    return _around(sys.modules[_API], callers[0].tracer, name, {}) if callers else _NOTHING


@contextmanager
def _around(api: Any, tracer: "Tracer", name: str, attributes: Attributes) -> Iterator[Call]:
    call = Call(tracer.start_span(name, attributes=attributes), tracer)
    token = _CALLERS.set((call,))
    try:
        with _current(api, call):
            yield call
    finally:
        _CALLERS.reset(token)


def callers() -> tuple[Call, ...]:
    """Returns the sampled calls that the running code works for.

    They are handed on to the batch that does this work together with other callers' work.
    """
    return _CALLERS.get()


def carry(callers: Iterable[Call]) -> None:
    """Makes the current context work for these calls from now on."""
    _CALLERS.set(tuple(callers))


@contextmanager
def carrying(callers: Iterable[Call]) -> Iterator[None]:
    """Makes the current context work for these calls within the block."""
    token = _CALLERS.set(tuple(callers))
    try:
        yield
    finally:
        _CALLERS.reset(token)


def request_span(name: str, *, items: int = 1) -> AbstractContextManager[Call | None]:
    """Returns a span to enter around one request; its `traceparent` is sent with the request.

    It is no span, and gives None, if no caller is sampled or `name` is empty.
    """
    callers = _CALLERS.get()
    return _requested(callers, name, items) if callers and name else _NOTHING


@contextmanager
def _requested(callers: tuple[Call, ...], name: str, items: int) -> Iterator[Call]:
    api: Any = sys.modules[_API]
    # The request may ask again for a late key. Callers that were answered with the rest of the batch
    # have ended their spans; the request's span belongs to callers that still wait.
    waiting = [one for one in callers if one.span.is_recording()] or list(callers[:1])
    first, *others = waiting
    beneath = api.set_span_in_context(first.span)
    span = first.tracer.start_span(name, beneath, api.SpanKind.CLIENT, _batch_size(items))
    for other in others:
        other.span.add_link(span.get_span_context())
    call = Call(span, first.tracer)
    with _current(api, call):
        yield call


@contextmanager
def _current(api: Any, call: Call) -> Iterator[None]:
    try:
        with api.use_span(call.span, record_exception=False, set_status_on_exception=False):
            yield
    except BaseException as error:
        tell_failure(call, error.type if isinstance(error, CacheError) else type(error).__name__)
        raise
    finally:
        call.span.end()


def tell_failure(call: Call | None, error_type: str) -> None:
    """Marks the call's span as failed, with the attribute `error.type`."""
    if call is not None:
        api: Any = sys.modules[_API]
        call.span.set_attribute("error.type", error_type)
        call.span.set_status(api.Status(api.StatusCode.ERROR))


def tell_server(call: Call | None, address: str, port: int | None, status: int) -> None:
    """Notes on a request's span which instance answered, and with which status."""
    if call is not None:
        call.span.set_attribute("server.address", address)
        call.span.set_attribute("server.port", port or 0)
        call.span.set_attribute("http.response.status_code", status)
        if status >= 500:
            tell_failure(call, str(status))


def tell_got(got: Got, *, lease: bool = False) -> None:
    """Notes the answer on the spans of the calls that the running code works for.

    The attributes are those that the service puts on its own spans.
    """
    for call in _CALLERS.get():
        call.span.set_attributes(
            {"cache.hit": got.outcome not in ("miss", "loaded"), "cachesvc.outcome": got.outcome}
        )
        if got.tier:
            call.span.set_attribute("cache.tier", got.tier)
        if got.outcome == "stale":
            call.span.set_attribute("cachesvc.stale", True)
        if lease:
            call.span.set_attribute("cachesvc.lease", "granted")
        if got.lag is not None:
            call.span.set_attribute("cachesvc.lag_ms", got.lag * 1000)


def tell_collapsed() -> None:
    """Notes on the call's span that it waits for a load that another call began."""
    for call in _CALLERS.get():
        call.span.set_attribute("cachesvc.collapsed", True)


def _batch_size(items: int) -> dict[str, int]:
    return {"cachesvc.batch.size": items} if items > 1 else {}
