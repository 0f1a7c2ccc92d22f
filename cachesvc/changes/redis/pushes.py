"""Items of `fences` that the queue pushes to a follower as they are appended.

    SUBSCRIBE fences:<n>     n: the random part of the stream's epoch
    ← epoch, the id of the item before, id, fields      for each item, from the script that appends it

A push names the item before it. So a follower that has that item, under that epoch, has lost
nothing, and needs no exchange to know that. Any other push says only that there is news, which is
then read from the stream (`read.lua`): the stream is the truth, and a push may be lost, or not be
sent at all (an older release, a user without the right to do so, an item that is too long).

An idle instance spends 40 µs on a push, and spent 300 µs on XREAD and a script.
"""

import asyncio
import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from hiredis import PushNotification
from msgspec import Struct

from cachesvc.changes.redis.server import RedisServer, RefusedError
from cachesvc.tiers.redis_connections import CleanConnection
from cachesvc.tiers.redis_listener import Listener

PACE_SECONDS = 0.01
"""The least time between two looks at what was pushed.

So of many changes several are taken in at once. One that comes after a pause does not wait."""
DISTRUST_SECONDS = 60.0
"""A follower waits in another way for so long, if the queue does not push its items."""
MOST_MISSED = 2
"""News may be found so often that was not pushed, before the follower distrusts pushes.

It may have been on the way."""

_PUSH = re.compile(rb"(\S+) (-|\d{1,20}-\d{1,20}) (\d{1,20}-\d{1,20})((?: \d{1,4}){0,64})\n", re.ASCII)


class Push(Struct, frozen=True, gc=False):
    """An item that was appended to the stream."""

    epoch: bytes
    before: bytes
    """The id of the newest item of the time when this one was appended; `-` if there was none."""
    id: bytes
    fields: Mapping[bytes, bytes] | None
    """None: the item is too long to be pushed."""


class Pushes:
    """One follower's subscription to a region's `fences`."""

    def __init__(self, server: RedisServer) -> None:
        """Makes a subscription that is not connected yet."""
        self._server = server
        self._connection: CleanConnection | None = None
        self._listener: Listener | None = None
        self._channel = b""
        self._missed = 0
        self._distrusted_until = float("-inf")

    def __repr__(self) -> str:
        return f"<Pushes {self._channel.decode() if self._is_on(self._channel) else 'off'}>"

    async def follow(self, channel: bytes) -> bool:
        """Subscribes to a channel; False if that was done before, on a connection that is open.

        After True the stream has to be read: nobody pushes what was appended before. Raises
        `TierError`.
        """
        if self._is_on(channel):
            return False
        await self.stop()
        self._channel, self._missed = channel, 0
        try:
            await self._server.guarded(self._subscribe(channel))
        except RefusedError:  # the user has no right to subscribe
            self._distrust()
        return True

    @property
    def is_trusted(self) -> bool:
        """False while news is to be waited for in another way, as the queue does not push it."""
        return asyncio.get_running_loop().time() >= self._distrusted_until

    def note_missed(self) -> None:
        """Notes that news was found in the stream and was not pushed."""
        self._missed += 1
        if self._missed >= MOST_MISSED:
            self._distrust()

    async def next(self, seconds: float) -> Sequence[Push | None]:
        """Returns what was pushed since the last call; nothing if nothing was within `seconds`.

        None stands for a push that cannot be read. Raises `TierError`.
        """
        self._server.follow_name()
        if self._listener is None:
            return []
        try:
            return _pushes_in(await self._listener.arrived(seconds, pace_seconds=PACE_SECONDS))
        except Exception as error:
            await self.stop()
            raise await self._server.failure_of(error) from error

    async def stop(self) -> None:
        """Ends the subscription."""
        connection, self._connection, self._listener = self._connection, None, None
        if connection is not None:
            await self._server.give_back(connection)

    def _is_on(self, channel: bytes) -> bool:
        return channel == self._channel and self._listener is not None and self._listener.is_open

    def _distrust(self) -> None:
        self._distrusted_until = asyncio.get_running_loop().time() + DISTRUST_SECONDS
        self._missed = 0

    async def _subscribe(self, channel: bytes) -> None:
        self._connection = connection = await self._server.connection()
        sending: Awaitable[None] = connection.send_command("SUBSCRIBE", channel, check_health=False)
        await sending
        await connection.read_response(disable_decoding=True, push_request=True)
        self._listener = Listener(connection)


def _pushes_in(said: list[Any]) -> list[Push | None]:
    """Returns the pushes among what has come; what confirms a subscription is none."""
    return [_push_in(one[2]) for one in said if type(one) is PushNotification and one[0] == b"message"]


def _push_in(payload: bytes) -> Push | None:
    head = _PUSH.match(payload)
    if head is None:
        return None
    epoch, before, id_, sizes = head.groups()
    if not sizes:
        return Push(epoch, before, id_, None)
    parts, at = [], head.end()
    for size in map(int, sizes.split()):
        parts.append(payload[at : at + size])
        at += size
    if at != len(payload) or len(parts) % 2:
        return None
    return Push(epoch, before, id_, dict(zip(parts[::2], parts[1::2], strict=True)))
