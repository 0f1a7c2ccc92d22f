"""The parts of the service that the web layer calls, one small protocol per need.

`Paths` names them all; `app/paths.py` builds the objects that satisfy them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

from aiohttp.web import BaseRequest

from cachesvc.changes.audit_trail import AuditTrail
from cachesvc.explain.answer import Explanation, Question, Seen
from cachesvc.model.change import Change, Target
from cachesvc.model.entry import Entry, Key
from cachesvc.model.requests import (
    Answer,
    Draft,
    Estimate,
    InvalidateOptions,
    ReadOptions,
    Receipt,
    ReceiptState,
    Written,
)
from cachesvc.telemetry.popularity.hot_keys import Popularity
from cachesvc.telemetry.popularity.spread import Spread

Readiness: TypeAlias = Callable[[], tuple[bool, Mapping[str, object]]]
"""Returns whether this instance may be sent requests, and the reasons.

The reasons are values that JSON can write; `/readyz?verbose` shows them.
"""


class Host(Protocol):
    """The host of one worker: what is asked at a port that is shared concerns all workers."""

    def is_asked(self, request: BaseRequest) -> bool:
        """Returns whether the request came to a port that the workers share."""
        ...

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """Returns the metrics of all workers that answer, and the content type."""
        ...

    async def readiness(self) -> tuple[bool, Mapping[str, object]]:
        """Returns whether the host may be sent requests, and the reasons of its workers."""
        ...


class Reading(Protocol):
    """Reads. They raise `RequestError` only if the whole request cannot be done.

    A failure of one key stands in its answer.
    """

    def peek(self, namespace: str, key: Key, /) -> Entry | None:
        """Returns the entry if a plain read may be answered from L1 with it now, as fresh.

        It counts a hit. A miss is not counted, because `get` follows and counts it.
        """
        ...

    def peek_small(self, namespace: str, key: Key, most_bytes: int, /) -> Entry | None:
        """Returns the result of `peek` if it is a value of so many bytes at most with few tags.

        Else it returns None and counts nothing, so that `peek` may be asked.
        """
        ...

    def is_beyond_l1(self, key: Key, /) -> bool:
        """True if L1 has no copy of the key, fresh or not."""
        ...

    def peek_many(self, namespace: str, keys: Sequence[Key], /) -> Sequence[Entry | None]:
        """Returns the result of `peek` for each key."""
        ...

    def is_due_early(self, namespace: str, entry: Entry, /) -> bool:
        """Returns whether a caller that loads by itself should load the value before it expires.

        It is drawn anew at each call.
        """
        ...

    def peek_all(self, namespace: str, keys: Sequence[Key], /) -> Sequence[Entry] | None:
        """Returns the results of `peek_many` if all are copies; else None. It counts nothing."""
        ...

    def count_hits(self, namespace: str, keys: Sequence[Key], entries: Sequence[Entry], /) -> None:
        """Counts reads that are answered with these copies, which `peek_all` has returned."""
        ...

    def largest(self, namespace: str, /) -> int:
        """Returns a number of bytes that no value of the namespace in L1 exceeds."""
        ...

    def waiting_elsewhere(self) -> int:
        """Returns how many reads wait for another instance, a caller or an origin now."""
        ...

    async def get(self, key: Key, options: ReadOptions, /) -> Answer: ...

    async def get_many(self, keys: Sequence[Key], options: ReadOptions, /) -> list[Answer]: ...

    def give_back(self, key: Key, answer: Answer, /) -> None:
        """Gives back the lease of an answer that does not reach its caller, if it has one."""
        ...


class Writing(Protocol):
    """Writes. A failure of one key stands in its `Written`; `put` raises it.

    A draft with a `release` gives its lease back; so does one that is refused.
    """

    def waiting_elsewhere(self) -> int:
        """Returns how many writes wait until known fences let their values through."""
        ...

    async def put(self, key: Key, draft: Draft, /) -> Written: ...

    async def put_many(self, items: Sequence[tuple[Key, Draft]], /) -> list[Written]: ...


class Invalidating(Protocol):
    """Invalidations, their estimates and their receipts."""

    async def invalidate(self, change: Change, options: InvalidateOptions = ..., /) -> Receipt:
        """Applies and publishes the change; returns when it has got as far as `options.wait` asks.

        Raises `RequestError`: `queue-unavailable` (nothing was done) or `fence-not-published`.
        """
        ...

    async def estimate(self, change: Change, /) -> Estimate:
        """Returns how much the change would touch; changes nothing."""
        ...

    async def receipt(self, id_: str, /) -> ReceiptState | None:
        """Returns how far a change has got; None for an id that is unknown or forgotten.

        `id_` has the form `region:id`. Raises `RequestError`: `no-such-receipt` for an unknown region,
        `queue-unavailable` while its queue does not answer.
        """
        ...


class Explaining(Protocol):
    """Explanations of reads."""

    async def answer(self, key: Key, question: Question, /) -> Explanation | Seen:
        """Returns why a read would be answered as it would; changes nothing.

        The answer is a `Seen`, with the copies that this instance sees, if the question is `alone`.
        """
        ...


class Popular(Protocol):
    """The keys that are read most, and those that are to be read over several instances."""

    spread: Spread

    def popularity(self, namespace: str, /) -> Popularity:
        """Returns the keys of the namespace that this instance was asked for most of late."""
        ...


class Bounded(Protocol):
    """The staleness bound of this instance, and what a session has to remember of its answers."""

    watermark: int
    queues: str
    """The queue servers that the watermark is of: `region@epoch`, with commas, by name."""

    def lag_us(self, since: int | None = None) -> int | None:
        """Returns the staleness bound of values judged with this watermark (None: now's).

        None while it is unknown.
        """
        ...

    def seen_until(self, entry: Entry) -> int:
        """Returns the time to remember of an answer that no home has confirmed; 0 for others."""
        ...


class Distances(Protocol):
    """How far home cells are."""

    def distances(self, targets: Iterable[Target], /) -> Mapping[str, float]:
        """Returns the round trips to the home cells of these targets, in seconds, by name."""
        ...


class Paths(Protocol):
    """Everything that the web layer calls to answer requests."""

    @property
    def homes(self) -> Distances: ...

    @property
    def reader(self) -> Reading: ...

    @property
    def writer(self) -> Writing: ...

    @property
    def invalidator(self) -> Invalidating: ...

    @property
    def explainer(self) -> Explaining: ...

    @property
    def hot_keys(self) -> Popular: ...

    @property
    def trail(self) -> AuditTrail: ...

    @property
    def fences(self) -> Bounded: ...
