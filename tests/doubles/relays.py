"""Relays in this process: connections to them that can be cut, and that stand still."""

import asyncio
from collections.abc import Callable

from cachesvc.changes.relay.follower import RelayWay, Wire, relay_breaker
from cachesvc.changes.relay.relay import Following, Relay


class MemoryWire:
    """A connection to a relay of this process."""

    def __init__(self, following: Following, door: "RelayDoor") -> None:
        self._following = following
        self._door = door

    async def read(self) -> bytes:
        while self._door.is_stopped:
            await self._door.moved.wait()
        return await self._following.next()

    def close(self) -> None:
        self._following.close()


class RelayDoor:
    """The place at which followers connect to a relay of this process."""

    def __init__(self, relay: Callable[[], Relay], name: str = "r") -> None:
        """`relay` is asked at each connection: the process may be another one by then."""
        self._relay = relay
        self.is_stopped = False
        """True while the relay's process stands still: it takes connections, and says nothing."""
        self.is_away = False
        """True while nothing can be connected to."""
        self.moved = asyncio.Event()
        self.way = RelayWay(name, self.dial, relay_breaker(jitter=0))
        """The way to it, of one follower."""

    async def dial(self, position: str) -> Wire:
        if self.is_away:
            raise ConnectionRefusedError("nobody listens")
        return MemoryWire(self._relay().follow(position), self)

    def stop(self) -> None:
        """Stops the relay's process, as SIGSTOP does."""
        self.is_stopped = True

    def go_on(self) -> None:
        """Lets it go on, as SIGCONT does."""
        self.is_stopped = False
        self.moved.set()
        self.moved.clear()
