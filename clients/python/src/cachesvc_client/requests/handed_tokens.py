"""Tokens from other clients: a read under a token shows what the other client has written.

A token holds for a block, and for the tasks that are started in it, through a context variable:
namespaces and cached functions are made once and used by many requests, each of which may have come
with its own token. Reads made at the same time still share a request, which then has the pairs of
all of them.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, TypeAlias

from cachesvc_client.requests.own_writes import MAX_HANDED, pairs_of, token_of


class UnderToken(NamedTuple):
    """A key that is read under a token.

    It never shares a slot with the same key without the token, which may be answered with less.
    """

    key: str
    token: str


Wanted: TypeAlias = str | UnderToken
"""The object of a read: nearly always a plain key."""


def key_of(wanted: Wanted) -> str:
    return wanted if isinstance(wanted, str) else wanted.key


class Handed:
    """The tokens handed to one client."""

    def __init__(self) -> None:
        self._token: ContextVar[str] = ContextVar("cachesvc_token", default="")

    @contextmanager
    def block(self, token: str) -> Iterator[None]:
        """Returns a block in which the token holds; within another block both tokens hold.

        Raises `ValueError` for a text that is no token, or that has more pairs than a read takes.
        """
        merged = _merged(self._token.get(), token)
        before = self._token.set(merged)
        try:
            yield
        finally:
            self._token.reset(before)

    def wanted(self, key: str) -> Wanted:
        """The key, under the token of the current block if there is one."""
        token = self._token.get()
        return UnderToken(key, token) if token else key

    def all_wanted(self, keys: Iterable[str]) -> list[Wanted]:
        """Does what `wanted` does, for many keys."""
        token = self._token.get()
        return [UnderToken(key, token) for key in keys] if token else list(keys)


def _merged(outer: str, inner: str) -> str:
    pairs: dict[int, int] = {}
    for digest, at in (*pairs_of(outer), *pairs_of(inner)):
        pairs[digest] = max(at, pairs.get(digest, 0))
    if len(pairs) > MAX_HANDED:
        raise ValueError(
            f"token: {len(pairs)} pairs, a read can carry {MAX_HANDED}: invalidate with wait='region' instead"
        )
    return token_of(sorted(pairs.items()))
