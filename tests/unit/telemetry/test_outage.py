"""One line when something begins to fail, one when that is over."""

import logging
from collections.abc import Callable

import pytest

from cachesvc.telemetry.outage import STEADY_SECONDS, Outage

log = logging.getLogger("far away")


class Seconds:
    def __init__(self) -> None:
        self.passed = 0.0

    def __call__(self) -> float:
        return self.passed


@pytest.fixture
def now() -> Seconds:
    return Seconds()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    return lambda: [record.getMessage() for record in caplog.records]


def test_an_outage_is_two_lines_however_often_it_fails(now: Seconds, said: Callable[[], list[str]]) -> None:
    outage = Outage("cell c1", log, now=now)
    for _ in range(600):
        outage.failed("refused")
        now.passed += 0.1
    now.passed += STEADY_SECONDS
    outage.worked()
    outage.worked()
    assert said() == ["cell c1 fails: refused", "cell c1 works again, after 600 failures in 60 s"]


def test_what_fails_now_and_then_is_out_until_it_is_steady(
    now: Seconds, said: Callable[[], list[str]]
) -> None:
    outage = Outage("cell c1", log, now=now)
    for _ in range(100):
        outage.failed("slow")
        now.passed += STEADY_SECONDS / 2
        outage.worked()
    assert said() == ["cell c1 fails: slow"]
    assert repr(outage) == "<Outage of cell c1 [on, 100 failures]>"


def test_the_next_outage_is_said_and_counted_anew(now: Seconds, said: Callable[[], list[str]]) -> None:
    outage = Outage("cell c1", log, now=now)
    for _ in range(2):
        outage.failed("refused")
        now.passed += STEADY_SECONDS
        outage.worked()
    assert said() == ["cell c1 fails: refused", "cell c1 works again, after 1 failures in 0 s"] * 2
