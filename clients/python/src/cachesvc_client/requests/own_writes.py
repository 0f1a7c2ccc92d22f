"""Read-your-writes: the fences of this client's writes, sent along with its reads.

Any instance may answer a read, also one that has not yet heard of the write. So the `(digest, at)`
pairs that a write was answered with go with later reads as their token: the pairs of the keys that
are read, and those of the namespace's tags and of the namespace itself, as only the service knows
which tags an entry has. Other reads carry no token and stay on the service's shortest path.

Pairs are kept for a minute, by when every instance has either heard of the write or bounds its
staleness itself. Beyond `MAX_KEYS` and `MAX_WIDE` the oldest go first, and are counted: they are
the likeliest to be known everywhere.

Not locked: a client that is used by several threads holds a lock of its own around each call.
"""

import struct
from base64 import b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TypeAlias

from xxhash import xxh3_64_intdigest

KEPT_SECONDS = 60.0
MAX_KEYS = 50_000
MAX_WIDE = 128
"""The pairs of tags and of the whole, per namespace.

With a batch of 256 keys a token has at most 384 pairs: 8192 letters.
"""
MAX_PAIRS = 384
"""The pairs of one request's token."""
MAX_HANDED = MAX_PAIRS - MAX_WIDE - 1
"""The pairs that one client hands to another.

With those of the other's own writes they must fit into a read of one key.
"""

_PAIR = struct.Struct(">QQ")
_Kept: TypeAlias = OrderedDict[int, tuple[int, float]]
"""Digest → (at, when to forget it), the oldest first."""


def key_digest(namespace: str, key: str) -> int:
    return xxh3_64_intdigest(f"{namespace}/{key}".encode())


def pairs_of(token: str) -> list[tuple[int, int]]:
    """The pairs of a token. Raises `ValueError` if the text is no token."""
    if not isinstance(token, str):
        raise ValueError(f"token: is a text, not {type(token).__name__}")
    try:
        return list(_PAIR.iter_unpack(b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)))
    except (ValueError, struct.error) as error:
        raise ValueError(f"{token[:64]!r} is no token") from error


def token_of(pairs: Iterable[tuple[int, int]]) -> str:
    return urlsafe_b64encode(b"".join(_PAIR.pack(*pair) for pair in pairs)).rstrip(b"=").decode()


class OwnWrites:
    """The pairs of one client. `clock` is monotonic seconds."""

    def __init__(
        self, clock: Callable[[], float], *, max_keys: int = MAX_KEYS, max_wide: int = MAX_WIDE
    ) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._max_wide = max_wide
        self._keys: _Kept = OrderedDict()
        self._wide: dict[str, _Kept] = {}
        self.dropped = 0
        """The pairs forgotten before their time because there were too many."""

    def forget(self) -> None:
        """Forgets all pairs."""
        self._keys.clear()
        self._wide.clear()

    def learn(self, namespace: str, token: str, keys: Iterable[str]) -> None:
        """Remembers the token of a write's answer. Raises `ValueError` if it is no token."""
        pairs = pairs_of(token)
        if not pairs:
            return
        digests = {key_digest(namespace, key) for key in keys}
        for digest, at in pairs:
            if digest in digests:
                self._keep(self._keys, digest, at, self._max_keys)
            else:
                self._keep(self._wide.setdefault(namespace, OrderedDict()), digest, at, self._max_wide)

    def heed(self, digest: int, at: int) -> None:
        """Remembers a fence that this client heard of in another way, by the feed for instance.

        An instance that has not heard of it would answer with what it refuses.
        """
        self._keep(self._keys, digest, at, self._max_keys)

    def pairs_for(self, namespace: str, keys: Iterable[str]) -> list[tuple[int, int]]:
        """The pairs that a read of these keys must honour. Cheap if there are none."""
        wide = self._wide.get(namespace)
        if not self._keys and not wide:
            return []
        now = self._clock()
        pairs = [(digest, at) for digest, (at, _) in self._fresh(wide, now).items()] if wide else []
        if kept := self._fresh(self._keys, now):
            digests = {key_digest(namespace, key) for key in keys}
            pairs += [(digest, kept[digest][0]) for digest in digests if digest in kept]
        return pairs

    def token_for(self, namespace: str, keys: Iterable[str]) -> str:
        """The pairs for these keys as a token; empty if there are none."""
        pairs = self.pairs_for(namespace, keys)
        return token_of(pairs) if pairs else ""

    def token(self) -> str:
        """The newest `MAX_HANDED` pairs of all namespaces, for another client."""
        now = self._clock()
        kept = [pair for one in (self._keys, *self._wide.values()) for pair in self._fresh(one, now).items()]
        newest = sorted(((at, digest) for digest, (at, _) in kept), reverse=True)[:MAX_HANDED]
        return token_of((digest, at) for at, digest in newest)

    def _keep(self, kept: _Kept, digest: int, at: int, most: int) -> None:
        known, _ = kept.pop(digest, (0, 0.0))
        kept[digest] = (max(at, known), self._clock() + KEPT_SECONDS)
        if len(kept) > most:
            kept.popitem(last=False)
            self.dropped += 1

    @staticmethod
    def _fresh(kept: _Kept, now: float) -> _Kept:
        while kept and next(iter(kept.values()))[1] <= now:
            kept.popitem(last=False)
        return kept
