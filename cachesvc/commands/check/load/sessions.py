"""A session: a caller that reads its own writes at any instance, and never goes back.

For its writes it sends their tokens. For its reads it sends a token that asks for a copy which
was loaded no earlier than the copy it saw: a pair (digest of the key, `as_of` − 1), because a
copy has to be later than a token's moment. An answer that its home has not confirmed says the time
of its pair itself (`seen`).
"""

from collections.abc import Iterable

from cachesvc.commands.check.history import Announcement
from cachesvc.commands.check.load import tokens
from cachesvc.model.entry import Key


class Session:
    """The tokens of one session. A session belongs to one client."""

    def __init__(self, name: str, namespace: str) -> None:
        self.name = name
        self._namespace = namespace
        self._pairs: dict[str, dict[int, int]] = {}
        """By key: the token's pairs (digest, at) that a read of the key has to send."""
        self._written: dict[str, int] = {}
        """By key: the newest own write whose token is known."""

    def __repr__(self) -> str:
        return f"<Session {self.name}: {len(self._written)} own writes, pairs for {len(self._pairs)} keys>"

    def learn_write(self, announced: Announcement) -> None:
        """Keeps the token of an own write, if the announcement was answered with one; an event is
        not."""
        if not announced.token:
            return
        pairs = tokens.read(announced.token)
        for key, w in announced.writes:
            tokens.merge(self._pairs.setdefault(key, {}), pairs)
            self._written[key] = max(w, self._written.get(key, 0))

    def learn_read(self, key: str, as_of: int, seen: int = 0) -> None:
        """Keeps that a copy loaded at `as_of` was seen, or what its answer says (`seen`).

        A time of 0 is not kept.
        """
        if at := seen or max(0, as_of - 1):
            tokens.merge(self._pairs.setdefault(key, {}), {Key.of(self._namespace, key).digest: at})

    def token(self, keys: Iterable[str]) -> str:
        """The token for a read of these keys; empty if nothing is known about them."""
        pairs: dict[int, int] = {}
        for key in keys:
            tokens.merge(pairs, self._pairs.get(key, {}))
        return tokens.write(pairs)

    def writes(self, key: str) -> tuple[tuple[str, int], ...]:
        """The own writes, as pairs (key, w), that the token for a read of this key stands for."""
        return ((key, self._written[key]),) if key in self._written else ()
