"""A caller that remembers: it reads its own writes anywhere, and never goes back.

For its writes it sends their tokens. For what it has read it sends a token that asks for a copy loaded no earlier than the one it
saw: a pair (key's digest, `as_of` − 1), since a copy has to be later than a token's moment.
"""

from collections.abc import Iterable

from cachesvc.commands.check.history import Announcement
from cachesvc.commands.check.load import tokens
from cachesvc.model.entry import Key


class Session:
    """Of one client; not shared."""

    def __init__(self, name: str, namespace: str) -> None:
        self.name = name
        self._namespace = namespace
        self._pairs: dict[str, dict[int, int]] = {}
        """By key: what a read of it has to send."""
        self._written: dict[str, int] = {}
        """By key: the newest own write whose token is held."""

    def __repr__(self) -> str:
        return f"<Session {self.name}: {len(self._written)} own writes, pairs for {len(self._pairs)} keys>"

    def learn_write(self, announced: Announcement) -> None:
        """The token of an own write, if it was told one: an event has none."""
        if not announced.token:
            return
        pairs = tokens.read(announced.token)
        for key, w in announced.writes:
            tokens.merge(self._pairs.setdefault(key, {}), pairs)
            self._written[key] = max(w, self._written.get(key, 0))

    def learn_read(self, key: str, as_of: int) -> None:
        if as_of:
            tokens.merge(self._pairs.setdefault(key, {}), {Key.of(self._namespace, key).digest: as_of - 1})

    def token(self, keys: Iterable[str]) -> str:
        """To read these with; empty if nothing is known of them."""
        pairs: dict[int, int] = {}
        for key in keys:
            tokens.merge(pairs, self._pairs.get(key, {}))
        return tokens.write(pairs)

    def writes(self, key: str) -> tuple[tuple[str, int], ...]:
        """The own writes that the token of a read of this key stands for."""
        return ((key, self._written[key]),) if key in self._written else ()
