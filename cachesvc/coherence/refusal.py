"""The reasons for which a copy may not be answered, as values.

Each names one fence or bound that the copy is not later than.
"""

from enum import Enum

from msgspec import Struct


class RefusedBy(Enum):
    """The kind of fence or bound that a copy is not later than."""

    FLOOR = "floor"
    FUTURE = "future"
    """Its `as_of` is more than 3 S ahead of the clock: a clock is wrong."""
    KEY = "key"
    TAG = "tag"
    NAMESPACE = "namespace"
    LOST = "lost"
    """Fences that were on a stream and were never read here."""
    UNAPPLIED = "unapplied"
    """A fence that its home cell has not applied, or has applied under another placement."""
    HOME = "home"
    """A fence stored in the home cell."""
    STALENESS = "staleness"
    """The staleness bound, which is above the namespace's `max_lag`."""
    TOKEN = "token"  # noqa: S105  no secret: a token of the protocol is a list of fences
    """A fence that the read's own token names."""


class Refusal(Struct, frozen=True):
    """One reason for which a copy may not be answered."""

    by: RefusedBy
    tag: str = ""
    """The tag, if `by` is TAG."""
