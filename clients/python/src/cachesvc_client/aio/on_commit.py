"""Invalidations that wait for a commit.

    async with cache.on_commit() as tx:
        async with database.transaction():
            …
            tx.invalidate(users, keys=["7"])

The block of the cache is the outer one: it ends after the commit. If it is left by an exception (a cancellation as well), nothing
was committed and nothing is sent. Else everything is sent, whoever cancels the caller by then: the change has happened.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Self

from cachesvc_client.aio.namespace import Namespace
from cachesvc_client.errors import CacheError
from cachesvc_client.protocol.wire import Invalidation, Receipt, Wait
from cachesvc_client.requests.changes import Changes, NotSentError, invalidation_of
from cachesvc_client.values.durations import Duration


class OnCommit:
    """Made by `Cache.on_commit`, for one transaction."""

    def __init__(self, tasks: set[asyncio.Task[None]]) -> None:
        self._tasks = tasks
        self._namespaces: dict[str, Namespace[Any]] = {}
        self._changes = Changes()
        self.receipts: list[Receipt] = []
        """Of what was sent; one for each namespace and way of invalidating it."""

    def invalidate(
        self,
        namespace: Namespace[Any],
        keys: Iterable[str] = (),
        *,
        tags: Iterable[str] = (),
        all: bool = False,  # noqa: A002  the protocol's word
        confirm: str = "",
        soft: bool = False,
        over: Duration | None = None,
        wait: Wait = "none",
    ) -> None:
        """Note it. As `Namespace.invalidate`, and mistakes are told as there, at once."""
        self._namespaces[namespace.name] = namespace
        self._changes.note(
            invalidation_of(
                namespace.name, keys, tags=tags, all=all, confirm=confirm, soft=soft, over=over, wait=wait
            )
        )

    async def send(self) -> None:
        """Send what is noted. The end of the block does it; call it again after a `NotSentError`, which names what is left."""
        sending = asyncio.create_task(self._send_all(), name="cache invalidations of a transaction")
        self._tasks.add(sending)
        sending.add_done_callback(self._tasks.discard)
        await asyncio.shield(sending)

    async def _send_all(self) -> None:
        asked = self._changes.take()
        answers = await asyncio.gather(*map(self._answer, asked))
        self.receipts += [answer for answer in answers if not isinstance(answer, CacheError)]
        failed = [
            (one, answer)
            for one, answer in zip(asked, answers, strict=True)
            if isinstance(answer, CacheError)
        ]
        for one, _ in failed:
            self._changes.note(one)
        if failed:
            raise NotSentError(failed, self.receipts)

    async def _answer(self, asked: Invalidation) -> Receipt | CacheError:
        try:
            return await self._namespaces[asked.namespace].send(asked)
        except CacheError as error:
            return error

    def __repr__(self) -> str:
        return f"<OnCommit {len(self._changes)} noted, {len(self.receipts)} receipts>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await self.send()
