"""Calls on threads of their own, in a child process and on greenlets, whose ends are told to the test."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from clients.python.tests.hostile import is_proven

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds a test waits for what must come at once."""


def until_proven(cache: Any) -> None:
    """Calls until the client has found its instances well."""
    ended = time.monotonic() + PATIENCE
    while not is_proven(cache):
        cache.namespace("warm").get("x")
        assert time.monotonic() < ended


class Caller(Generic[T]):
    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._brought: Any = None
        self._raised: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._brought = self._call()
        except BaseException as error:  # noqa: BLE001  told to the test
            self._raised = error

    def outcome(self) -> T | BaseException:
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the call has not ended"
        return self._brought if self._raised is None else self._raised

    def result(self) -> T:
        outcome = self.outcome()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def calls(*functions: Callable[[], T]) -> list[Caller[T]]:
    return [Caller(function) for function in functions]


def results(callers: list[Caller[T]]) -> list[T]:
    return [caller.result() for caller in callers]


def until(holds: Callable[[], bool]) -> None:
    """Wait for what another thread does next. It is told by no event, as the thread goes on to wait right after."""
    alarm = threading.Event()
    for _ in range(int(PATIENCE / 0.001)):
        if holds():
            return
        alarm.wait(0.001)
    raise AssertionError("it did not come to pass")


def in_child(work: Callable[[], bytes | None]) -> bytes:
    """Returns the result of `work` in a child process, or its failure as text.

    The child ends without coming back into pytest, whatever happens.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, work() or b"None")
        except BaseException as error:  # noqa: BLE001  told to the test
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        caller = Caller(answer.read)
        told = caller.result()
    os.waitpid(child, 0)
    return told


def in_greenlets(url: str, *shown: str) -> dict[str, dict[str, int]]:
    command = [sys.executable, str(Path(__file__).with_name("greenlets.py")), url, *shown]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return msgspec.json.decode(ended.stdout, type=dict[str, dict[str, int]])
