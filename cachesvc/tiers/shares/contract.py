"""The lessor of shares: what an instance asks, and what it is granted."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct


class Ask(Struct, frozen=True, gc=False):
    """The words of an instance about one limit when it asks for its share."""

    name: str
    """The limit; the same text at every instance of the region."""
    amount: float
    """The whole limit."""
    term_us: int
    """The time in µs for which the lessor keeps the share for the instance."""
    floor_share: float
    """The part of the limit for all instances that are cut off, together.

    0: they keep what they have (`share.py`).
    """
    least: float
    """The least that an instance can use: 1 if the limit counts whole things, else 0."""
    using: float
    """The most that the instance may be using now."""
    demand: float
    """The amount that it could use."""


class Grant(Struct, frozen=True, gc=False):
    """The part of one limit that an instance may use."""

    share: float
    """Its part until its term ends."""
    floor: float
    """Its part once it is cut off for longer than a term."""


class Grants(Struct, frozen=True):
    """An answer of the lessor."""

    epoch: str
    """The name of the server's state. Another one knows no grants of this one."""
    grants: Sequence[Grant]
    """One for each limit, in the order of the request."""


class Lessor(Protocol):
    """Hands out shares; those in force are never more than the limit."""

    async def lease(self, asks: Sequence[Ask], *, heard: str, age_us: int) -> Grants:
        """Returns the instance's shares from now on. Raises `TierError`.

        `heard` is the epoch of the last answer (empty: none), `age_us` the time since it was asked for.
        """
        ...

    async def stop(self) -> None: ...
