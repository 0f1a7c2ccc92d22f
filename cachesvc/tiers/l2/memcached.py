"""L2: the copies that one memcached server of the region's pool holds."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xxhash import xxh3_128_hexdigest

from cachesvc.config.service import L2
from cachesvc.model.clock import SECONDS, Clock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError
from cachesvc.model.units import Size
from cachesvc.tiers.envelope import is_damaged, pack, unpack
from cachesvc.tiers.l2.contract import Lookup
from cachesvc.tiers.l2.memcached_access import DEFAULT_ACCESS, MemcachedAccess
from cachesvc.tiers.l2.memcached_client import PipelinedClient, is_refusal
from cachesvc.tiers.l2.memcached_look import look
from cachesvc.tiers.l2.memcached_thread import MemcachedThread
from cachesvc.tiers.l2.statistics import Fullness, TierStatistics
from cachesvc.tiers.seal import Seal

logger = logging.getLogger(__name__)

LARGEST_ITEM = Size.parse("1MiB") - 512
"""Bytes of name and envelope together. memcached takes items of 1 MiB at most, and counts
its own header and the name among them."""

NAME_BYTES = 250
"""Bytes of the longest name that memcached takes."""

UNSEALED_SECONDS = 60
"""How long a server is said to hold copies whose seal does not fit, after the last one."""

_RELATIVE_AT_MOST = 30 * 24 * 3600
_LEGAL_NAME = bytes(range(0x21, 0x7F))


class MemcachedTier:
    """One server, over one connection on a thread of its own.

    Each call of `get_many`, `set_many` or `delete_many` is one exchange, in the order of the calls, so
    put `Batched` in front: it fills and bounds the batches. A cancelled call closes the connection if
    its exchange has begun.
    """

    def __init__(
        self,
        name: str,
        address: str,
        settings: L2,
        clock: Clock,
        *,
        seal: Seal | None = None,
        access: MemcachedAccess = DEFAULT_ACCESS,
        longest_us: int | None = None,
    ) -> None:
        """Makes a tier that is not connected yet.

        `name` is the server's name on the ring, `address` is `host:port`, `tls:host:port` or
        `unix:/path`. With `seal`, copies are sealed, and those whose seal does not fit are misses.
        `longest_us`: the server keeps no copy for longer.
        """
        self.name = name
        self._longest_us = longest_us
        self.address = address
        self._clock = clock
        self._timeout_seconds = settings.timeout.seconds
        client = PipelinedClient(
            address,
            access,
            connect_timeout=settings.connect_timeout.seconds,
            timeout=settings.timeout.seconds,
            round_trip_at_most=settings.round_trip_at_most.seconds,
            no_delay=True,
        )
        self._client = client
        self._access = access
        self._thread = MemcachedThread(f"memcached {name}", client)
        self.loop = self._thread.loop
        self._hits = self._misses = self._errors = 0
        self._batches = self._batched_keys = 0
        self._dropped = self._failed_writes = self._damaged = self._unsealed = 0
        self.is_sealed = seal is not None
        self._unsealed_at_us = 0
        self._pack = seal.pack if seal else pack
        self._unpack = seal.unpack if seal else unpack

    async def get_many(self, keys: Sequence[Key]) -> Sequence[Lookup]:
        if not keys:
            return ()
        names = wire_names([key.id for key in keys])
        self._count_batch(len(keys))
        answer = await self._thread.run(lambda client: client.fetch(names))
        if isinstance(answer, TierError):
            self._errors += len(keys)
            return [answer] * len(keys)
        held, unpack = answer.get, self._unpack
        lookups = [
            None if (data := held(name)) is None else unpack(key, data)
            for key, name in zip(keys, names, strict=True)
        ]
        missed = lookups.count(None)
        self._misses += missed
        self._hits += len(keys) - missed
        if len(answer) > len(keys) - missed:
            self._count_refused([held(name) for name, found in zip(names, lookups, strict=True) if not found])
        return lookups

    def _count_refused(self, missed: Sequence[bytes | None]) -> None:
        held = [data for data in missed if data is not None]
        if self.is_sealed:
            self._unsealed += len(held)
            self._unsealed_at_us = self._clock.now_us()
        else:
            self._count_damaged(held)

    def _count_damaged(self, held: Sequence[bytes]) -> None:
        damaged = sum(map(is_damaged, held))
        if damaged and not self._damaged:
            logger.warning("memcached %s holds a damaged copy, which is a miss; more are counted", self.name)
        self._damaged += damaged

    def has_unsealed(self) -> bool:
        """True if a copy was refused for its seal in the last `UNSEALED_SECONDS`."""
        return self._unsealed > 0 and self._clock.now_us() - self._unsealed_at_us < UNSEALED_SECONDS * SECONDS

    async def look(self, key: Key) -> Lookup:
        """Returns the copy for a person who asks: nothing changes and nothing is counted."""
        seconds = self._timeout_seconds + self._client.round_trip.way_of(2)  # it connects, too
        return await look(
            self.name, self.address, self._access, wire_name(key.id), key, self._unpack, seconds
        )

    def way_seconds(self) -> float:
        """The time that a time limit of an exchange has for the way; 0 before the first exchange."""
        return self._client.round_trip.way_seconds

    def bytes_moved(self) -> int:
        """The bytes that were sent to the server or came from it since the start."""
        return self._client.moved_bytes

    def bytes_sent(self) -> int:
        return self._client.sent_bytes

    def bytes_received(self) -> int:
        return self._client.received_bytes

    async def set_many(self, items: Sequence[tuple[Key, Entry]]) -> Sequence[TierError]:
        now_us = self._clock.now_us()
        pack, longest_us = self._pack, self._longest_us
        commands = [
            command for key, entry in items if (command := set_command(key, entry, now_us, pack, longest_us))
        ]
        self._dropped += len(items) - len(commands)
        return await self._write(commands)

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[TierError]:
        return await self._write([b"delete %b\r\n" % wire_name(key.id) for key in keys])

    async def _write(self, commands: Sequence[bytes]) -> Sequence[TierError]:
        if not commands:
            return ()
        self._count_batch(len(commands))
        answer = await self._thread.run(lambda client: client.exchange(commands))
        failures = [answer] * len(commands) if isinstance(answer, TierError) else self._refusals(answer)
        self._failed_writes += len(failures)
        return failures

    def _refusals(self, replies: Sequence[bytes]) -> list[TierError]:
        return [
            TierError(self.name, reply.decode("ascii", "replace")) for reply in replies if is_refusal(reply)
        ]

    async def fullness(self) -> Fullness:
        """Asks the server how full it is. Raises `TierError`."""
        return fullness_of(self.name, await self.report())

    async def report(self) -> Mapping[bytes, object]:
        """Returns the server's statistics and settings by name. Raises `TierError`.

        The names of settings begin with `settings:`. There are none if the server does not tell them.
        """
        answer = await self._thread.run(lambda client: client.report())
        if isinstance(answer, TierError):
            raise answer
        return answer

    async def start(self) -> None:
        await self._thread.start()

    async def stop(self) -> None:
        await self._thread.stop()

    def _count_batch(self, keys: int) -> None:
        self._batches += 1
        self._batched_keys += keys

    def statistics(self) -> TierStatistics:
        way = self._client.round_trip
        return TierStatistics(
            hits=self._hits,
            misses=self._misses,
            errors=self._errors,
            batches=self._batches,
            batched_keys=self._batched_keys,
            dropped=self._dropped,
            failed_writes=self._failed_writes,
            damaged=self._damaged,
            unsealed=self._unsealed,
            unreadable=self._thread.unreadable,
            round_trip_seconds=way.seconds,
            jitter_seconds=way.jitter_seconds,
            timeout_seconds=self._timeout_seconds + way.way_seconds,
        )

    def __repr__(self) -> str:
        return f"<MemcachedTier {self.name} {self.address}>"


def fullness_of(where: str, stats: Mapping[bytes, Any]) -> Fullness:
    """Returns how full a server is, from its statistics. Raises `TierError` if they lack it."""
    found = []
    for name in ("curr_items", "bytes", "limit_maxbytes", "evictions"):
        number = stats.get(name.encode())
        if not isinstance(number, int):
            raise TierError(where, f"its stats lack {name}")
        found.append(number)
    return Fullness(*found)


def wire_name(key_id: bytes) -> bytes:
    """Returns the name that memcached knows a key by.

    That is the key's id where the id is a legal name, else `#` and a 128-bit hash of the id. No id
    begins with `#`, because namespaces do not. Two ids with the same hash share a name, and the id in
    the envelope tells them apart.
    """
    # `translate` deletes the legal bytes, so the rest is illegal. It takes a third of the time of a
    # regular expression.
    if len(key_id) <= NAME_BYTES and not key_id.translate(None, _LEGAL_NAME):
        return key_id
    return b"#" + xxh3_128_hexdigest(key_id).encode()


def wire_names(key_ids: list[bytes]) -> list[bytes]:
    """Returns the `wire_name` of each; in one look at all of them if each id is a legal name."""
    if max(map(len, key_ids)) <= NAME_BYTES and not b"".join(key_ids).translate(None, _LEGAL_NAME):
        return key_ids
    return list(map(wire_name, key_ids))


def set_command(
    key: Key,
    entry: Entry,
    now_us: int,
    pack: Callable[[Key, Entry], bytes] = pack,
    longest_us: int | None = None,
) -> bytes | None:
    """Returns the command that stores the entry; None if it is past its use or too large.

    With `longest_us`, memcached drops the entry after that time at the latest.
    """
    kept_until = entry.kept_until if longest_us is None else min(entry.kept_until, now_us + longest_us)
    expiry = expiry_of(kept_until, now_us)
    if expiry is None:
        return None
    name = wire_name(key.id)
    data = pack(key, entry)
    if len(name) + len(data) > LARGEST_ITEM:
        return None
    return b"set %b 0 %d %d\r\n%b\r\n" % (name, expiry, len(data), data)


def expiry_of(kept_until: int, now_us: int) -> int | None:
    """Returns memcached's expiry: seconds from now up to 30 days, a date beyond that.

    None if the time is over already. The expiry is rounded up to a whole second, because readers go by
    the entry's own times; it is never 0, which would mean "for ever".
    """
    if kept_until <= now_us:
        return None
    seconds = -((now_us - kept_until) // SECONDS)
    return seconds if seconds < _RELATIVE_AT_MOST else -(-kept_until // SECONDS)
