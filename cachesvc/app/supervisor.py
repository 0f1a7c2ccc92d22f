"""Runs the workers of a host as its children: starts them, starts them again, stops them.

    a worker ends              it is started again, after a pause that doubles while it keeps ending
    a worker hangs             it is killed: its loop has not told of itself for `hung_seconds`
    SIGTERM, SIGINT            all workers are asked to end, and end as one process does; a second
                               one ends their drain at once (`AT_ONCE`)
    SIGHUP                     all workers are told, and read their files again
    the supervisor is killed   the kernel sends every worker SIGTERM (`PR_SET_PDEATHSIG`)

A worker is a fork, so it has the documents as they were read at the start. The supervisor has one
thread, no event loop and no sockets of callers: there is little in it that could fail.
"""

import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from math import inf

from cachesvc.app.embedded.server_process import end_with_parent

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
"""The pauses before a worker is started again: the first, and the last to be doubled to."""
BEAT_SECONDS = 1.0
"""A worker that serves tells of itself so often."""
STEADY_SECONDS = 10.0
"""A worker that served for so long is started again after the first pause."""
_ASKED_TO_STOP = (signal.SIGINT, signal.SIGTERM)
AT_ONCE = signal.SIGUSR1
"""Has a worker that was asked to end do so at once, without more of its drain."""
_HEARD = (*_ASKED_TO_STOP, signal.SIGHUP, signal.SIGCHLD)

Work = Callable[[int, int, Callable[[], None]], int]
"""The whole run of a worker; returns the exit code, after SIGINT or SIGTERM.

Its arguments are the worker's number, how often it was started again, and what it calls every
`BEAT_SECONDS` once it serves, on its loop."""


class _Child:
    """One worker: its process, or when it is to be started."""

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.pid: int | None = None
        """The process id; None while none runs."""
        self.starts = 0
        self.start_at = 0.0
        """When it is to be started, on the monotonic clock, while none runs."""
        self.serves_since: float | None = None
        self.beat_at = 0.0
        """When it last told of itself, on the monotonic clock, once it serves."""
        self.pause_seconds = FIRST_PAUSE_SECONDS

    def told(self, now: float) -> None:
        """Notes that the worker serves."""
        self.beat_at = now
        if self.serves_since is None:
            self.serves_since = now

    def ended(self, now: float) -> float:
        """Notes that the process has ended; returns the pause before the next one, in seconds."""
        was_steady = self.serves_since is not None and now - self.serves_since >= STEADY_SECONDS
        pause = FIRST_PAUSE_SECONDS if was_steady else self.pause_seconds
        self.pid, self.serves_since, self.start_at = None, None, now + pause
        self.pause_seconds = min(LONGEST_PAUSE_SECONDS, 2 * pause)
        return pause


