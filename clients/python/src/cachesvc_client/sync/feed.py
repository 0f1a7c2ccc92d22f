"""Decides when a client follows the feed of fences.

It does while it is open, from its first namespace with a near cache on.
"""

import ssl
import threading

from cachesvc_client.near.feed import NearFeed
from cachesvc_client.near.near import Near
from cachesvc_client.sync import forks
from cachesvc_client.sync.bearer import Bearer
from cachesvc_client.sync.feed_thread import FeedThread


class Feeding:
    """One client's follower of the feed: a thread.

    Made after all parts that the thread uses (forks.py).
    """

    def __init__(self, near: Near, feed: NearFeed, bearer: Bearer, tls: ssl.SSLContext | None = None) -> None:
        self.feed = feed
        self._bearer = bearer
        self._tls = tls
        self._near = near
        self._is_open = False
        self._thread: FeedThread | None = None
        self._lock = threading.Lock()  # guards the thread's beginning and end
        forks.register(self)

    def open(self) -> None:
        with self._lock:
            self._is_open = True
        self.start_if_used()

    def start_if_used(self) -> None:
        with self._lock:
            if self._is_open and self._near.is_used and self._thread is None:
                self._thread = FeedThread(self.feed, self._bearer, self._tls)
                self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended, or after a second, when it will end by itself.

        It is not started again before the next `open`.
        """
        with self._lock:
            self._is_open = False
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def begin_anew(self) -> None:
        """Follows the feed anew; near caches forget what they held."""
        is_open = self._is_open
        self.stop()
        self.feed.forget()
        if is_open:
            self.open()

    def after_fork(self) -> None:
        """Forgets what the near caches held, and follows the feed anew."""
        self._lock = threading.Lock()
        if self._thread is None:
            self.feed.after_fork()
        else:
            self._thread.after_fork()
