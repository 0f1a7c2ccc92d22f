"""The changes of a transaction, kept until it has committed.

They become few requests: one for each way in which a namespace is invalidated.
"""

from collections.abc import Iterable, Iterator
from typing import get_args

import msgspec
from msgspec import Struct

from cachesvc_client.errors import CacheError
from cachesvc_client.protocol.names import check_namespace, checked_keys, checked_tags
from cachesvc_client.protocol.wire import Invalidation, Receipt, Wait
from cachesvc_client.values.durations import Duration, text_of

_invalidation = msgspec.json.Decoder(Invalidation)

MOST_NAMES = 1000
"""The most keys and tags of one invalidation (clients/PROTOCOL.md)."""


def invalidation_of(
    namespace: str,
    keys: Iterable[str] = (),
    *,
    tags: Iterable[str] = (),
    all: bool = False,  # noqa: A002  the protocol's word
    confirm: str = "",
    soft: bool = False,
    over: Duration | None = None,
    wait: Wait = "none",
) -> Invalidation:
    """Returns a checked invalidation. Raises `ValueError` for what the service would refuse."""
    asked = Invalidation(namespace, checked_keys(keys), checked_tags(tags), all, confirm, soft, wait=wait)
    if over is not None:
        asked.over = text_of(over, "over")
    if not (asked.keys or asked.tags or asked.all):
        raise ValueError("nothing to invalidate: name keys, tags, or all=True")
    if asked.all and asked.confirm != namespace:
        raise ValueError(
            f"all=True purges all of {namespace!r}: if that is meant, say confirm={namespace!r} as well"
        )
    if asked.wait not in get_args(Wait):
        raise ValueError(f"wait: {asked.wait!r} is none of {', '.join(get_args(Wait))}")
    return asked


def document_of(asked: Invalidation) -> str:
    """Returns an invalidation as text, for an outbox."""
    return msgspec.json.encode(asked).decode()


def invalidation_in(document: str | bytes) -> Invalidation:
    """Returns the invalidation in a text of `document_of`; raises `ValueError` if it is none."""
    try:
        asked = _invalidation.decode(document)
    except (msgspec.MsgspecError, TypeError) as error:
        raise ValueError(f"document: is none of OnCommit.noted: {error}") from error
    return invalidation_of(
        check_namespace(asked.namespace),
        asked.keys,
        tags=asked.tags,
        all=asked.all,
        confirm=asked.confirm,
        soft=asked.soft,
        over=asked.over or None,
        wait=asked.wait,
    )


class Changes:
    """The noted changes of one transaction. Repeated names are sent once."""

    def __init__(self) -> None:
        self._noted: dict[tuple[object, ...], _Noted] = {}

    def note(self, asked: Invalidation) -> None:
        way = (asked.namespace, asked.all, asked.soft, asked.over, asked.wait)
        noted = self._noted.setdefault(way, _Noted(asked, {}, {}))
        noted.keys.update(dict.fromkeys(asked.keys))
        noted.tags.update(dict.fromkeys(asked.tags))

    def take(self) -> list[Invalidation]:
        """Returns the invalidations to be sent, and forgets them."""
        taken = self.all()
        self._noted = {}
        return taken

    def all(self) -> list[Invalidation]:
        """Returns the invalidations to be sent."""
        return [part for one in self._noted.values() for part in one.parts()]

    def __len__(self) -> int:
        """The number of keys, of tags, and of namespaces as a whole."""
        return sum(len(one.keys) + len(one.tags) + one.first.all for one in self._noted.values())


class Sending:
    """The invalidations of a transaction while they are sent, with their answers."""

    def __init__(self, asked: list[Invalidation]) -> None:
        self.asked = asked
        self._answers: dict[int, Receipt | CacheError] = {}
        """Identity of an invalidation → its receipt, or why it failed."""

    def note(self, asked: Invalidation, answer: Receipt | CacheError) -> None:
        self._answers[id(asked)] = answer

    def receipts(self) -> list[Receipt]:
        answers = map(self._answer_to, self.asked)
        return [answer for answer in answers if isinstance(answer, Receipt)]

    def failed(self) -> list[tuple[Invalidation, CacheError]]:
        answers = ((one, self._answer_to(one)) for one in self.asked)
        return [(one, answer) for one, answer in answers if isinstance(answer, CacheError)]

    def unsent(self) -> list[Invalidation]:
        """The invalidations that failed, and those that have no answer yet."""
        return [one for one in self.asked if not isinstance(self._answer_to(one), Receipt)]

    def _answer_to(self, asked: Invalidation) -> Receipt | CacheError | None:
        return self._answers.get(id(asked))


class _Noted(Struct, frozen=True):
    first: Invalidation
    keys: dict[str, None]
    tags: dict[str, None]

    def parts(self) -> Iterator[Invalidation]:
        first = self.first
        names = [(key, False) for key in self.keys] + [(tag, True) for tag in self.tags]
        for start in range(0, max(1, len(names)), MOST_NAMES):
            part = names[start : start + MOST_NAMES]
            yield Invalidation(
                first.namespace,
                [name for name, is_tag in part if not is_tag],
                tuple(name for name, is_tag in part if is_tag),
                first.all,
                first.confirm,
                first.soft,
                first.over,
                first.wait,
            )


class NotSentError(CacheError):
    """The transaction has committed, and the cache was not told of all of it.

    Until it is told, or their TTLs end, stale copies may be read. `await tx.send()` sends `unsent`
    again. The attributes are those of the first failure.
    """

    def __init__(
        self,
        failed: list[tuple[Invalidation, CacheError]],
        receipts: list[Receipt],
        *,
        is_sent_again: bool = False,
    ) -> None:
        first, error = failed[0]
        super().__init__(
            error.type,
            f"{len(failed)} invalidations were not sent, the first of {first.namespace!r}: {error.detail}",
            status=error.status,
            retryable=all(error.retryable for _, error in failed),
            retry_after=error.retry_after,
            request_id=error.request_id,
            field=error.field,
        )
        self.unsent = [asked for asked, _ in failed]
        self.is_sent_again = is_sent_again
        """True if the client goes on to send all of it.

        It does so for an hour, if its process lives so long.
        """
        self.receipts = receipts
        """The receipts of what was sent."""
