"""Relays: frames, the log of a relay, and a follower between a relay and the queue."""

import asyncio

import pytest

from cachesvc.changes.contract import FenceBatch, Item
from cachesvc.changes.relay.follower import (
    CONNECT_SECONDS,
    STEADY_SECONDS,
    RelayedFollower,
    RelayWay,
    Wire,
    relay_breaker,
)
from cachesvc.changes.relay.frames import LARGEST_FRAME, FrameError, FrameReader, frame_of
from cachesvc.changes.relay.relay import ITEM_OVERHEAD, Relay
from cachesvc.model.errors import TierError
from cachesvc.model.fence import Fence
from tests.doubles.clocks import LoopClock
from tests.doubles.memory_queue import MemoryFenceStream, MemoryQueue
from tests.doubles.queues import ChaosQueue
from tests.doubles.relays import RelayDoor

pytestmark = pytest.mark.looptime

MARK = "@5f3a9c01"


def items(*numbers: int) -> list[Item]:
    return [(f"{number}-0".encode(), {b"p": b"%d" % number}) for number in numbers]


def at(number: int) -> str:
    return f"{number}-0{MARK}"


def read_of(*numbers: int) -> FenceBatch:
    return FenceBatch((), None, position=at(numbers[-1]), items=items(*numbers))


def told(data: bytes) -> list[tuple[str, list[int]]]:
    """The frames in the bytes: what each follows, and the numbers of its items."""
    frames = FrameReader("r").feed(data)
    return [(frame.after, [int(id_.partition(b"-")[0]) for id_, _ in frame.items]) for frame in frames]


async def next_of(relay: Relay, position: str) -> list[tuple[str, list[int]]]:
    """The next frame after a position; empty if the follower is told to leave."""
    async with asyncio.timeout(1):
        return told(await relay.follow(position).next())


def test_frames_are_read_however_the_network_cuts_them() -> None:
    data = frame_of(at(1), items(2, 3)) + frame_of(at(3), items(4))
    for cut in range(len(data) + 1):
        reader = FrameReader("r")
        frames = reader.feed(data[:cut]) + reader.feed(data[cut:])
        assert [(frame.after, [*frame.items]) for frame in frames] == [
            (at(1), items(2, 3)),
            (at(3), items(4)),
        ]


@pytest.mark.parametrize(
    "data",
    [
        (LARGEST_FRAME + 1).to_bytes(4, "big"),
        (3).to_bytes(4, "big") + b"\xc1\xc1\xc1",
        frame_of("5-0", items(6)),
        frame_of(at(1), []),
        frame_of(at(1), [(b"x", {})]),
        frame_of(at(2), items(2)),
        frame_of(at(2), items(1)),
        frame_of(at(1), items(3, 2)),
        frame_of(at(1), items(2, 2)),
        frame_of(at(1), items(2))[:4] + b"HTTP/1.1 200 OK" * 10,
    ],
)
def test_what_is_no_frame_is_an_error(data: bytes) -> None:
    with pytest.raises(FrameError):
        FrameReader("r").feed(data)


async def test_a_relay_tells_what_follows_a_position_that_it_has() -> None:
    relay = Relay("eu", 1 << 20)
    relay.begin(at(1))
    relay.take(at(1), read_of(2, 3, 4))
    relay.take(at(4), read_of(5))
    assert await next_of(relay, at(1)) == [(at(1), [2, 3, 4])]
    assert await next_of(relay, at(3)) == [(at(3), [4])]
    assert await next_of(relay, at(4)) == [(at(4), [5])]


@pytest.mark.parametrize("position", ["0-0" + MARK, "2-5" + MARK, "3-0@00000000", "3-0", "nonsense"])
async def test_a_follower_whose_position_the_relay_never_had_leaves(position: str) -> None:
    relay = Relay("eu", 1 << 20)
    relay.begin(at(1))
    relay.take(at(1), read_of(2, 3, 4))
    assert await next_of(relay, position) == []
    assert (relay.lost, relay.followers) == (1, 0)


