"""Follows the feed of fences on a daemon thread, or on a greenlet of gevent.

**Forks.** A thread does not go along into a child. `after_fork` starts another one there, which
resumes with the parent's last event; until its first event arrives, the child's near caches are
empty and bypassed. The child closes its copy of the connection's socket, which ends nothing in the
parent.
"""

import ssl
import threading
import time

import urllib3
from urllib3.exceptions import HTTPError

from cachesvc_client.errors import CacheError
from cachesvc_client.near.feed import CONNECT_TIMEOUT, READ_TIMEOUT, FeedError, NearFeed
from cachesvc_client.sync.bearer import Bearer

CHUNK_BYTES = 1 << 16
LONGEST_STOP = 1.0
"""Seconds that a caller waits for the end of the thread, which may be in a read."""
_TIMEOUT = urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT)


class FeedThread:
    """To be started once. Once stopped, it tells the feed nothing more of what it reads."""

    def __init__(self, feed: NearFeed, bearer: Bearer, tls: ssl.SSLContext | None = None) -> None:
        self._feed = feed
        self._bearer = bearer
        self._tls = tls
        self._begin()

    def _begin(self) -> None:
        self._stopping = threading.Event()
        self._pool = urllib3.PoolManager(
            num_pools=1, maxsize=1, retries=False, timeout=_TIMEOUT, ssl_context=self._tls
        )
        self._thread = threading.Thread(target=self._follow, name="cache feed", daemon=True)

    def __repr__(self) -> str:
        return f"<FeedThread [{'running' if self._thread.is_alive() else 'stopped'}] of {self._feed!r}>"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended, or after `LONGEST_STOP`; it then ends by itself."""
        self._stopping.set()
        self._thread.join(LONGEST_STOP)
        self._pool.clear()
        self._feed.closed()

    def after_fork(self) -> None:
        """Empties the near caches in the child, and starts a thread there (forks.py)."""
        was_running = self._thread.ident is not None and not self._stopping.is_set()
        self._feed.after_fork()
        self._begin()
        if was_running:
            self._thread.start()

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                why = self._followed()
                if self._stopping.is_set():
                    break
                self._feed.lost(why)
            except Exception as error:  # noqa: BLE001  without this thread, near caches would stay bypassed
                if self._stopping.is_set():
                    break
                self._feed.failed(error)
            self._stopping.wait(self._feed.pause())

    def _followed(self) -> str:
        """Reads one connection to its end, and returns why it ended."""
        bearer, until = self._bearer, time.monotonic() + CONNECT_TIMEOUT
        try:
            url, token = self._feed.url(), bearer.token(until)
            headers = {**self._feed.headers(), **bearer.known.lines(token, is_tls=url.startswith("https:"))}
            response = self._pool.request("GET", url, headers=headers, preload_content=False, redirect=False)
            try:
                if response.status == 401:
                    bearer.is_renewed(token, until)  # the next connection has it
                self._feed.opened(response.status)
                while not self._stopping.is_set():
                    chunk = response.read1(CHUNK_BYTES)
                    if self._stopping.is_set():
                        break
                    if not chunk:
                        return "the instance ended it"
                    self._feed.received(chunk)
            finally:
                response.close()  # not `release_conn`: an unfinished stream cannot be used again
        except (FeedError, CacheError, HTTPError, OSError) as error:
            return f"{type(error).__name__}: {error}"
        return "the client has closed"
