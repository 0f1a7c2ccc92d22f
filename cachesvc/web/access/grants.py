"""A grant: the identity of a request, and what it may do.

A refusal names the missing scope and the identity. It is the same whether or not there is such a
namespace.
"""

from collections.abc import Collection, Iterable, Sequence

from cachesvc.model.caller import ANONYMOUS, Caller
from cachesvc.model.errors import RequestError
from cachesvc.model.partition import partition
from cachesvc.model.printable import printable, shortened
from cachesvc.model.problems import ProblemKind
from cachesvc.model.scope import EVERY, Action, Scope, fits

ENDLESS_US = 1 << 62
"""The end of a grant that has none."""
_WHOLE = frozenset((EVERY,))
"""The patterns of partitions, where the action may be done in all of them."""


class Grant:
    """The rights of one identity. They do not change; a new document makes new grants."""

    __slots__ = ("caller", "end_us", "namespaces", "readable", "scopes", "title")

    def __init__(
        self,
        caller: Caller,
        scopes: Iterable[Scope],
        namespaces: Collection[str],
        *,
        title: str = "",
        end_us: int = ENDLESS_US,
    ) -> None:
        """`namespaces` are the declared ones.

        `title` names the caller in refusals and audit records.
        """
        self.caller = caller
        self.scopes = tuple(scopes)
        self.title = title or caller.name
        """The name of the identity; empty on an instance where nobody has one."""
        self.end_us = end_us
        """The moment (µs since 1970) from which the identity has to be shown anew."""
        whole_reads = [one for one in self.scopes if one.action is Action.READ and one.partition == EVERY]
        self.readable = frozenset(_covered(whole_reads, namespaces))
        """The declared namespaces in which every key may be read."""
        self.namespaces = dict.fromkeys(_covered(self.scopes, namespaces))
        """The declared namespaces in which anything at all may be done, in their order."""

    def __repr__(self) -> str:
        return f"<Grant of {self.title or 'everybody'!r}: {', '.join(map(str, self.scopes)) or 'nothing'}>"

    def has(self, action: Action, namespace: str) -> bool:
        """True if the action may be done in all partitions of the namespace.

        `EVERY` as `namespace` means all namespaces together.
        """
        return EVERY in self._patterns(action, namespace)

    def has_any(self, action: Action, namespace: str | None = None) -> bool:
        """True if the action may be done in a part of the namespace; without one, anywhere."""
        if namespace is None:
            return any(scope.action is action for scope in self.scopes)
        return bool(self._patterns(action, namespace))

    # what a request needs -----------------------------------------------------------------------------

    def require(self, action: Action, namespace: str, field: str = "") -> None:
        """Raises `RequestError` unless the action may be done in a part of the namespace."""
        self._required(action, namespace, field)

    def require_whole(self, action: Action, namespace: str, field: str = "") -> None:
        """Raises `RequestError` unless the action may be done in the whole namespace."""
        if not self.has(action, namespace):
            raise self.refusal(_scope(action, namespace), field)

    def require_keys(self, action: Action, namespace: str, keys: Sequence[str], field: str = "") -> None:
        """Raises `RequestError` for the first key in whose partition the action may not be done.

        With a `field`, the refusal names the place of the key in it.
        """
        if EVERY not in (patterns := self._required(action, namespace, field)):
            for index, key in enumerate(keys):
                at = f"{field}[{index}]" if field else "key"
                self._require_partition(patterns, action, namespace, partition(key), at)

    def require_tags(self, action: Action, namespace: str, tags: Sequence[str], field: str) -> None:
        """Raises `RequestError` for the first tag that reaches beyond the action's partitions.

        A tag that names no partition reaches all of them.
        """
        if EVERY not in (patterns := self._required(action, namespace, field)):
            for index, tag in enumerate(tags):
                at, of = f"{field}[{index}]", partition(tag)
                if of == tag:
                    raise self.refusal(_scope(action, namespace), at)
                self._require_partition(patterns, action, namespace, of, at)

    def _patterns(self, action: Action, namespace: str) -> Collection[str]:
        """Returns the patterns of the partitions in which the action may be done.

        Nearly all requests read where all may be read: their scopes are not looked through again.
        """
        if action is Action.READ and namespace in self.readable:
            return _WHOLE
        return {scope.partition for scope in self.scopes if scope.is_for(action, namespace)}

    def _required(self, action: Action, namespace: str, field: str) -> Collection[str]:
        """Returns the same. Raises `RequestError` if there is none."""
        if not (patterns := self._patterns(action, namespace)):
            raise self.refusal(_scope(action, namespace), field)
        return patterns

    def _require_partition(
        self, patterns: Collection[str], action: Action, namespace: str, of: str, field: str
    ) -> None:
        if not any(fits(pattern, of) for pattern in patterns):
            raise self.refusal(f"{_scope(action, namespace)}:{shortened(printable(of), 64)}", field)

    def refusal(self, scope: str, field: str = "") -> RequestError:
        """Returns the refusal of a request that needs this scope."""
        if self.caller is ANONYMOUS:
            why = f"callers without an identity may not do this: it needs one with the scope {scope}"
            return RequestError(ProblemKind.NO_IDENTITY, why, field="Authorization", scope=scope)
        why = f"{self.title} has not the scope {scope}"
        return RequestError(
            ProblemKind.MISSING_SCOPE, why, field=field or None, scope=scope, identity=self.title
        )


def _covered(scopes: Iterable[Scope], namespaces: Collection[str]) -> Iterable[str]:
    """Returns the namespaces that the scopes are for, in their order.

    Each scope is looked at once, and not once for each namespace: there may be thousands.
    """
    patterns = {scope.namespace for scope in scopes}
    if EVERY in patterns:
        return namespaces
    beginnings = tuple(pattern[:-1] for pattern in patterns if pattern.endswith(EVERY))
    return [name for name in namespaces if name in patterns or name.startswith(beginnings)]


def _scope(action: Action, namespace: str) -> str:
    return f"{action}:{shortened(printable(namespace), 64)}"