async def test_a_follower_that_is_ahead_waits_until_the_relay_is_there() -> None:
    relay = Relay("eu", 1 << 20)
    relay.begin(at(1))
    ahead = relay.follow(at(3))
    waiting = asyncio.create_task(ahead.next())
    await asyncio.sleep(0.1)
    relay.take(at(1), read_of(2, 3))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    relay.take(at(3), read_of(4))
    assert told(await waiting) == [(at(3), [4])]


async def test_the_log_is_bounded_and_who_is_too_slow_leaves() -> None:
    relay = Relay("eu", 3 * (ITEM_OVERHEAD + 10))
    relay.begin(at(1))
    slow = relay.follow(at(1))
    for number in range(2, 10):
        relay.take(at(number - 1), read_of(number))
    assert await slow.next() == b""
    assert await next_of(relay, at(6)) == [(at(6), [7])]
    assert await next_of(relay, at(5)) == []


async def test_a_gap_begins_another_log() -> None:
    relay = Relay("eu", 1 << 20)
    relay.begin(at(1))
    relay.take(at(1), read_of(2))
    follower = relay.follow(at(2))
    relay.take(at(2), FenceBatch((), None, gap=True, position=at(7)))
    relay.take(at(7), read_of(8))
    assert await follower.next() == b""
    assert await next_of(relay, at(7)) == [(at(7), [8])]


async def test_a_relay_that_stops_ends_its_followers() -> None:
    relay = Relay("eu", 1 << 20)
    relay.begin(at(1))
    waiting = asyncio.create_task(relay.follow(at(1)).next())
    await asyncio.sleep(0)
    relay.end()
    assert await waiting == b""
    assert (relay.lost, relay.followers) == (0, 0)


class Side:
    """A queue, a relay of it, and a follower of both."""

    def __init__(self) -> None:
        self.queue = MemoryQueue(LoopClock())
        self.relay = Relay("here", 1 << 20)
        self.upstream = self._follower([], self.relay)
        self.door = RelayDoor(lambda: self.relay)
        self.direct = ChaosQueue(self._stream())
        self.follower = RelayedFollower(
            self.direct, [self.door.way], None, LoopClock(), skew_us=100_000, heartbeat_seconds=0.5
        )

    def _stream(self) -> MemoryFenceStream:
        return MemoryFenceStream(self.queue, "here", skew_us=100_000, retention_us=1 << 50)

    def _follower(self, ways: list[RelayWay], relay: Relay) -> RelayedFollower:
        return RelayedFollower(
            self._stream(), ways, relay, LoopClock(), skew_us=100_000, heartbeat_seconds=0.5
        )

    async def publish(self, *numbers: int) -> None:
        for number in numbers:
            await self._stream().publish([Fence(number, number)])

    async def caught_up(self) -> "Side":
        """Follower and relay have read all, and the follower follows the relay."""
        await self.publish(1)
        await self.upstream.open()
        await self.follower.open()
        await self.relay_reads()
        assert await self.reads() == [1]
        assert self.follower.is_relayed
        return self

    async def relay_reads(self) -> None:
        while (await self.upstream.read(wait_seconds=0)).items:
            pass

    async def reads(self) -> list[int]:
        batch = await self.follower.read(wait_seconds=0.1)
        assert not batch.gap
        return [fence.at for fence in batch.fences]


async def test_what_the_relay_has_is_not_asked_of_the_queue() -> None:
    side = await Side().caught_up()
    side.direct.calls.clear()
    await side.publish(2, 3)
    assert await side.reads() == []
    await side.relay_reads()
    assert await side.reads() == [2, 3]
    assert side.direct.calls == ["deliver"]


async def test_a_relay_that_dies_is_gone_around_at_once_and_comes_back() -> None:
    side = await Side().caught_up()
    side.door.is_away = True
    side.relay.end()
    await side.publish(2)
    assert await side.reads() == [2]
    assert not side.follower.is_relayed
    side.door.is_away = False
    await asyncio.sleep(1)
    await side.publish(3)
    await side.relay_reads()
    assert await side.reads() == [3]
    assert side.follower.is_relayed


async def test_a_relay_that_goes_away_again_and_again_is_left_for_longer() -> None:
    side = await Side().caught_up()
    side.door.is_away = True
    side.relay.end()
    began = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() - began < 120:
        await side.reads()
    assert side.follower.left == 1 + 7, "after 1, 2, 4, 8, 16, 30 and 30 seconds"


