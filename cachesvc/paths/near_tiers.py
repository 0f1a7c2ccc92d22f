"""Puts copies near: into L1 at once, into L2 behind the answer; only while admissible."""

from collections.abc import Sequence

from cachesvc.coherence.admission import Admission, Standing
from cachesvc.config.topology import Namespace
from cachesvc.model.entry import Entry, Key
from cachesvc.telemetry.ghosts import Came, Ghosts
from cachesvc.telemetry.popularity.hot_keys import HotKeys
from cachesvc.tiers.l1.l1 import L1
from cachesvc.tiers.l2.contract import Pool


class NearTiers:
    """L1 and L2 as the paths put copies into them."""

    def __init__(self, l1: L1, l2: Pool, admission: Admission, hot_keys: HotKeys, ghosts: Ghosts) -> None:
        self._l1 = l1
        self._l2 = l2
        self._admission = admission
        self._hot_keys = hot_keys
        self._ghosts = ghosts

    @property
    def has_l2(self) -> bool:
        """False if L2 has no server now, so that no copies need be put there."""
        return not self._l2.is_empty

    def keep(self, key: Key, namespace: Namespace, entry: Entry, came: Came = Came.LOADED) -> bool:
        """Puts a copy into L1 if it may be answered from there now; True if it was put.

        Synchronous: no fence can come between check and put.
        """
        if not self.may_have(key, namespace, entry):
            return False
        self.put(key, entry, came)
        return True

    def may_have(self, key: Key, namespace: Namespace, entry: Entry) -> bool:
        """True if a copy is admissible now and still of some use."""
        return self._admission.standing(entry, key, namespace) not in (Standing.REFUSED, Standing.DEAD)

    def put(self, key: Key, entry: Entry, came: Came) -> None:
        """Puts into L1 a copy that was judged in this very step."""
        if not key.digest & self._ghosts.mask:
            self._ghosts.kept(key, entry, came)
        self._hot_keys.valued(key, len(entry.value))
        self._l1.put(key, entry)

    def put_many(self, keys: Sequence[Key], entries: Sequence[Entry | None], came: Came) -> int:
        """Does what `put` does, for keys of one namespace, and returns the number of entries.

        None stands in the place of a key without a copy.
        """
        ghosts, put = self._ghosts, self._l1.put
        note = self._hot_keys.noter_of_values(keys[0].namespace)
        count = 0
        for key, entry in zip(keys, entries, strict=True):
            if entry is not None:
                count += 1
                if not key.digest & ghosts.mask:
                    ghosts.kept(key, entry, came)
                note(key.text, len(entry.value))
                put(key, entry)
        return count

    async def copy(self, items: Sequence[tuple[Key, Namespace, Entry]]) -> None:
        """Puts copies into L2, those that are admissible.

        A fence that comes while a copy travels refuses it on every read; a failure costs a round
        trip later.
        """
        admissible = [(key, entry) for key, namespace, entry in items if self.may_have(key, namespace, entry)]
        if admissible:
            await self._l2.set_many(admissible)

    async def drop(self, keys: Sequence[Key]) -> None:
        """Frees what an invalidation made useless, in L1 and L2.

        Correctness never depends on it.
        """
        for key in keys:
            self._l1.delete(key)
        if keys:
            await self._l2.delete_many(keys)
