"""Leader and followers: calls that arrive while others are under way leave in one request, and nobody's trouble is another's."""

import threading
from collections.abc import Sequence
from functools import partial

import pytest
from cachesvc_client import CacheError
from cachesvc_client.protocol.batch_limits import MAX_ITEMS
from cachesvc_client.sync.batching import LANES, Batcher
from cachesvc_client.sync.intake import Spread

from clients.python.tests.sync.callers import PATIENCE, Caller, calls, results, until


class Torn(BaseException):
    """As `gevent.Timeout`: not an error of the call, but the end of the caller."""


class Line:
    """Records what is sent. The first `gated` batches wait for a gate each; later ones are answered at once."""

    def __init__(self, gated: int = 0) -> None:
        self.sent: list[list[str]] = []
        self.departed = threading.Semaphore(0)
        self.gates = [threading.Event() for _ in range(gated)]
        self.tears: set[int] = set()
        """Batches whose leader is torn out of its call."""
        self._lock = threading.Lock()

    def __call__(self, items: list[str], _deadline: float) -> Sequence[str | CacheError]:
        with self._lock:
            number = len(self.sent)
            self.sent.append(items)
        self.departed.release()
        if number < len(self.gates):
            assert self.gates[number].wait(PATIENCE)
        if number in self.tears:
            raise Torn
        return [item.upper() for item in items]

    def open_gates(self) -> None:
        for gate in self.gates:
            gate.set()

    def await_departures(self, number: int) -> None:
        for _ in range(number):
            assert self.departed.acquire(timeout=PATIENCE)


def waiting(batcher: Batcher[str, str]) -> int:
    return sum(sum(batch.waiting.values()) for batch in batcher._open.values())


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch waits for a lane, and for nothing else."""
    monkeypatch.setattr("cachesvc_client.sync.batching.MAX_DELAY", PATIENCE)


def busy(line: Line, batcher: Batcher[str, str]) -> list[Caller[str | CacheError]]:
    """All lanes taken."""
    callers = []
    for i in range(LANES):
        callers.append(Caller(partial(batcher.join, f"busy{i}", 5)))
        line.await_departures(1)
    return callers


def test_a_single_caller_departs_at_once_on_its_own_thread() -> None:
    threads: list[threading.Thread] = []

    def send(items: list[str], _deadline: float) -> list[str]:
        threads.append(threading.current_thread())
        return items

    assert Batcher(send).join("a", 5) == "a"
    assert threads == [threading.current_thread()]


@pytest.mark.usefixtures("unhurried")
def test_those_who_arrive_while_all_lanes_are_busy_leave_together() -> None:
    line = Line(gated=LANES)
    batcher: Batcher[str, str] = Batcher(line)
    first = busy(line, batcher)
    others = calls(*(partial(batcher.join, key, 5) for key in "abca"))
    until(lambda: waiting(batcher) == 4)
    line.gates[0].set()
    assert results(others) == ["A", "B", "C", "A"]
    assert sorted(line.sent[LANES]) == ["a", "b", "c"]
    assert len(line.sent) == LANES + 1
    line.open_gates()
    assert results(first) == [f"BUSY{i}" for i in range(LANES)]
    assert (batcher._in_flight, batcher._unanswered) == (0, 0)


def test_a_slow_batch_delays_the_next_by_the_maximum_delay_only() -> None:
    line = Line(gated=LANES)
    batcher: Batcher[str, str] = Batcher(line)
    first = busy(line, batcher)
    assert batcher.join("c", 5) == "C", "while the other is still under way"
    line.open_gates()
    results(first)


@pytest.mark.usefixtures("unhurried")
def test_a_full_batch_departs_at_once() -> None:
    line = Line(gated=LANES)
    batcher: Batcher[str, str] = Batcher(line)
    first = busy(line, batcher)
    others = calls(*(partial(batcher.join, f"k{i}", 5) for i in range(MAX_ITEMS)))
    line.await_departures(1)
    assert len(line.sent[LANES]) == MAX_ITEMS
    line.open_gates()
    results(others)
    results(first)


@pytest.mark.usefixtures("unhurried")
def test_a_caller_that_runs_out_of_time_leaves_the_batch_sound() -> None:
    """The batch has not departed by then: its leader waits for a lane."""
    line = Line(gated=LANES)
    batcher: Batcher[str, str] = Batcher(line)
    first = busy(line, batcher)
    leader = calls(lambda: batcher.join("leads", 0.05))
    until(lambda: waiting(batcher) == 1)
    (impatient,) = calls(lambda: batcher.join("gone", 0.05))
    outcome = impatient.outcome()
    assert isinstance(outcome, CacheError)
    assert outcome.type == "deadline"
    line.gates[0].set()
    assert results(leader) == ["LEADS"]
    assert line.sent[LANES] == ["leads"], "nobody waited for the other item any more"
    line.open_gates()
    results(first)
    assert (batcher._in_flight, batcher._unanswered) == (0, 0)


@pytest.mark.usefixtures("unhurried")
def test_callers_with_little_time_do_not_lead_others_into_it() -> None:
    line = Line(gated=LANES)
    batcher: Batcher[str, str] = Batcher(line)
    first = busy(line, batcher)
    others = calls(lambda: batcher.join("a", 5), lambda: batcher.join("b", 6))
    until(lambda: len(batcher._open) == 2)
    line.open_gates()
    assert results(others) == ["A", "B"]
    assert sorted(line.sent[LANES:]) == [["a"], ["b"]]
    results(first)


@pytest.mark.usefixtures("unhurried")
def test_a_leader_that_is_torn_out_of_its_call_leaves_the_others_to_the_next_one() -> None:
    line = Line(gated=LANES + 1)
    line.tears = {LANES}
    batcher: Batcher[str, str] = Batcher(line)
    first = busy(line, batcher)
    (leader,) = calls(lambda: batcher.join("a", 5))
    until(lambda: waiting(batcher) == 1)
    others = calls(lambda: batcher.join("b", 5), lambda: batcher.join("c", 5))
    until(lambda: waiting(batcher) == 3)
    line.open_gates()
    assert isinstance(leader.outcome(), Torn)
    assert results(others) == ["B", "C"]
    results(first)
    assert (batcher._in_flight, batcher._unanswered) == (0, 0)


def test_whatever_goes_wrong_is_told_to_all() -> None:
    def fail(_items: list[str], _deadline: float) -> list[str]:
        raise ZeroDivisionError("a bug")

    answer = Batcher(fail).join("a", 5)
    assert isinstance(answer, CacheError)
    assert (answer.type, answer.detail) == ("bad-answer", "ZeroDivisionError: a bug")


def test_each_instance_has_batches_of_its_own() -> None:
    lines = {"x": Line(), "y": Line()}
    spread: Spread[str, str, str] = Spread(lambda item: item[0], lambda home: Batcher(lines[home]))
    assert [spread.join(item, 5) for item in ("x1", "y1", "x2")] == ["X1", "Y1", "X2"]
    assert (lines["x"].sent, lines["y"].sent) == ([["x1"], ["x2"]], [["y1"]])
