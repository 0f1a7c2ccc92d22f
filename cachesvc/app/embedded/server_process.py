"""One server run as a child process: started, known to be ready, signalled, stopped.

Blocking, and meant for the moments before and after serving. A server gets a session of its own, so
that the Ctrl-C of a terminal reaches only this process, which then stops its servers last. On Linux
the kernel also ends the server when this process dies without a word (`PR_SET_PDEATHSIG`).
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cachesvc.model.errors import CachesvcError

READY_WITHIN_SECONDS = 60.0
STOP_WITHIN_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1


class ServerStartError(CachesvcError):
    """A server could not be started, or ended or stayed silent instead of getting ready."""


class ServerProcess:
    """A server that can be started again after it was stopped or killed.

    Used by one thread at a time.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        is_ready: Callable[[], bool],
        run_dir: Path,
        environ: Mapping[str, str] | None = None,
        dies_with_parent: bool = True,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        """`is_ready` asks the server itself. `run_dir` takes `<name>.pid` and `<name>.log`."""
        self.name = name
        self.command = list(command)
        self.log = run_dir / f"{name}.log"
        self.pid_file = run_dir / f"{name}.pid"
        self._is_ready = is_ready
        self._environ = environ
        self._dies_with_parent = dies_with_parent
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running server, or of the last one.

        Raises `ServerStartError` if it was never started.
        """
        if self._process is None:
            raise ServerStartError(f"{self.name} was not started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code of a server that ended by itself or by a signal (negative).

        None while it runs, or if it was never started.
        """
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Starts the server and waits until it is ready.

        Raises `ServerStartError`, and then nothing runs.
        """
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Starts the server without waiting, so that several servers get ready together."""
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603  the command is made here, not by a caller
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environ,
                    start_new_session=True,
                    preexec_fn=end_with_parent(os.getpid()) if self._dies_with_parent else None,
                )
        except OSError as error:
            raise ServerStartError(f"{self.name} cannot be started: {error}") from error
        self.pid_file.write_text(f"{self._process.pid}\n")

    def wait_ready(self, within_seconds: float = READY_WITHIN_SECONDS) -> None:
        """Waits until `is_ready` says so.

        Raises `ServerStartError` with the end of the log, and then nothing runs.
        """
        give_up_at = time.monotonic() + within_seconds
        pause = 0.002
        while True:
            if not self.is_running:
                raise ServerStartError(
                    f"{self.name} ended at once (exit {self.exit_code}): {self.log_tail()}"
                )
            with contextlib.suppress(OSError):
                if self._is_ready():
                    return
            if time.monotonic() > give_up_at:
                self.stop()
                raise ServerStartError(
                    f"{self.name} was not ready within {within_seconds:g}s: {self.log_tail()}"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal to the server, if it is running.

        Waits for the end that SIGKILL brings; of other signals, `is_running` tells.
        """
        if self._process is not None and self.is_running:
            self._process.send_signal(number)
            if number == signal.SIGKILL:
                self._process.wait()

    def stop(self) -> None:
        """Asks the server to end, and kills it after `STOP_WITHIN_SECONDS`.

        Does nothing if it is not running.
        """
        self.ask_to_stop()
        self.wait_stopped()

    def ask_to_stop(self) -> None:
        """The first half of `stop`: several servers can end together."""
        self.kill(self._stop_signal)
        self.kill(signal.SIGCONT)  # a paused server would never see the request

    def wait_stopped(self) -> None:
        """The second half of `stop`."""
        if self._process is None:
            return
        try:
            self._process.wait(STOP_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self.pid_file.unlink(missing_ok=True)

    def restart(self) -> None:
        """Stops the server if it runs, and starts it again with the same command.

        The server's memory is lost.
        """
        self.stop()
        self.start()

    def log_tail(self, lines: int = 5) -> str:
        with contextlib.suppress(OSError):
            return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-lines:])
        return ""

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.is_running else "not running"
        return f"<ServerProcess {self.name} [{state}]>"


def stop_all(servers: Sequence[ServerProcess]) -> None:
    """Stops servers together: it takes as long as the slowest."""
    for server in servers:
        server.ask_to_stop()
    for server in servers:
        server.wait_stopped()


def end_with_parent(parent: int) -> Callable[[], None] | None:
    """The step of the child before the server's program: SIGTERM when its parent dies.

    None where that would not work. The kernel ties the signal to the *thread* that made the child.
    Started from a pool thread, a server would end with that thread, long before the process; so
    only the main thread asks for it.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(
        None, use_errno=True
    ).prctl  # looked up before the fork: a child must not allocate much

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died between the fork and the request
            os._exit(1)

    return ask