class Supervisor:
    """The workers of one host. `run` is called once, in the main thread."""

    def __init__(
        self,
        names: Sequence[str],
        work: Work,
        *,
        serving: Callable[[], None],
        stop_seconds: float,
        hung_seconds: float = inf,
    ) -> None:
        """`serving` is called once, when all workers serve.

        `stop_seconds` is the time after which workers that were asked to end are killed, `hung_seconds`
        that after which one is that serves and does not tell of itself.
        """
        self._children = [_Child(number, name) for number, name in enumerate(names)]
        self._work = work
        self._serving = serving
        self._stop_seconds = stop_seconds
        self._hung_seconds = hung_seconds
        self._turned_at = time.monotonic()
        self._has_served = False
        self._exit_code = 0

    def __repr__(self) -> str:
        running = sum(child.pid is not None for child in self._children)
        return f"<Supervisor [{running} of {len(self._children)} workers running]>"

    def run(self) -> int:
        """Runs the workers until a signal asks to end; returns the exit code.

        If a worker ends before all have served for the first time, its exit code is returned, and no
        worker runs.
        """
        with ExitStack() as stack:
            self._wake, waker = map(stack.enter_context, socket.socketpair())
            self._told, self._tell = os.pipe()
            for end in (self._told, self._tell):
                stack.callback(os.close, end)
            for one in (self._wake, waker):
                one.setblocking(False)
            os.set_blocking(self._tell, False)  # a worker must not wait for a supervisor that hangs
            for number in _HEARD:
                stack.callback(signal.signal, number, signal.signal(number, _heed))
            stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(waker.fileno()))
            gc.collect()
            gc.freeze()  # a collection in a worker then copies no page that it shares with the others
            try:
                while self._turn():
                    pass
            finally:
                self._stop()
        return self._exit_code

    def _turn(self) -> bool:
        """Does what is due, then waits for what comes; returns False once the workers are to end."""
        now = time.monotonic()
        for child in self._children:
            if child.pid is None and now >= child.start_at:
                self._start(child)
        heard = self._wait(self._seconds_to_next_look())
        if any(number in heard for number in _ASKED_TO_STOP):
            return False
        if signal.SIGHUP in heard:
            self._signal(signal.SIGHUP)
        return self._look_after()

    def _seconds_to_next_look(self) -> float | None:
        now = time.monotonic()
        due = [child.start_at for child in self._children if child.pid is None]
        if any(child.serves_since is not None for child in self._children) and self._hung_seconds < inf:
            due.append(now + BEAT_SECONDS)
        return max(0.0, min(due) - now) if due else None

    def _wait(self, seconds: float | None) -> bytes:
        """Waits for signals, workers that begin to serve, or the time; returns the signals."""
        wake = self._wake.fileno()
        ready, _, _ = select.select([wake, self._told], [], [], seconds)
        if self._told in ready:
            for number in os.read(self._told, 4096):
                self._children[number].told(time.monotonic())
            if not self._has_served and all(child.serves_since is not None for child in self._children):
                self._has_served = True
                self._serving()
        return self._wake.recv(4096) if wake in ready else b""

    def _look_after(self) -> bool:
        """Looks for workers that have ended or hang; returns False if that ends the host's start."""
        self._kill_hung()
        for child in self._children:
            if (code := _reaped(child)) is None:
                continue
            if not self._has_served:
                self._exit_code = code if code > 0 else 1
                return False
            pause = child.ended(time.monotonic())
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            log.warning("worker %s ended %s; it is started again in %.1f s", child.name, how, pause)
        return True

    def _kill_hung(self) -> None:
        """Kills workers that serve and have not told of themselves for too long.

        After a pause of the supervisor itself (its host was suspended, it was stopped) nobody is judged:
        what was told meanwhile has just been read.
        """
        now = time.monotonic()
        was_away = now - self._turned_at > 2 * BEAT_SECONDS
        self._turned_at = now
        for child in self._children:
            if child.pid is None or child.serves_since is None:
                continue
            if was_away:
                child.beat_at = now
            elif (silent := now - child.beat_at) > self._hung_seconds:
                log.error("worker %s hangs: it is killed after %.0f s of silence", child.name, silent)
                child.beat_at = now  # the kernel may need a moment
                os.kill(child.pid, signal.SIGKILL)

    def _stop(self) -> None:
        """Asks all workers to end, and kills those that do not."""
        self._signal(signal.SIGTERM)
        give_up_at = time.monotonic() + self._stop_seconds
        while running := self._running():
            if time.monotonic() > give_up_at:
                log.error("killed, because they did not end: %s", ", ".join(running))
                self._signal(signal.SIGKILL)
                give_up_at = inf
            heard = self._wait(1.0)
            if any(number in heard for number in _ASKED_TO_STOP):
                self._signal(AT_ONCE)

    def _running(self) -> list[str]:
        return [child.name for child in self._children if child.pid is not None and _reaped(child) is None]

    def _signal(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.pid is not None:
                os.kill(child.pid, number)

    def _start(self, child: _Child) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        end_with_me = end_with_parent(os.getpid())
        restarts, child.starts = child.starts, child.starts + 1
        # Blocked meanwhile: the child would tell its parent of a signal that was sent to the child.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        child.pid = os.fork()
        if child.pid == 0:
            self._be(child.number, restarts, end_with_me)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)

    def _be(self, number: int, restarts: int, end_with_parent: Callable[[], None] | None) -> None:
        """Is the worker; does not return."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.signal(AT_ONCE, signal.SIG_IGN)
            for stop in _ASKED_TO_STOP:
                signal.signal(stop, signal.default_int_handler)
            self._wake.close()
            os.close(self._told)
            if end_with_parent is not None:
                end_with_parent()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
            code = self._work(number, restarts, partial(self._tell_that_it_serves, number))
        except KeyboardInterrupt:  # before the worker handles the signal itself
            code = 0
        except BaseException:
            log.exception("worker %d failed", number)
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _tell_that_it_serves(self, number: int) -> None:
        with suppress(BlockingIOError):  # nobody has read for hours
            os.write(self._tell, bytes([number]))


def _heed(_: int, __: object) -> None:
    """Does nothing: the signal's number comes by the wake-up descriptor."""


def _reaped(child: _Child) -> int | None:
    """Returns the exit code of a worker's process (negative: of a signal); None while it runs."""
    if child.pid is None:
        return None
    pid, status = os.waitpid(child.pid, os.WNOHANG)
    if pid == 0:
        return None
    child.pid = None
    return os.waitstatus_to_exitcode(status)
