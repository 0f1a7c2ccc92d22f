"""The three paths as the web layer sees them. `read.py`, `write.py` and `invalidate.py` satisfy these."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from cachesvc.explain.answer import Explanation, Question, Seen
from cachesvc.model.change import Change
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

Readiness: TypeAlias = Callable[[], tuple[bool, Mapping[str, object]]]
"""Returns whether this instance may be sent requests, and the reasons.

The reasons are values that JSON can write; `/readyz?verbose` shows them.
"""


class Reading(Protocol):
    """Reads. They raise `RequestError` only if the whole request cannot be done.

    A failure of one key stands in its answer.
    """

    def peek(self, namespace: str, key: Key, /) -> Entry | None:
        """Returns the entry if a plain read may be answered from L1 with it now, as fresh.

        It counts a hit. A miss is not counted, because `get` follows and counts it.
        """
        ...

    def peek_many(self, namespace: str, keys: Sequence[Key], /) -> Sequence[Entry | None]:
        """Returns the result of `peek` for each key."""
        ...

    async def get(self, key: Key, options: ReadOptions, /) -> Answer: ...

    async def get_many(self, keys: Sequence[Key], options: ReadOptions, /) -> list[Answer]: ...

    async def explain(self, key: Key, question: Question, /) -> Explanation | Seen:
        """Why a read would be answered as it would; changes nothing."""
        ...

    def popularity(self, namespace: str, /) -> Popularity:
        """What it was asked for most of late."""
        ...

    def lag_us(self) -> int | None:
        """The instance's staleness bound; None while it is unknown."""
        ...


class Writing(Protocol):
    async def put(self, key: Key, draft: Draft, /) -> Written: ...

    async def put_many(self, items: Sequence[tuple[Key, Draft]], /) -> list[Written]: ...


class Invalidating(Protocol):
    async def invalidate(self, change: Change, options: InvalidateOptions = ..., /) -> Receipt: ...

    async def estimate(self, change: Change, /) -> Estimate:
        """Returns how much the change would touch; changes nothing."""
        ...

    async def receipt(self, id_: str, /) -> ReceiptState | None:
        """Returns how far a change has got; None for an id that is unknown or forgotten.

        `id_` has the form `region:id`.
        """
        ...
