"""Copies that are only remembered: they tell what half and twice the TTL would hit.

A sample of the keys is followed: those whose digest is 0 in its last bits, one in 32 at first. For
each of them three copies are remembered without their values, as if their TTL were half, as it is,
and twice. At each read of the key:

    the copy is older than its TTL, or not later than the newest hard fence   → it misses, and
                                                                                is loaded now
    else                                                                      → it hits

So each of the three is replayed exactly, fences included, as if no copy were evicted and no stale
copy were answered. Misses count for as many keys as the followed key stands for: the sample is of
keys, spatially hashed, as in SHARDS (Waldspurger, Park, Garthwaite & Ahmad, FAST 2015). The misses
of a namespace are estimated, and not its hits: a key has at most one miss per TTL, however hot it
is, so it does not matter much which of the hot keys are in the sample. The error is that of a
Horvitz-Thompson estimate: with R the sampling rate and d a key's difference to the TTL as it is,
the variance is the sum of d² (1 - R) / R² over the followed keys. It says something only if many
keys have a difference: so these are counted, too.

At most `limit` keys are followed. If there are more, those whose copies are over are forgotten, and
if that is not enough, the rate is halved for good, as in SHARDS with a fixed size.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Protocol

from msgspec import Struct, field

from cachesvc.model.clock import Clock
from cachesvc.model.entry import Entry, Key

MASK = 31
"""The bits of a digest that are 0 in the sample at first: one key in 32."""
OFF = -1
"""The mask that no digest but 0 matches, as nothing is to be followed."""


class Came(Enum):
    """Why a copy is put near."""

    FOUND = "found"
    """A read has found it in another tier."""
    LOADED = "loaded"
    """A read missed, and it was loaded."""
    WRITTEN = "written"
    """A caller wrote it, without having missed it."""


class KnownFences(Protocol):
    """The hard fences that an instance has merged."""

    version: int
    """Another one after each merge."""

    def fence_on(self, key_digest: int, tag_digests: Sequence[int], namespace: str, /) -> int:
        """Returns the `at`, µs, of the newest of these fences."""
        ...


class NamespaceReuse(Struct):
    """The estimates of one namespace since the start. All counts are of the whole namespace."""

    misses_half: int = 0
    misses_same: int = 0
    misses_twice: int = 0
    """Misses with half, with the same, and with twice the TTL."""
    variance_half: int = 0
    variance_twice: int = 0
    """The variances of `misses_half` and `misses_twice`, each less `misses_same`."""
    keys_half: int = 0
    keys_twice: int = 0
    """Followed keys that have another number of misses than with the same TTL."""
    fills: int = 0
    """Values that were loaded or written, or came from another tier."""
    never_read: int = 0
    """Fills that were replaced, or expired, before anybody read them."""


class _Ghost(Struct, gc=False):
    """One followed key; its times are µs since the epoch."""

    namespace: str
    ttl_us: int
    half: int = 0
    same: int = 0
    twice: int = 0
    d_half: int = 0
    """Misses with half the TTL less those with the same; `d_twice` likewise."""
    d_twice: int = 0
    as_of: int = 0
    fresh_until: int = 0
    bytes: int = 0
    calm_until: int = 0
    """Until then, and while no fence is merged (`version`), all three copies hit."""
    version: int = -1
    is_unread: bool = False
    tags: tuple[int, ...] = field(default_factory=tuple)


class Ghosts:
    """The followed keys of one instance. All calls are made on the event loop."""

    def __init__(self, ttls_us: Mapping[str, int], fences: KnownFences, clock: Clock, *, limit: int) -> None:
        """`ttls_us`: the TTL of each namespace, for keys of which no copy was seen yet.

        `limit`: the most keys that are followed, about 600 bytes each; 0: none.
        """
        self.mask = MASK if limit else OFF
        """A key is followed if `digest & mask` is 0.

        It is public for the callers that cannot afford a call per read.
        """
        self._ttls_us = ttls_us
        self._fences = fences
        self._clock = clock
        self._limit = limit
        self._ghosts: dict[int, _Ghost] = {}
        self._reuse: dict[str, NamespaceReuse] = defaultdict(NamespaceReuse)
        self.take(ttls_us)

    def __repr__(self) -> str:
        return f"<Ghosts [{self.followed} of {self._limit} keys, one in {self.one_in}]>"

    def take(self, ttls_us: Mapping[str, int]) -> None:
        """Takes the TTLs of the namespaces that there are from now on; others are forgotten."""
        self._ttls_us = ttls_us
        if gone := self._reuse.keys() - ttls_us.keys():
            self._ghosts = {digest: one for digest, one in self._ghosts.items() if one.namespace not in gone}
        for name in gone:
            del self._reuse[name]
        for name in ttls_us:
            self._reuse[name]  # made if it is not there

    @property
    def followed(self) -> int:
        """The number of keys that are followed."""
        return len(self._ghosts)

    @property
    def one_in(self) -> int:
        """One key in so many is followed; 0 if none is."""
        return self.mask + 1

    def read(self, key: Key) -> None:
        """Notes a read of a followed key, whoever answers it."""
        now = self._clock.now_us()
        ghost = self._ghosts.get(key.digest) or self._followed(key, now)
        if ghost is None or (now < ghost.calm_until and ghost.version == self._fences.version):
            return
        fence = self._fences.fence_on(key.digest, ghost.tags, key.namespace)
        reuse, weight, ttl = self._reuse[key.namespace], self.mask + 1, ghost.ttl_us
        d_half = d_twice = 0
        if ghost.same <= fence or now >= ghost.same + ttl:
            ghost.same = now
            reuse.misses_same += weight
            d_half = d_twice = -1
        if ghost.half <= fence or now >= ghost.half + ttl // 2:
            ghost.half = now
            reuse.misses_half += weight
            d_half += 1
        if ghost.twice <= fence or now >= ghost.twice + 2 * ttl:
            ghost.twice = now
            reuse.misses_twice += weight
            d_twice += 1
        scale = weight * (weight - 1)
        if d_half:
            reuse.variance_half += scale * (2 * ghost.d_half * d_half + 1)
            reuse.keys_half -= ghost.d_half != 0
            ghost.d_half += d_half
            reuse.keys_half += ghost.d_half != 0
        if d_twice:
            reuse.variance_twice += scale * (2 * ghost.d_twice * d_twice + 1)
            reuse.keys_twice -= ghost.d_twice != 0
            ghost.d_twice += d_twice
            reuse.keys_twice += ghost.d_twice != 0
        ghost.calm_until = min(ghost.half + ttl // 2, ghost.same + ttl, ghost.twice + 2 * ttl)
        ghost.version = self._fences.version
        if ghost.is_unread:
            ghost.is_unread = False
            if ghost.as_of <= fence or now >= ghost.fresh_until:
                reuse.never_read += weight

    def kept(self, key: Key, entry: Entry, came: Came) -> None:
        """Notes a copy of a followed key that is put near.

        The ghosts take its TTL, tags and size. A value that was written replaces them, with any TTL;
        one that was loaded does not, as it was the read that missed.
        """
        now = self._clock.now_us()
        ghost = self._ghosts.get(key.digest) or self._followed(key, now)
        if ghost is None or ghost.as_of == entry.as_of:
            return
        reuse, weight = self._reuse[key.namespace], self.mask + 1
        reuse.fills += weight
        reuse.never_read += weight * ghost.is_unread
        ghost.as_of, ghost.fresh_until, ghost.bytes = entry.as_of, entry.fresh_until, len(entry.value)
        ghost.tags, ghost.ttl_us = entry.tag_digests, max(1, entry.fresh_until - max(entry.as_of, 0))
        ghost.is_unread, ghost.calm_until = came is not Came.FOUND, 0
        if came is Came.WRITTEN:
            ghost.half = ghost.same = ghost.twice = max(now, entry.as_of)

    def statistics(self) -> Mapping[tuple[str], NamespaceReuse]:
        """The estimates by namespace."""
        return {(name,): reuse for name, reuse in self._reuse.items()}

    def live_bytes(self) -> Mapping[tuple[str], int]:
        """The bytes of values whose copies are fresh now, by namespace: an estimate."""
        now, weight = self._clock.now_us(), self.mask + 1
        found = defaultdict[str, int](int, dict.fromkeys(self._reuse, 0))
        for ghost in self._ghosts.values():
            if ghost.fresh_until > now:
                found[ghost.namespace] += ghost.bytes * weight
        return {(name,): size for name, size in found.items()}

    def _followed(self, key: Key, now: int) -> _Ghost | None:
        """Follows the key from now on; None if it is not in the sample any more."""
        if len(self._ghosts) >= self._limit:
            self._make_room(now)
            if key.digest & self.mask:
                return None
        ghost = self._ghosts[key.digest] = _Ghost(key.namespace, self._ttls_us.get(key.namespace, 1))
        return ghost

    def _make_room(self, now: int) -> None:
        """Forgets keys whose copies are over; if fewer than an eighth are, halves the rate."""
        self._forget(lambda _, ghost: now >= ghost.twice + 2 * ghost.ttl_us, now)
        while len(self._ghosts) > self._limit * 7 // 8:
            self.mask = 2 * self.mask + 1
            self._forget(lambda digest, _: digest & self.mask != 0, now)

    def _forget(self, is_over: Callable[[int, _Ghost], bool], now: int) -> None:
        for digest, ghost in [(one, ghost) for one, ghost in self._ghosts.items() if is_over(one, ghost)]:
            del self._ghosts[digest]
            if ghost.is_unread and now >= ghost.fresh_until:
                self._reuse[ghost.namespace].never_read += self.mask + 1
