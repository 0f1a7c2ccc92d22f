"""A sample of recent reads: what share of them would an invalidation touch?

One L1 hit in 64 is remembered (its key and its tags), the last 2,048 of them. That is cheap enough for the hottest path, and a
share of p has a standard error of `sqrt(p (1 - p) / 2048)`, about one in a hundred at worst.
"""

from collections import deque
from collections.abc import Set

from cachesvc.hashing.digest import digest, namespace_id
from cachesvc.model import Entry, Key

EVERY = 63
"""A hit whose number has none of these bits is sampled."""
SIZE = 2048


class ReadSample:
    def __init__(self) -> None:
        self._reads: deque[tuple[str, int, tuple[int, ...]]] = deque(maxlen=SIZE)

    def __len__(self) -> int:
        return len(self._reads)

    def __repr__(self) -> str:
        return f"<ReadSample [{len(self._reads)} of {SIZE}]>"

    def note(self, key: Key, entry: Entry) -> None:
        self._reads.append((key.namespace, key.digest, entry.tag_digests))

    def share(self, targets: Set[int]) -> float:
        """Of the remembered reads, those whose key, tag or namespace is among these digests; 0 if there are none."""
        namespaces = {name: digest(namespace_id(name)) in targets for name in {read[0] for read in self._reads}}
        touched = sum(namespaces[name] or key in targets or not targets.isdisjoint(tags) for name, key, tags in self._reads)
        return touched / len(self._reads) if self._reads else 0.0
