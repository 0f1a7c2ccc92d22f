# Generated from aio/on_commit.py by `python clients/python/unasync.py`: change that, and run this.
"""Invalidations that wait for a commit.

    with cache.on_commit() as tx:
        with database.transaction():
            …
            tx.invalidate(users, keys=["7"])

The block of the cache is the outer one: it ends after the commit. If it is left by an exception,
nothing was committed and nothing is sent.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, Self

from cachesvc_client.errors import CacheError
from cachesvc_client.protocol.wire import Invalidation, Receipt, Wait
from cachesvc_client.requests.changes import Changes, NotSentError, Sending, document_of, invalidation_of
from cachesvc_client.requests.unsent import Kept, may_pass
from cachesvc_client.sync.lifecycle import Lifecycle
from cachesvc_client.sync.namespace import Namespace
from cachesvc_client.sync.resending import Resending
from cachesvc_client.values.durations import Duration


class OnCommit:
    """The invalidations of one transaction on one thread; made by `Cache.on_commit`."""

    def __init__(self, life: Lifecycle, resending: Resending) -> None:
        self._life = life
        self._resending = resending
        self._kept: list[Kept] = []
        """The invalidations that are sent again in the background; they are noted here as well."""
        self._namespaces: dict[str, Namespace[Any]] = {}
        self._changes = Changes()
        self.receipts: list[Receipt] = []
        """The receipts of what was sent; one for each namespace and way of invalidating it."""

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
        """Notes what `Namespace.invalidate` would send. Mistakes are told as there, at once."""
        if not isinstance(namespace, Namespace):
            raise ValueError(f"namespace: what `cache.namespace` returns, not {namespace!r}")
        self._namespaces[namespace.name] = namespace
        self._changes.note(
            invalidation_of(
                namespace.name, keys, tags=tags, all=all, confirm=confirm, soft=soft, over=over, wait=wait
            )
        )

    def noted(self) -> list[str]:
        """Returns what is noted as documents for an outbox, which `Cache.send` takes.

        Written in the transaction itself, they are there if and only if it has committed.
        """
        return [document_of(asked) for asked in self._changes.all()]

    def send(self) -> None:
        """Sends what is noted. The end of the block does it.

        Raises `NotSentError`, which names what was not sent. That stays noted for another call, and
        is sent again in the background, if its failure may pass.
        """
        self._resending.unsent.withdraw(self._kept)
        self._kept = []
        if len(self._changes):
            self._life.ready()
        self._send_all()

    def _send_all(self) -> None:
        sending = Sending(self._changes.take())
        try:
            list(map(partial(self._send_one, sending), sending.asked))
        finally:  # a caller that is torn out of this (`gevent.Timeout`) can call it again
            self.receipts += sending.receipts()
            for asked in sending.unsent():
                self._changes.note(asked)
        if failed := sending.failed():
            self._send_again(failed)
            raise NotSentError(failed, self.receipts, is_sent_again=len(self._kept) == len(failed))

    def _send_again(self, failed: list[tuple[Invalidation, CacheError]]) -> None:
        for asked, error in failed:
            send = self._namespaces[asked.namespace].send_also_at_close
            kept = self._resending.unsent.keep(asked, send) if may_pass(error) else None
            if kept is not None:
                self._kept.append(kept)
        self._resending.start_if_any()

    def _send_one(self, sending: Sending, asked: Invalidation) -> None:
        try:
            sending.note(asked, self._namespaces[asked.namespace].send_also_at_close(asked))
        except CacheError as error:
            sending.note(asked, error)

    def __repr__(self) -> str:
        return f"<OnCommit {len(self._changes)} noted, {len(self.receipts)} receipts>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.send()
