"""Which keys are so hot that their readers spread them over several instances.

The reads of this instance that are sampled (`read_sample.py`) are counted in windows: a window ends
with 128 sampled reads, after a second at least. With x the share of a key in a window, and k the
number of instances over which its readers have been told to spread it (1 at first):

    u = k x / (1 + (k - 1) x)          the share that the key would have if all its reads came here
    u > share                          the key is hot: spread it over as many instances as it takes
                                       to have at most `share` of the reads of each
    u < share / 2, in three windows    it has cooled: it is not spread any more
    in a row

So the key of which only one read in k comes here is judged by what it was, and not by what is left
of it. k grows while a key is hot, and never shrinks before the key has cooled. Between `share` and
half of it nothing changes; and if a key with a share of u is not spread any more, all its reads
come here again, and u is below `share`. So no key goes back and forth.

Nothing is spread with fewer than 128 sampled reads in twenty seconds (400 reads per second). These,
too, are counted as if all reads of the hot keys came here: else an instance that has few others
would end the spreading because of what it has spread.
"""

from collections.abc import Mapping
from math import ceil

from cachesvc.model.clock import SECONDS

WINDOW_US = SECONDS
"""The least length of a window."""
ENOUGH = 128
"""The least number of sampled reads in a window.

A share of 0.1 then has a standard error of 0.03.
"""
MOST = 4096
"""The most sampled reads in a window, and so the most keys that are counted."""
LONGEST_US = 20 * SECONDS
"""The time in which `ENOUGH` reads are to come, or the reads are too few."""
LAPSE_US = 60 * SECONDS
"""The time after which a window that nobody has ended counts for nothing."""
COOL_WINDOWS = 3
"""The windows in a row, below half the share, after which a key has cooled."""


class Spread:
    """The hot keys of one instance, and over how many instances each is to be read."""

    def __init__(self, share: float, instances: int) -> None:
        """`share`: from which share of this instance's reads on a key is hot; 0: none ever is.

        `instances`: those of the region, this one included.
        """
        self._share = share
        self._instances = instances
        self.is_on = share > 0 and instances > 1
        self.hot: dict[int, int] = {}
        """The digest of each hot key, and over how many instances it is spread. It is public for
        callers that cannot afford a call per read: it is nearly always empty."""
        self._hot_until_us = 0
        self._cool: dict[int, int] = {}
        """The digest of a hot key, and the windows in a row that saw it cool."""
        self._counts: dict[int, int] = {}
        self._noted = 0
        self._began_us = 0

    def __repr__(self) -> str:
        return f"<Spread [{len(self.hot)} hot keys, {self._noted} reads in the window]>"

    def of(self, key_digest: int, now_us: int) -> int:
        """Returns over how many instances the key is to be read; 0 if it is not hot."""
        return self.hot.get(key_digest, 0) if now_us < self._hot_until_us else 0

    def keys(self, now_us: int) -> int:
        """Returns how many keys are hot."""
        return len(self.hot) if now_us < self._hot_until_us else 0

    def note(self, key_digest: int) -> None:
        """Counts a sampled read. Does nothing while no key is ever spread."""
        if self.is_on:
            self._counts[key_digest] = self._counts.get(key_digest, 0) + 1
            self._noted += 1

    def judge(self, now_us: int) -> None:
        """Ends the window, if it is over. To be called every few dozen sampled reads."""
        age_us = now_us - self._began_us
        is_full = self._noted >= MOST or (self._noted >= ENOUGH and age_us >= WINDOW_US)
        if 0 <= age_us < LONGEST_US and not is_full:
            return
        if 0 <= age_us < LAPSE_US and self._undivided() * LONGEST_US >= ENOUGH * age_us:
            self._end(self._counts, self._noted)
            self._hot_until_us = now_us + LAPSE_US
        else:
            self.hot.clear()
            self._cool.clear()
        self._counts, self._noted, self._began_us = {}, 0, now_us

    def _undivided(self) -> int:
        """Returns how many reads the window would have if all reads of hot keys came here."""
        elsewhere = ((told - 1) * self._counts.get(one, 0) for one, told in self.hot.items())
        return self._noted + sum(elsewhere)

    def _end(self, counts: Mapping[int, int], noted: int) -> None:
        least = self._share * noted
        for key_digest in [*self.hot, *(one for one, count in counts.items() if count > least)]:
            told = self.hot.get(key_digest, 1)
            share = counts.get(key_digest, 0) / noted
            undivided = told * share / (1 + (told - 1) * share)
            if undivided > self._share:
                self.hot[key_digest] = max(told, self._wanted(undivided))
            if undivided >= self._share / 2:
                self._cool.pop(key_digest, None)
            else:
                self._cooler(key_digest)

    def _cooler(self, key_digest: int) -> None:
        windows = self._cool[key_digest] = self._cool.get(key_digest, 0) + 1
        if windows >= COOL_WINDOWS:
            del self.hot[key_digest], self._cool[key_digest]

    def _wanted(self, undivided: float) -> int:
        """Returns over how many instances to spread a key with this share of one's reads.

        With the others' reads unchanged, a share of u becomes (u / k) / (1 - u + u / k).
        """
        if undivided >= 1:
            return self._instances
        wanted = ceil(undivided * (1 - self._share) / (self._share * (1 - undivided)))
        return max(2, min(wanted, self._instances))
