"""A listener looks seldom while much comes, and at once at what comes alone."""

import asyncio
import itertools
from typing import Any, cast

import pytest

from cachesvc.tiers.redis_connections import CleanConnection
from cachesvc.tiers.redis_listener import Listener

pytestmark = pytest.mark.looptime

PACE_SECONDS = 0.01


class Parser:
    """Every byte is a reply."""

    def __init__(self) -> None:
        self._replies: list[int] = []

    def feed(self, data: bytes) -> None:
        self._replies += data

    def taken(self) -> list[int]:
        taken, self._replies = self._replies, []
        return taken


class Transport:
    """A socket: what comes while nobody reads is read later."""

    def __init__(self) -> None:
        self.protocol: Any = asyncio.Protocol()
        self.wakes = 0
        """Calls of `data_received`."""
        self._is_reading = True
        self._gathered = b""

    def come(self, data: bytes) -> None:
        self._gathered += data
        self._read()

    def _read(self) -> None:
        if self._is_reading and self._gathered:
            data, self._gathered = self._gathered, b""
            self.wakes += 1
            self.protocol.data_received(data)

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self._read()

    def is_closing(self) -> bool:
        return False


class Connection:
    def __init__(self) -> None:
        self.transport = Transport()
        self.bounded_parser = Parser()

    def hand_over(self) -> tuple[Transport, bytes]:
        return self.transport, b""


async def looks(every_seconds: float, count: int) -> tuple[list[tuple[float, int]], int]:
    """Each look at replies that come evenly (its time, and how many it found), and the wakes."""
    connection, loop = Connection(), asyncio.get_running_loop()
    listener = Listener(cast("CleanConnection", connection))
    began = loop.time()
    for number in range(count):
        loop.call_later((number + 1) * every_seconds, connection.transport.come, b"x")
    found: list[tuple[float, int]] = []
    while sum(many for _, many in found) < count:
        many = len(await listener.arrived(1.0, pace_seconds=PACE_SECONDS))
        found.append((round(loop.time() - began, 4), many))
    return found, connection.transport.wakes


async def test_a_reply_that_comes_alone_does_not_wait() -> None:
    found, wakes = await looks(0.05, 4)
    assert found == [(0.05, 1), (0.1, 1), (0.15, 1), (0.2, 1)]
    assert wakes == 4


async def test_while_much_comes_looks_are_a_pace_apart() -> None:
    found, wakes = await looks(0.001, 200)
    assert len(found) <= 25
    assert wakes <= 25
    apart = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(found[1:])]
    assert min(apart) >= 0.99 * PACE_SECONDS


async def test_a_look_ends_without_a_reply_when_its_time_is_over() -> None:
    connection, loop = Connection(), asyncio.get_running_loop()
    listener = Listener(cast("CleanConnection", connection))
    for seconds in (1.0, 0.3, 2.0):  # one that is shorter than the one before, and one that is longer
        began = loop.time()
        assert await listener.arrived(seconds, pace_seconds=PACE_SECONDS) == []
        assert loop.time() - began == pytest.approx(seconds, abs=0.001)
    loop.call_later(0.4, connection.transport.come, b"x")
    assert len(await listener.arrived(0.5, pace_seconds=PACE_SECONDS)) == 1
    began = loop.time()
    assert await listener.arrived(0.5, pace_seconds=PACE_SECONDS) == []
    assert loop.time() - began == pytest.approx(0.5, abs=0.001)
