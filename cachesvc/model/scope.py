"""Scopes: what an identity may do, in which namespaces, and in which partitions of them.

read:pages             reads in the namespace `pages`
write:shop-*           writes in every namespace whose name begins with `shop-`
invalidate:pages:ws-*  invalidations in the partitions of `pages` that begin with `ws-`
"""

import re
from enum import StrEnum

from msgspec import Struct

EVERY = "*"
"""The pattern that covers every name."""
_FORM = re.compile(r"([a-z]+):([a-z0-9_-]*\*?)(?::([^\s*]*\*?))?")


class Action(StrEnum):
    """The kinds of calls that a scope is for."""

    READ = "read"
    WRITE = "write"
    INVALIDATE = "invalidate"
    EXPLAIN = "explain"
    OBSERVE = "observe"
    ADMIN = "admin"
    """For routes that change the deployment itself. There are none yet, so it gives nothing."""


_ACTIONS = frozenset(Action)


class Scope(Struct, frozen=True):
    """The right to one action, where both patterns fit.

    A pattern is a whole name, or the beginning of names and `*`.
    """

    action: Action
    namespace: str
    """The pattern of the namespaces."""
    partition: str = EVERY
    """The pattern of the partitions of keys and tags."""

    @classmethod
    def parse(cls, text: str) -> "Scope":
        """Returns the scope of its text. Raises `ValueError`, which says what a scope looks like."""
        match = _FORM.fullmatch(text)
        if match is None or match[1] not in _ACTIONS or not match[2] or match[3] == "":
            raise ValueError(
                f"{text[:100]!r} is no scope: write one of {', '.join(Action)}, a colon, and a namespace or"
                " the beginning of names and '*', such as read:pages or read:shop-*;"
                " a third part, such as in read:pages:ws-*, names partitions"
            )
        return cls(Action(match[1]), match[2], match[3] or EVERY)

    def __str__(self) -> str:
        text = f"{self.action}:{self.namespace}"
        return text if self.partition == EVERY else f"{text}:{self.partition}"

    def is_within(self, other: "Scope") -> bool:
        """True if the other scope is for everything that this one is for."""
        return (
            self.action is other.action
            and _is_within(self.namespace, other.namespace)
            and _is_within(self.partition, other.partition)
        )

    def is_for(self, action: Action, namespace: str) -> bool:
        """True if it is for the action in the namespace, at least in some partitions.

        `EVERY` as `namespace` means all namespaces together.
        """
        return self.action is action and fits(self.namespace, namespace)


def _is_within(pattern: str, other: str) -> bool:
    """True if the other pattern covers every name that the pattern covers."""
    if other.endswith("*"):
        return pattern.removesuffix("*").startswith(other[:-1])
    return pattern == other


def fits(pattern: str, name: str) -> bool:
    """True if the pattern covers the name. Only `*` covers `*`."""
    if pattern.endswith("*"):
        return pattern == EVERY or (name != EVERY and name.startswith(pattern[:-1]))
    return pattern == name
