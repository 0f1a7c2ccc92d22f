"""Records what a region's queue was given, and gives it to the queue again.

It can come twice, in any order, or as if it were an hour old.
"""

import struct
from collections.abc import Mapping
from random import Random
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

STREAMS = ("changes", "fences")
HOUR_US = 3_600_000_000
AN_HOUR_AGO = "2020-01-01T00:00:00Z"
"""The `time` that an aged event claims. The service ignores it, however wrong it is."""

_PAIR = struct.Struct(">QQ")

Fields = Mapping[bytes, bytes]


class Recorder:
    """Follows both streams from now on.

    Items that are added and removed between two looks are missed; enough are not.
    """

    def __init__(self, redis: Redis) -> None:
        self.items: list[tuple[str, Fields]] = []
        """Stream and fields, in the order in which they came."""
        self._redis = redis

    async def follow(self) -> None:
        """Records until it is cancelled."""
        positions: dict[Any, Any] = dict.fromkeys(STREAMS, "$")
        while True:
            news: Any = await self._redis.xread(positions, count=100, block=100)
            for stream, items in news or ():
                for position, fields in items:
                    positions[stream.decode()] = position
                    self.items.append((stream.decode(), fields))

    async def give_again(self, random: Random) -> None:
        """Gives every recorded item again, shuffled: as it was, and as if it were an hour old."""
        again = [*self.items, *((stream, aged(fields)) for stream, fields in self.items)]
        random.shuffle(again)
        for stream, fields in again:
            await self._redis.xadd(stream, cast(dict[Any, Any], fields))


def aged(fields: Fields) -> Fields:
    """The item an hour older: an event claims to be, a fence is."""
    if event := fields.get(b"event"):
        return {**fields, b"event": msgspec.json.encode({**msgspec.json.decode(event), "time": AN_HOUR_AGO})}
    if pairs := fields.get(b"p"):
        return {
            **fields,
            b"p": b"".join(_PAIR.pack(digest, at - HOUR_US) for digest, at in _PAIR.iter_unpack(pairs)),
        }
    return fields
