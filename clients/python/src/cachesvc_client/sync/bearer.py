"""Fetches the token that shows who a client is, for threads: one fetch at a time."""

import inspect
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cachesvc_client.errors import CacheError
from cachesvc_client.requests.bearer import KnownToken, TokenSource, unfetched
from cachesvc_client.sync import forks


class Bearer:
    """The token of one client. Threads that need it at the same time share a fetch."""

    def __init__(self, source: TokenSource | None, *, tls_only: bool) -> None:
        self.known = KnownToken(source, tls_only=tls_only)
        self._lock = threading.Lock()
        """Held during a fetch."""
        forks.register(self)

    def __repr__(self) -> str:
        return f"<Bearer of {self.known!r}>"

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def token(self, deadline: float) -> str:
        """Returns the token to send; empty if the client has none.

        Raises `CacheError` if it cannot be fetched before `deadline`, a time on `time.monotonic`.
        """
        known = self.known
        if known.is_used and known.is_due(time.monotonic()):
            try:
                self._fetch(deadline, lambda: known.is_due(time.monotonic()))
            except CacheError:
                if not known.text:  # else the file of a token that is known is not there now
                    raise
        return known.text if known.is_used else ""

    def is_renewed(self, refused: str, deadline: float) -> bool:
        """Returns whether there is another token than the refused one; fetches it if need be.

        Raises `CacheError` as `token` does.
        """
        known = self.known
        if not known.is_used:
            return False
        if known.text == refused:
            self._fetch(deadline, lambda: known.text == refused and known.may_renew(time.monotonic()))
        return known.text != refused

    def _fetch(self, deadline: float, is_needed: Callable[[], bool]) -> None:
        """Asks the source, unless another thread has made that needless meanwhile."""
        known = self.known
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise CacheError("deadline", "the token was not fetched in time", retryable=True)
        try:
            if is_needed():
                known.asked(time.monotonic())
                known.learn(_asked(known.source))
        except Exception as error:
            raise unfetched(error) from error
        finally:
            self._lock.release()


def _asked(source: TokenSource | None) -> object:
    if isinstance(source, os.PathLike):
        return Path(source).read_text()
    if callable(source):
        found = source()
        if inspect.iscoroutine(found):
            found.close()
            raise TypeError("the function of a token is async, and this client is not")
        return found
    return source
