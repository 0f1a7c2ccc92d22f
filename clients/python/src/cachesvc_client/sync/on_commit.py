"""Invalidations that wait for a commit.

    with cache.on_commit() as tx:
        with database.transaction():
            …
            tx.invalidate(users, keys=["7"])

The block of the cache is the outer one: it ends after the commit. If it is left by an exception, nothing was committed and
nothing is sent.
"""

from collections.abc import Iterable
from typing import Any, Self

from cachesvc_client.errors import CacheError
from cachesvc_client.protocol.wire import Invalidation, Receipt, Wait
from cachesvc_client.requests.changes import Changes, NotSentError, invalidation_of
from cachesvc_client.sync.namespace import Namespace
from cachesvc_client.values.durations import Duration


class OnCommit:
    """Made by `Cache.on_commit`, for one transaction on one thread."""

    def __init__(self) -> None:
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

    def send(self) -> None:
        """Send what is noted. The end of the block does it; call it again after a `NotSentError`, which names what is left."""
        unsent = self._changes.take()
        failed: list[tuple[Invalidation, CacheError]] = []
        try:
            while unsent:
                try:
                    self.receipts.append(self._namespaces[unsent[0].namespace].send(unsent[0]))
                except CacheError as error:
                    failed.append((unsent[0], error))
                del unsent[0]
        finally:  # whoever is torn out of it (`gevent.Timeout`) can call it again as well
            for asked in (*unsent, *(asked for asked, _ in failed)):
                self._changes.note(asked)
        if failed:
            raise NotSentError(failed, self.receipts)

    def __repr__(self) -> str:
        return f"<OnCommit {len(self._changes)} noted, {len(self.receipts)} receipts>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.send()
