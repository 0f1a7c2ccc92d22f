"""The hot keys that the service has told this client to spread over several instances.

    an answer says `spread: k`       → reads of the key take turns over the first k of its ring
    30 s without an answer like that → they go to the key's own instance again

Several of the k instances say so, each by the reads that it sees; the largest number counts until
its time ends. Only reads are spread. Fills, and whoever waits for another's fill, meet at the key's
own instance as before.

Times are monotonic seconds.
"""

from random import Random

KNOWN_SECONDS = 30.0
"""The time after the last answer that named the key as hot; then its reads go home."""
MOST = 256
"""The most hot keys of one client, about 100 bytes each.

What the client is told of others has no effect.
"""


class _Hot:
    __slots__ = ("instances", "turn", "until")

    def __init__(self, instances: int, until: float, turn: int) -> None:
        self.instances = instances
        self.until = until
        self.turn = turn


class HotKeys:
    """The hot keys of one client, by digest. Threads that race may take the same turn."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._hot: dict[int, _Hot] = {}

    def __len__(self) -> int:
        return len(self._hot)

    def __repr__(self) -> str:
        return f"<HotKeys [{len(self._hot)}]>"

    def heed(self, key_digest: int, instances: int, now: float) -> None:
        """Notes that an answer said to spread the key over so many instances."""
        hot = self._hot.get(key_digest)
        if hot is None:
            if len(self._hot) >= MOST:
                self._forget(now)
            if len(self._hot) < MOST:
                # Clients that are told at the same time begin at different instances.
                turn = self._rng.randrange(instances)
                self._hot[key_digest] = _Hot(instances, now + KNOWN_SECONDS, turn)
        elif instances >= hot.instances or hot.until <= now:
            hot.instances, hot.until = instances, now + KNOWN_SECONDS

    def instances(self, key_digest: int, now: float) -> int:
        """Returns over how many instances reads of the key are spread; 0 if they are not."""
        hot = self._hot.get(key_digest)
        return hot.instances if hot is not None and hot.until > now else 0

    def turn(self, key_digest: int, now: float) -> tuple[int, int] | None:
        """Returns how many instances there are, and which turn it is; None: no hot key.

        The turns go up by one.
        """
        hot = self._hot.get(key_digest)
        if hot is None:
            return None
        if hot.until <= now:
            self._hot.pop(key_digest, None)
            return None
        hot.turn += 1
        return hot.instances, hot.turn

    def clear(self) -> None:
        self._hot.clear()

    def _forget(self, now: float) -> None:
        """Forgets the keys whose time has ended."""
        for key_digest in [one for one, hot in list(self._hot.items()) if hot.until <= now]:
            self._hot.pop(key_digest, None)
