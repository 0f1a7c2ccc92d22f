"""A worker that hangs is killed; one that was only not heard while its supervisor was away is not."""

import os
import signal
import time

import pytest

from cachesvc.app.supervisor import AT_ONCE, Supervisor


class Host:
    """A supervisor whose clock and kills are the test's. No process runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.killed: list[int] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.sent: list[int] = []
        """The signals that were sent, by their numbers."""
        monkeypatch.setattr(os, "kill", self._kill)
        self.supervisor = Supervisor(
            ["a-0", "a-1"], lambda *_: 0, serving=lambda: None, stop_seconds=1, hung_seconds=10
        )
        for child in self.supervisor._children:
            child.pid = 100 + child.number
            child.told(self.now)

    def _kill(self, pid: int, number: int) -> None:
        self.killed.append(pid)
        self.sent.append(number)

    def turns(self, seconds: float, *, each: float = 1.0, told: tuple[int, ...] = ()) -> None:
        """Turns the supervisor for a while; these workers tell of themselves."""
        for _ in range(int(seconds / each)):
            self.now += each
            for number in told:
                self.supervisor._children[number].told(self.now)
            self.supervisor._kill_hung()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def test_workers_are_told_to_read_their_files_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.supervisor, "_wait", lambda _: bytes([signal.SIGHUP]))
    monkeypatch.setattr(host.supervisor, "_look_after", lambda: True)
    assert host.supervisor._turn()
    assert (host.killed, host.sent) == ([100, 101], [signal.SIGHUP] * 2)


@pytest.mark.parametrize("again", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("quiet", [0, 1, 2])
def test_a_second_signal_ends_the_drain_whenever_it_comes(
    host: Host, monkeypatch: pytest.MonkeyPatch, again: signal.Signals, quiet: int
) -> None:
    heard = [*[b""] * quiet, bytes([again])]
    monkeypatch.setattr(host.supervisor, "_wait", lambda _: heard.pop(0))
    monkeypatch.setattr(host.supervisor, "_running", lambda: ["a-0"] if heard else [])
    host.supervisor._stop()
    assert host.sent == [signal.SIGTERM] * 2 + [AT_ONCE] * 2


def test_a_silent_worker_is_killed_once_and_the_other_is_left_alone(host: Host) -> None:
    host.turns(10, told=(1,))
    assert host.killed == []
    host.turns(2, told=(1,))
    assert host.killed == [100]


def test_a_supervisor_that_stood_still_itself_judges_nobody(host: Host) -> None:
    host.turns(60, each=60)
    assert host.killed == []
    host.turns(12, told=(0,))
    assert host.killed == [101]


def test_a_worker_that_does_not_serve_yet_is_waited_for(host: Host) -> None:
    host.supervisor._children[0].serves_since = None
    host.turns(30, told=(1,))
    assert host.killed == []
