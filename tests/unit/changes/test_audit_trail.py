"""The audit of one process: what it keeps, what it leaves out, and that nothing in it misleads anybody."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from cachesvc.changes.audit import audit_of
from cachesvc.changes.audit_trail import REFUSALS_A_SECOND, REFUSALS_OF_ONE, AuditTrail
from cachesvc.config.service import Server, Service, Telemetry, is_audit_logged
from cachesvc.model.change import Change
from cachesvc.model.requests import Author
from cachesvc.telemetry.logs import logs
from tests.doubles.clocks import ManualClock

CHECKOUT = Author("checkout", "10.0.0.7", "web-7")
HOSTILE = (
    "\x1b[2J\x1b[31mroot",
    "admin\nidentity=root receipt=eu:1-0",
    "admin\r",
    "\u202eadmin\u202c",
    "a\u2066b\u2069",
    "a\u200bb",
    "a\x00b",
    "a\x9bb",
    "\udce4",
    "x" * 100_000,
    "[bold red]root[/]",
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def trail(clock: ManualClock) -> AuditTrail:
    return AuditTrail("eu", clock, 5, is_logged=False)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """The log, as JSON, with a level at which nothing but errors is written."""
    stream, root = io.StringIO(), logging.getLogger()
    before = root.handlers[:], root.level, logging.getLogger("cachesvc").level
    logs.set_up(Service(instance="a", telemetry=Telemetry(log_level="error", log_format="json")), stream)
    yield stream
    root.handlers[:], root.level = before[0], before[1]
    logging.getLogger("cachesvc").setLevel(before[2])


def change(trail: AuditTrail, author: Author = CHECKOUT, namespace: str = "pages", id_: str = "1-0") -> None:
    trail.changed(audit_of([Change(namespace, keys=("secret", "k"))], author, "a"), id_, "done")


def test_a_change_is_recorded_with_who_made_it_and_without_keys(
    trail: AuditTrail, clock: ManualClock
) -> None:
    change(trail)
    (record,) = trail.find()
    assert (record.number, record.at, record.what, record.outcome) == (
        1,
        clock.now_us(),
        "invalidate",
        "done",
    )
    assert (record.identity, record.address, record.says) == ("checkout", "10.0.0.7", "web-7")
    assert (record.namespace, record.targets, record.receipt) == ("pages", "2 keys", "eu:1-0")
    assert "secret" not in repr(record)


def test_a_soft_or_paced_change_says_so(trail: AuditTrail) -> None:
    for one in (Change("pages", all=True, soft=True), Change("pages", tags=("t",), over="5m")):
        trail.changed(audit_of([one], CHECKOUT, "a"), "1-0", "open")
    assert [(record.targets, record.how) for record in trail.find()] == [
        ("1 tag", "over 5m"),
        ("all", "soft"),
    ]


def test_a_change_of_nobody_who_called_is_not_one_of_this_trail(trail: AuditTrail) -> None:
    change(trail, Author(says="/orders"))
    assert trail.find() == []


def test_the_newest_are_first_and_the_oldest_make_room(trail: AuditTrail) -> None:
    for number in range(8):
        change(trail, id_=f"{number}-0")
    assert [record.receipt for record in trail.find()] == ["eu:7-0", "eu:6-0", "eu:5-0", "eu:4-0", "eu:3-0"]
    assert (trail.recorded, trail.dropped) == (8, 3)


def test_it_is_asked_by_namespace_identity_time_and_number(trail: AuditTrail, clock: ManualClock) -> None:
    change(trail, id_="1-0")
    clock.advance(seconds=10)
    change(trail, Author("", "10.0.0.8"), id_="2-0")
    change(trail, namespace="users", id_="3-0")

    def receipts(**asked: object) -> list[str]:
        return [record.receipt for record in trail.find(**asked)]  # type: ignore[arg-type]  # as a query has them

    assert receipts(namespace="pages") == ["eu:2-0", "eu:1-0"]
    assert receipts(identity="checkout") == ["eu:3-0", "eu:1-0"]
    assert receipts(since_us=clock.now_us()) == ["eu:3-0", "eu:2-0"]
    assert receipts(namespace="pages", identity="checkout", since_us=clock.now_us()) == []
    assert receipts(limit=1) == ["eu:3-0"]


def test_refusals_are_limited_and_the_next_record_says_how_many_were_left_out(clock: ManualClock) -> None:
    trail = AuditTrail("eu", clock, 1000, is_logged=False)
    for _ in range(100):
        trail.refused(Author("", "10.6.6.6"), "no-identity", lambda: ("invalidate", "pages"))
    trail.refused(Author("", "10.0.0.8"), "no-identity", lambda: ("get", "pages"))
    assert [(one.address, one.left_out) for one in trail.find()] == [
        ("10.0.0.8", 98),
        *[("10.6.6.6", 0)] * REFUSALS_OF_ONE,
    ]
    for number in range(100):
        trail.refused(Author("", f"10.1.1.{number}"), "no-identity", lambda: ("get", "pages"))
    assert len(trail.find(limit=1000)) == REFUSALS_A_SECOND
    assert trail.left_out == 98 + 100 - (REFUSALS_A_SECOND - REFUSALS_OF_ONE - 1)
    clock.advance(seconds=1)
    trail.refused(Author("", "10.6.6.6"), "no-identity", lambda: ("invalidate", "pages"))
    assert trail.find(limit=1)[0].left_out == trail.left_out - 98


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_from_elsewhere_leads_a_reader_astray(
    clock: ManualClock, lines: io.StringIO, text: str
) -> None:
    """Neither in what is kept nor in the log: every record is one line, and every text printable and short."""
    trail = AuditTrail("eu", clock, 5, is_logged=True)
    author = Author(text, text, text)
    change(trail, author)
    trail.refused(author, "no-identity", lambda: (text, text))
    trail.operated(author, "hotkeys with key text", "pages")
    for record in trail.find():
        for shown in (record.identity, record.address, record.says, record.namespace, record.operation):
            assert shown.isprintable()
            assert len(shown) <= 256
    written = lines.getvalue()
    assert written.isascii()
    assert len(written.splitlines()) == 3
    told = [json.loads(line) for line in written.splitlines()]
    assert [one["audit"]["what"] for one in told] == ["invalidate", "refused", "operate"]
    assert {one["event"] for one in told} == {"audit"}
    assert told[0]["audit"]["receipt"] == "eu:1-0"


def test_records_are_log_lines_unless_this_machine_alone_is_served() -> None:
    assert not is_audit_logged(Service())
    assert is_audit_logged(Service(server=Server(host="0.0.0.0")))  # noqa: S104  it is the question
    assert is_audit_logged(Service(telemetry=Telemetry(audit_log="always")))
    assert not is_audit_logged(
        Service(server=Server(host="10.0.0.1"), telemetry=Telemetry(audit_log="never"))
    )
