"""The right to fill a key, and what uses it up: a fill, or a release."""

from typing import Any, TypeVar

from cachesvc_client.errors import CacheError
from cachesvc_client.protocol.wire import Put, PutItem, ReleaseReason
from cachesvc_client.values.codecs import Schema, Sealed
from cachesvc_client.values.context import ABSENT, Absent
from cachesvc_client.values.lifetimes import Lifetimes

V = TypeVar("V")

_REFUSALS = (400, 413)
"""The statuses of fills that are refused for what they bring: too large, a wrong tag."""


class Right:
    """The right to fill a key: the key's lease, until a fill has used it or it is given back.

    A load owns its right. However the load ends, the caller of the load gives back what is left of
    the right: nobody then waits for a fill that does not come.
    """

    __slots__ = ("key", "lease", "reason")

    def __init__(self, key: str, lease: str = "") -> None:
        self.key = key
        self.lease = lease
        """The lease token; empty if there is none, or not any more."""
        self.reason: ReleaseReason = "failed"
        """The reason that a release would have now."""

    def __repr__(self) -> str:
        return f"<Right [{'held' if self.lease else 'none'}, {self.reason}]>"

    def filled(self, answer: Put | CacheError) -> None:
        """Notes the answer to the fill.

        A failed fill may not have reached the home, so the right stays.
        """
        if not isinstance(answer, CacheError):
            self.lease = ""
        elif answer.status in _REFUSALS:
            self.reason = "unkept"

    def release(self) -> PutItem | None:
        """Takes the lease out, and returns the item that gives it back; None if there is none."""
        lease, self.lease = self.lease, ""
        return PutItem(self.key, lease=lease, release=self.reason) if lease else None


def sealed_of(right: Right, value: V | Absent, schema: Schema[V]) -> Sealed[V] | None:
    """Returns a loaded value as it is stored and answered; None for its absence.

    Raises what the codec raises for a value that it refuses (`CodecError`); the right then says
    `unkept`.
    """
    right.reason = "unkept"
    sealed = None if value is ABSENT else schema.seal(value)
    right.reason = "failed"
    return sealed


def fill_of(right: Right, sealed: Sealed[Any] | None, lifetimes: Lifetimes, content_type: str) -> PutItem:
    """Returns the write of a loaded value, or of its absence, with its lease."""
    item = lifetimes.item(right.key, b"" if sealed is None else sealed.encoded, content_type)
    item.absent = sealed is None
    item.lease = right.lease
    if lifetimes.lag:
        item.source_lag = lifetimes.lag
    return item