async def test_a_relay_that_was_followed_for_long_is_tried_again_soon() -> None:
    side = await Side().caught_up()
    now = asyncio.get_running_loop().time
    for followed_seconds, pause in ((1, 1), (1, 2), (1, 4), (STEADY_SECONDS + 1, 1)):
        began = now()
        while now() - began < followed_seconds:
            await side.reads()
        assert side.follower.is_relayed
        side.relay.end()
        await side.reads()
        side.relay.begin(side.upstream.position)
        began = now()
        while not side.follower.is_relayed:
            await side.reads()
        assert now() - began == pytest.approx(pause, abs=0.2)


async def test_a_relay_that_is_away_is_tried_at_random_times_and_counted_as_left_alone() -> None:
    side, ends = await Side().caught_up(), []
    side.door.is_away = True
    for _ in range(2):
        breaker = side.door.way.breaker = relay_breaker()
        side.follower.close()
        began = asyncio.get_running_loop().time()
        while breaker.times_opened < 7:
            await side.reads()
        ends.append(asyncio.get_running_loop().time() - began)
        assert breaker.refused > 100
        assert breaker.is_silent
    assert all(61 <= end <= 1.5 * 61 + 2 for end in ends)
    assert abs(ends[0] - ends[1]) > 0.1


async def test_a_silent_queue_is_no_reason_to_leave_the_relay() -> None:
    side = await Side().caught_up()
    side.direct.calls.clear()
    for _ in range(100):
        assert await side.reads() == []
    assert side.follower.is_relayed
    assert side.direct.calls == ["read"] * 12, "a look in about 0.8 s"


async def test_a_relay_is_kept_while_the_queue_is_out_of_reach() -> None:
    side = await Side().caught_up()
    side.direct.down = True
    failures = 0
    for _ in range(20):
        try:
            await side.reads()
        except TierError:
            failures += 1
    assert failures == 2
    side.direct.down = False
    await side.publish(2)
    await side.relay_reads()
    assert await side.reads() == [2]


async def test_a_relay_that_is_behind_for_long_is_left() -> None:
    side = await Side().caught_up()
    for number in range(2, 40):
        await side.publish(number)
        await asyncio.sleep(0.2)
    behind, side.relay = side.relay, Relay("here", 1 << 20)  # nobody follows the other one
    assert behind.followers == 1
    await side.relay_reads()  # all of it at once, and late
    await side.publish(40)
    seen: list[int] = []
    while 40 not in seen:
        seen += await side.reads()
    assert seen == list(range(2, 41))
    assert side.follower.left == 1


async def test_a_frame_that_does_not_fit_is_not_taken() -> None:
    side = await Side().caught_up()

    class Lying(Wire):
        async def read(self) -> bytes:
            return frame_of("1-0@00000000", items(1 << 50))

        def close(self) -> None: ...

    async def dial(_: str) -> Wire:
        return Lying()

    side.follower.close()
    side.door.way.dial = dial
    await side.publish(2)
    assert await side.reads() == [2]
    assert side.follower.left == 1


async def test_a_relay_that_does_not_take_the_connection_costs_little() -> None:
    side = await Side().caught_up()

    async def dial(_: str) -> Wire:
        await asyncio.Event().wait()
        raise AssertionError

    side.follower.close()
    side.door.way.dial = dial
    await side.publish(2)
    began = asyncio.get_running_loop().time()
    assert await side.reads() == [2]
    assert asyncio.get_running_loop().time() - began == pytest.approx(CONNECT_SECONDS)


async def test_a_cancelled_read_loses_nothing() -> None:
    """Whatever point it is cancelled at."""
    side, seen = await Side().caught_up(), []
    for number in range(2, 12):
        reading = asyncio.create_task(side.follower.read(wait_seconds=1))
        await side.publish(number)
        await side.relay_reads()
        for _ in range(number - 2):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        if not reading.cancelled():
            seen += [fence.at for fence in reading.result().fences]
    seen += await side.reads()
    assert seen == list(range(2, 12))
    assert side.follower.left == 0
