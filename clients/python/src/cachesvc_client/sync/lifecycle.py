"""Decides when a client is open.

a call, or `open()`       → open, until `close`
`with`, also nested       → open; the end of the last block closes, unless a call or `open()` had
                            opened the client before
closed                    → calls raise `CacheError` (`closed`), until it is opened again
a forked child            → open if the parent's was, with connections of its own
"""

import threading

from cachesvc_client.errors import CacheError
from cachesvc_client.sync import forks
from cachesvc_client.sync.feed import Feeding
from cachesvc_client.sync.releases import Releases
from cachesvc_client.sync.resending import Resending
from cachesvc_client.sync.transport import Transport


class Lifecycle:
    """The beginnings and ends of one client, for any number of threads."""

    def __init__(
        self,
        transport: Transport,
        feeding: Feeding,
        releases: Releases,
        resending: Resending,
        timeout: float,
    ) -> None:
        """`timeout`: the seconds of a call, and those that closing waits for releases at most."""
        self._transport = transport
        self._feeding = feeding
        self._releases = releases
        self._resending = resending
        self._timeout = timeout
        self.is_open = False
        self._is_closed = False
        self._blocks = 0
        self._stays = False
        """True if the client stays open when its last block is left."""
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        self._lock = threading.RLock()
        """Guards what is above, and is held while the client closes: whoever opens it waits."""

    def ready(self) -> None:
        """Opens the client for a call. Raises `CacheError` (`closed`) if it was closed."""
        if not self.is_open:
            self._open_for_call()

    def _open_for_call(self) -> None:
        if self._is_closed:  # asked before the lock: while another thread closes, callers do not wait
            raise CacheError("closed", "the cache was closed: `with`, or `open()`, opens it again")
        with self._lock:
            if self._is_closed:
                raise CacheError("closed", "the cache was closed: `with`, or `open()`, opens it again")
            if not self.is_open:
                self._begin()
                self._stays = True

    def open(self) -> None:
        with self._lock:
            self._begin()
            self._stays = True

    def enter(self) -> None:
        with self._lock:
            self._begin()
            self._blocks += 1

    def leave(self) -> None:
        """Closes the client, if nothing else asks for it to be open."""
        with self._lock:
            self._blocks = max(0, self._blocks - 1)
            if not self._blocks and not self._stays:
                self.close()

    def _begin(self) -> None:
        if self.is_open:
            return
        self._transport.open()
        self._feeding.open()
        self._is_closed = False
        self.is_open = True
        self._resending.start_if_any()

    def close(self) -> None:
        """Closes the connections. Calls under way end with their answers or a `CacheError`."""
        with self._lock:
            if not self.is_open:
                return
            self.is_open, self._is_closed = False, True
            self._blocks, self._stays = 0, False
            try:
                self._feeding.stop()
                self._resending.stop(self._timeout)
                self._releases.ended(self._timeout)
            finally:
                self._transport.close()
