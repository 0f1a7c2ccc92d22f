"""The service's log on stderr: one JSON object per line, or plain lines on a terminal.

Our modules and the libraries log with the standard library. Every record goes through the one
handler that is made here. The handler adds the region, the instance and the trace, and removes
what must not stand in a log. Libraries are logged from `WARNING` on, whatever the level is: below
that they quote the data that they work with.
"""

import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from cachesvc.config.service import Service
from cachesvc.model.printable import printable
from cachesvc.telemetry.logs.repeats import Repeats
from cachesvc.telemetry.traces.trace import SpanContext, traceparent

HIDDEN = "***"
AUDIT = "cachesvc.audit"
"""The logger of the audit."""

_USER_INFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@]*@", re.IGNORECASE)
_SECRET_PARAMETER = re.compile(r"([?&](?:username|password|token|secret|key)=)[^&\s]+", re.IGNORECASE)
_SECRET_HEADER = re.compile(
    r"\b((?:cachesvc-token|cachesvc-debug|authorization|cookie)\b['\"]?\s*[:=,]\s*['\"]?)"
    r"(?:(?:basic|bearer)\s+)?[^'\"\s,)]+",
    re.IGNORECASE,
)
_QUOTING = (LookupError, ValueError)
"""Errors whose message may quote a caller's data, such as a key.

For these errors only the type and the place are logged.
"""


class _Handler(logging.StreamHandler[TextIO]):
    """Marks the handler that `set_up` added, so that a second `set_up` replaces it."""


def set_up(service: Service, stream: TextIO | None = None) -> None:
    """Sends every log record to `stream` (default: stderr), as the service document wants it."""
    stream = sys.stderr if stream is None else stream
    handler = _Handler(stream)
    handler.setFormatter(formatter(service, for_people=is_for_people(service.telemetry.log_format, stream)))
    handler.addFilter(Repeats())
    root = logging.getLogger()
    for former in [one for one in root.handlers if isinstance(one, _Handler)]:
        root.removeHandler(former)
    root.addHandler(handler)
    level = logging.getLevelNamesMapping()[service.telemetry.log_level.upper()]
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("cachesvc").setLevel(level)
    logging.getLogger(AUDIT).setLevel(logging.INFO)  # its records are written at any level
    logging.captureWarnings(True)  # else Python writes lines of its own among ours


def is_for_people(log_format: str, stream: TextIO) -> bool:
    """True if lines for people are wanted: `console`, or `auto` on a terminal."""
    return log_format == "console" or (log_format == "auto" and stream.isatty())


def formatter(service: Service, *, for_people: bool) -> logging.Formatter:
    """The formatter of the service's log: lines for people, or JSON objects."""
    add_place = _adder(region=service.region, instance=service.instance)
    render: list[Processor] = (
        [_as_traceback, _as_printable, structlog.dev.ConsoleRenderer()] if for_people else [_JSON]
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(allow=["repeated", "audit"]),
            *([] if for_people else [add_place]),
            _add_trace,
            _add_exception,
            _without_secrets([service.telemetry.debug_token, *service.l2.seal_keys.split()]),
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )


_JSON = structlog.processors.JSONRenderer()


def _adder(**fields: str) -> Processor:
    def add(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
        line.update(fields)
        return line

    return add


def _add_trace(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Adds the ids of the current trace.

    The ids are added for a trace that is not sampled here, too: its caller knows it by them.
    """
    context = SpanContext.parse(traceparent())
    if context is not None:
        line["trace_id"], line["span_id"] = f"{context.trace_id:032x}", f"{context.span_id:016x}"
    return line


def _add_exception(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Replaces the exception by types, messages and places.

    Values of variables are left out, because they are our users' data.
    """
    found = line.pop("exc_info", None)
    error = found[1] if isinstance(found, tuple) else None
    if error is not None:
        line["exception"] = [_told(one) for one in _chain(error)]
    return line


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields the error, then its cause or context, then the cause of that, and so on."""
    following: BaseException | None = error
    seen: set[int] = set()
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)


def _told(error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "type": type(error).__qualname__,
        "message": "" if isinstance(error, _QUOTING) else str(error),
        "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }


def _as_traceback(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Turns the recorded exception into text for people, one place per line."""
    if "exception" in line:
        told = line.pop("exception")
        line["exception"] = "\n".join(
            text
            for one in told
            for text in (f"{one['type']}: {one['message']}", *(f"  {frame}" for frame in one["frames"]))
        )
    return line


def _as_printable(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Shows what would move the cursor or the reader's eye as an escape, as JSON does."""
    return {name: _everywhere(partial(printable, keep="\n"), value) for name, value in line.items()}


def _without_secrets(secrets: Iterable[str]) -> Processor:
    """Hides credentials in every field of a line, whatever library wrote the message.

    Hidden are user and password of URLs, secret parameters and headers, and these `secrets`.
    """
    whole = [secret for secret in secrets if secret]

    def hide(text: str) -> str:
        for secret in whole:
            text = text.replace(secret, HIDDEN)
        text = _USER_INFO.sub(rf"\1{HIDDEN}@", text)
        return _SECRET_HEADER.sub(rf"\1{HIDDEN}", _SECRET_PARAMETER.sub(rf"\1{HIDDEN}", text))

    def hide_all(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
        return {name: _everywhere(hide, value) for name, value in line.items()}

    return hide_all


def _everywhere(hide: Callable[[str], str], value: Any) -> Any:
    """Applies `hide` to a text, and to every text inside a list or a mapping."""
    match value:
        case str():
            return hide(value)
        case list():
            return [_everywhere(hide, one) for one in value]
        case dict():
            return {name: _everywhere(hide, one) for name, one in value.items()}
        case _:
            return value
