"""The table of route → scope: what an identity needs for each operation.

An operation is a row of the table of calls in `server.py`. A server whose table has an operation
without a row here does not start, nor one with a row for nothing.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from cachesvc.model.scope import Action


class Where(Enum):
    """The place in a request that says which namespace the scope has to be for."""

    PATH = "the path"
    """The router checks it, before it says whether there is such a namespace."""
    INSIDE = "the body, the query, or the answer"
    """The router checks that there is a scope for any namespace; the handler does the rest."""
    ALL = "none: it is about all namespaces"


class Rule(NamedTuple):
    """The scopes of which an operation needs one."""

    actions: tuple[Action, ...]
    """A scope for one of them is needed. The first one is named if there is none."""
    where: Where


OPEN = None
"""The rule of an operation that needs no identity: it tells nothing of any namespace."""
_ANY_ACTION = tuple(Action)

ROUTES: Mapping[str, Rule | None] = {
    "get": Rule((Action.READ,), Where.PATH),
    "head": Rule((Action.READ,), Where.PATH),
    "get_many": Rule((Action.READ,), Where.PATH),
    "put": Rule((Action.WRITE,), Where.PATH),
    "put_many": Rule((Action.WRITE,), Where.PATH),
    "release": Rule((Action.WRITE,), Where.PATH),
    "delete": Rule((Action.INVALIDATE,), Where.PATH),
    "invalidate": Rule((Action.INVALIDATE,), Where.INSIDE),
    # A receipt names neither namespace nor keys; its id is known to whoever made the change.
    "receipt": Rule((Action.INVALIDATE, Action.OBSERVE), Where.INSIDE),
    "explain": Rule((Action.EXPLAIN,), Where.PATH),
    # Fences are digests; the names of namespaces that the caller may not read are left out.
    "fences": Rule((Action.READ, Action.OBSERVE), Where.INSIDE),
    # Its items name all namespaces; the callers are other instances.
    "relay": Rule((Action.OBSERVE,), Where.ALL),
    # Every client has to find its instances. What else it is shown depends on its scopes.
    "topology": Rule(_ANY_ACTION, Where.INSIDE),
    "hotkeys": Rule((Action.OBSERVE,), Where.INSIDE),
    "audit": Rule((Action.OBSERVE,), Where.INSIDE),
    "metrics": Rule((Action.OBSERVE,), Where.ALL),
    "livez": OPEN,
    "readyz": OPEN,  # `?verbose` needs `observe:*`
    "openapi": OPEN,
}
"""Operation → rule."""


def check_routes(operations: Iterable[str]) -> None:
    """Raises `LookupError` for an operation without a row, and for a row without an operation."""
    if odd := ROUTES.keys() ^ set(operations):
        raise LookupError(f"the table of calls and that of scopes differ: {', '.join(sorted(odd))}")
