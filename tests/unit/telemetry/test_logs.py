"""The members that a line of the log has, and those that it never has."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from cachesvc.config.service import Service, Telemetry
from cachesvc.telemetry.logs import logs
from cachesvc.telemetry.logs.repeats import KNOWN, QUIET_SECONDS, Repeats
from cachesvc.telemetry.traces.trace import Span, SpanContext, under

SERVICE = Service(region="eu", instance="eu-a", telemetry=Telemetry(debug_token="a token of sixteen"))
SPAN = Span("cache.get", "server", SpanContext(0xABC, 0xDEF, True), None)


def fail(why: str) -> None:
    raise RuntimeError(why)


def failure(why: str = "again") -> RuntimeError:
    """From one and the same place."""
    with pytest.raises(RuntimeError) as raised:
        fail(why)
    return raised.value


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """One whose records go where a test sends them, and not to pytest's handlers."""
    found = logging.getLogger("cachesvc.test_logs")
    found.propagate = False
    found.setLevel(logging.DEBUG)
    yield found
    found.handlers.clear()


@pytest.fixture
def lines(logger: logging.Logger) -> Callable[[], list[dict[str, Any]]]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.formatter(SERVICE, for_people=False))
    logger.addHandler(handler)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_what_where_and_in_which_trace(
    logger: logging.Logger, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    with under(SPAN):
        logger.warning("%s fails: %s", "cell c1", "refused")
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "cell c1 fails: refused",
        "level": "warning",
        "logger": "cachesvc.test_logs",
        "region": "eu",
        "instance": "eu-a",
        "trace_id": f"{0xABC:032x}",
        "span_id": f"{0xDEF:016x}",
    }


def test_an_exception_is_a_field_with_its_cause_and_without_the_values_at_hand(
    logger: logging.Logger, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    value = "what a user wrote"
    try:
        try:
            dict[str, str]()[value]
        except KeyError as error:
            raise RuntimeError("broken") from error
    except RuntimeError:
        logger.exception("a request failed")
    (line,) = lines()
    assert [(one["type"], one["message"]) for one in line["exception"]] == [
        ("RuntimeError", "broken"),
        ("KeyError", ""),
    ]
    assert "test_logs.py:" in line["exception"][0]["frames"][-1]
    assert value not in json.dumps(line)


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("redis://me:hunter2@far:6379/0 fails", "redis://***@far:6379/0 fails"),
        ("redis://:hunter2@far:6379/0", "redis://***@far:6379/0"),
        ("unix:///run/q.sock?db=0&password=hunter2", "unix:///run/q.sock?db=0&password=***"),
        ("Cachesvc-Token: hunter2, X: 1", "Cachesvc-Token: ***, X: 1"),
        ("{'Authorization': 'Bearer hunter2'}", "{'Authorization': '***'}"),
        ("sent a token of sixteen", "sent ***"),
        ("https://far/v1/pages/a@b answers", "https://far/v1/pages/a@b answers"),
    ],
)
def test_secrets_are_hidden(
    logger: logging.Logger, lines: Callable[[], list[dict[str, Any]]], said: str, written: str
) -> None:
    logger.warning("%s", said)
    logger.error("failed", exc_info=failure(said))
    plain, failed = lines()
    assert plain["event"] == written
    assert failed["exception"][0]["message"] == written


def test_lines_for_people_have_neither_json_nor_secrets(logger: logging.Logger) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.formatter(SERVICE, for_people=True))
    logger.addHandler(handler)
    logger.error("failed", exc_info=failure("redis://:hunter2@far"))
    said = stream.getvalue()
    assert "failed" in said
    assert "RuntimeError: redis://***@far" in said
    assert not said.startswith("{")


@pytest.mark.parametrize("for_people", [True, False])
def test_no_line_moves_a_cursor_or_an_eye(logger: logging.Logger, for_people: bool) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.formatter(SERVICE, for_people=for_people))
    logger.addHandler(handler)
    logger.error("from %s", "\x1b]0;owned\x07\u202e", exc_info=failure("\x1b[2J\u202e"))
    assert not any(one in stream.getvalue() for one in ["\x1b]0", "\x07", "\u202e", "\x1b[2J"])


@pytest.mark.parametrize(
    ("log_format", "stream", "for_people"),
    [
        ("auto", io.StringIO(), False),
        ("auto", Terminal(), True),
        ("json", Terminal(), False),
        ("console", io.StringIO(), True),
    ],
)
def test_a_terminal_gets_lines_for_people_unless_told_otherwise(
    log_format: str, stream: io.StringIO, for_people: bool
) -> None:
    assert logs.is_for_people(log_format, stream) is for_people


@pytest.fixture
def logging_as_found() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("cachesvc")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.mark.usefixtures("logging_as_found")
def test_libraries_are_heard_from_warnings_on_and_a_second_set_up_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    service = replace(SERVICE, telemetry=Telemetry(log_level="debug"))
    logs.set_up(service, first)
    logs.set_up(service, second)
    logging.getLogger("redis").info("GET what a user wrote")
    logging.getLogger("redis").warning("a library's")
    logging.getLogger("cachesvc.feed").debug("ours")
    assert first.getvalue() == ""
    assert [json.loads(line)["event"] for line in second.getvalue().splitlines()] == ["a library's", "ours"]


# the same problem again ---------------------------------------------------------------------------------------------------


def record(name: str, text: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error is not None else None
    return logging.LogRecord(name, logging.WARNING, __file__, 1, text, args, exc_info)


def test_what_a_library_says_at_each_try_is_said_once_a_minute_with_a_count() -> None:
    seconds = 0.0
    repeats = Repeats(now=lambda: seconds)
    assert [repeats.filter(record("opentelemetry", "retrying in %.2fs", nth / 10)) for nth in range(10)] == [
        True
    ] + [False] * 9
    seconds = QUIET_SECONDS
    later = record("opentelemetry", "retrying in %.2fs", 8.0)
    assert repeats.filter(later)
    assert later.repeated == 9  # type: ignore[attr-defined]  # as logging has it for what is `extra`


def test_the_same_failure_of_many_requests_is_one_problem_and_another_is_another() -> None:
    repeats = Repeats(now=lambda: 0.0)
    same = [record("cachesvc.web", "request %s failed", nth, error=failure()) for nth in range(3)]
    assert [repeats.filter(one) for one in same] == [True, False, False]
    assert repeats.filter(record("cachesvc.web", "request 4 failed", error=KeyError("elsewhere")))


def test_our_lines_on_a_state_always_pass() -> None:
    repeats = Repeats(now=lambda: 0.0)
    assert all(repeats.filter(record("cachesvc.feed", "%s fails", "the feed")) for _ in range(3))


def test_what_is_remembered_is_bounded() -> None:
    repeats = Repeats(now=lambda: 0.0)
    for nth in range(KNOWN + 1):
        repeats.filter(record("library", f"problem {nth}"))
    assert repeats.filter(record("library", "problem 0")), "forgotten, so it is news"
    assert not repeats.filter(record("library", f"problem {KNOWN}"))
