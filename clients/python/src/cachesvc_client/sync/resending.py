"""Sends again what transactions could not send, on a daemon thread, until nothing is left."""

import threading

from cachesvc_client.requests.unsent import Unsent
from cachesvc_client.sync import forks


class Resending:
    """The thread of one client, or a greenlet where gevent has patched `threading`."""

    def __init__(self, unsent: Unsent) -> None:
        self.unsent = unsent
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        """Forgets what is kept: the parent sends it."""
        self.unsent.clear()
        self._lock = threading.Lock()  # guards the thread's beginning and end
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start_if_any(self) -> None:
        with self._lock:
            if not self.unsent or self._thread is not None:
                return
            self._stopping = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._stopping,), name="cache resending", daemon=True
            )
            try:
                self._thread.start()
            except RuntimeError:  # no more threads, or the interpreter ends
                self._thread = None

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.wait(self.unsent.pause()):
            self._try_all()
            with self._lock:
                if not self.unsent:
                    self._thread = None
                    return

    def _try_all(self) -> None:
        """Sends one after the other, until one fails: then the others would fail as well."""
        for kept in self.unsent.all():
            try:
                kept.send(kept.asked)
            except Exception as error:  # noqa: BLE001  or nothing would be sent again any more
                if not self.unsent.failed(kept, error):
                    return
            else:
                self.unsent.sent(kept)

    def stop(self, timeout: float) -> None:
        """Tries once more. What is then left is logged, and sent when the client opens again.

        `timeout`: the seconds of a call, for which the thread may be in a try.
        """
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping.set()
            thread.join(timeout)
        self._try_all()
        self.unsent.left()
