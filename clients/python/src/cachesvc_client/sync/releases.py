"""Sends the releases of leases on a thread of its own, so that no caller waits for one.

A load ends on the thread of its caller, who wants its value or its exception now. So the first
release starts a daemon thread (a greenlet where gevent has patched `threading`), which sends what
has gathered, again and again until nothing is left, and then ends. If the process ends before that,
the leases end with their lives.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

from cachesvc_client.protocol.wire import PutItem
from cachesvc_client.sync import forks

MOST_WAITING = 10_000
"""The most releases that wait to be sent; further ones are dropped."""

SendAll: TypeAlias = Callable[[Sequence[PutItem]], object]
"""Sends items of one namespace object, and returns when they are answered."""


class Releases:
    """The releases of one client, over all namespaces."""

    def __init__(self) -> None:
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        """Forgets what waits: the parent sends it."""
        self._lock = threading.Lock()  # guards what follows; never held while sending
        self._waiting: dict[SendAll, list[PutItem]] = {}
        self._count = 0
        self._thread: threading.Thread | None = None

    def send(self, item: PutItem, send_all: SendAll) -> None:
        """Has the release sent soon. Never waits and never raises."""
        with self._lock:
            if self._count >= MOST_WAITING:
                return
            self._count += 1
            self._waiting.setdefault(send_all, []).append(item)
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name="cache releases", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # no more threads, or the interpreter ends
                self._thread = None

    def ended(self, timeout: float) -> None:
        """Waits until what has gathered is sent, `timeout` seconds at most."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _run(self) -> None:
        while waiting := self._taken():
            for send_all, items in waiting.items():
                with contextlib.suppress(Exception):  # or no later release would be sent
                    send_all(items)

    def _taken(self) -> dict[SendAll, list[PutItem]]:
        with self._lock:
            waiting, self._waiting, self._count = self._waiting, {}, 0
            if not waiting:
                self._thread = None
            return waiting
