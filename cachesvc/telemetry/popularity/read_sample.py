"""A sample of recent reads: the share that an invalidation would touch, and the hot keys.

One L1 hit in 64 is remembered (its key and its tags), the last 2,048 of them. That is cheap enough
for the hottest path, and a share of p has a standard error of `sqrt(p (1 - p) / 2048)`, about 0.01
at worst. Of the reads that L1 does not answer fresh, one in 64 is noted as well, for `hot_keys.py`:
a key is no less hot because its reads miss.

The gaps between two sampled reads are random. If every 64th read were sampled, and a client asked
for the same 64 keys again and again, one of the keys would always be sampled and the others never.
"""

import random
from collections import deque
from collections.abc import Sequence, Set

from cachesvc.model.digest import digest, namespace_id
from cachesvc.model.entry import Entry, Key
from cachesvc.telemetry.popularity.hot_keys import HotKeys

EVERY = 64
"""Reads from one sampled read to the next, on average."""
SIZE = 2048
"""L1 hits that are remembered."""


class ReadSample:
    """The sample of one instance.

    `next_hit` is the number of the L1 hit to `note`. It is public for the one caller that cannot afford
    a call per hit.
    """

    def __init__(self, hot_keys: HotKeys, rng: random.Random) -> None:
        self.hot_keys = hot_keys
        self._rng = rng
        self._reads: deque[tuple[str, int, tuple[int, ...]]] = deque(maxlen=SIZE)
        self.next_hit = self._gap()
        self._skip = self._gap()

    def __len__(self) -> int:
        return len(self._reads)

    def __repr__(self) -> str:
        return f"<ReadSample [{len(self._reads)} of {SIZE}]>"

    def note(self, key: Key, entry: Entry) -> None:
        """Notes the L1 hit with the number `next_hit`."""
        self.next_hit += self._gap()
        self._reads.append((key.namespace, key.digest, entry.tag_digests))
        self.hot_keys.read(key, len(entry.value))

    def beyond(self, key: Key) -> None:
        """Takes a read that is no fresh hit in L1, and decides whether it is sampled."""
        self._skip -= 1
        if not self._skip:
            self._skip = self._gap()
            self.hot_keys.read(key)

    def all_beyond(self, keys: Sequence[Key]) -> None:
        """Takes the reads of these keys as `beyond` does, one after the other."""
        if self._skip > len(keys):
            self._skip -= len(keys)
        else:
            for key in keys:
                self.beyond(key)

    def share(self, targets: Set[int]) -> float:
        """Returns the share of the remembered reads that these digests touch; 0 if there are none.

        A digest of the read's key, of one of its tags, or of its namespace touches it.
        """
        namespaces = {
            name: digest(namespace_id(name)) in targets for name in {read[0] for read in self._reads}
        }
        touched = sum(
            namespaces[name] or key in targets or not targets.isdisjoint(tags)
            for name, key, tags in self._reads
        )
        return touched / len(self._reads) if self._reads else 0.0

    def _gap(self) -> int:
        return 1 + int(self._rng.random() * (2 * EVERY - 1))
