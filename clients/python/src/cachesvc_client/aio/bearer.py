"""Fetches the token that shows who a client is, on an event loop: one fetch at a time."""

import asyncio
import inspect
import logging
import os
import time
from pathlib import Path

from cachesvc_client.errors import CacheError
from cachesvc_client.requests.bearer import KnownToken, TokenSource, unfetched

log = logging.getLogger(__name__)


class Bearer:
    """The token of one client. Callers that need it at the same time share a fetch."""

    def __init__(self, source: TokenSource | None, *, tls_only: bool) -> None:
        self.known = KnownToken(source, tls_only=tls_only)
        self._fetch: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Bearer of {self.known!r}>"

    async def token(self, deadline: float) -> str:
        """Returns the token to send; empty if the client has none.

        Raises `CacheError` if it cannot be fetched before `deadline`, a time on the loop's clock. A look
        into the file of a token that is known is not waited for.
        """
        known = self.known
        if not known.is_used:
            return ""
        if known.is_due(time.monotonic()):
            fetch = self._fetching()
            if not known.text:
                await self._finished(fetch, deadline)
        return known.text

    async def is_renewed(self, refused: str, deadline: float) -> bool:
        """Returns whether there is another token than the refused one; fetches it if need be.

        Raises `CacheError` as `token` does.
        """
        known = self.known
        if not known.is_used:
            return False
        if known.text == refused and (self._fetch_here() is not None or known.may_renew(time.monotonic())):
            await self._finished(self._fetching(), deadline)
        return known.text != refused

    async def close(self) -> None:
        """Ends the running fetch."""
        if (fetch := self._fetch_here()) is not None:
            fetch.cancel()
            await asyncio.wait([fetch])

    def _fetch_here(self) -> asyncio.Task[None] | None:
        """Returns the running fetch, if it is one of this event loop."""
        fetch = self._fetch
        if fetch is None or fetch.done() or fetch.get_loop() is not asyncio.get_running_loop():
            return None
        return fetch

    def _fetching(self) -> asyncio.Task[None]:
        """Returns the running fetch, or begins one."""
        fetch = self._fetch_here()
        if fetch is None:
            self.known.asked(time.monotonic())
            fetch = self._fetch = asyncio.get_running_loop().create_task(self._fetched(), name="cache token")
            fetch.add_done_callback(_looked_at)
        return fetch

    async def _finished(self, fetch: asyncio.Task[None], deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.shield(fetch)
        except TimeoutError:
            raise CacheError("deadline", "the token was not fetched in time", retryable=True) from None
        except CacheError as error:
            raise error.copy() from error.__cause__

    async def _fetched(self) -> None:
        known = self.known
        try:
            known.learn(await _asked(known.source))
        except Exception as error:
            raise unfetched(error) from error


async def _asked(source: TokenSource | None) -> object:
    if isinstance(source, os.PathLike):
        return await asyncio.to_thread(Path(source).read_text)
    if callable(source):
        found = source()
        return await found if inspect.isawaitable(found) else found
    return source


def _looked_at(fetch: asyncio.Task[None]) -> None:
    """Takes note of the failure of a fetch, for which perhaps nobody waited."""
    if not fetch.cancelled() and (error := fetch.exception()) is not None:
        log.debug("%s", error)
