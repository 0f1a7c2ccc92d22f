"""A cell that answers anything: unreadable, counted, and the failure of one call.

A real server is behind it, which tells the truth whenever the test does not lie.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc.config.service import L3
from cachesvc.model.change import Target
from cachesvc.model.clock import SECONDS, SystemClock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError, TierTimeoutError, UnreadableAnswerError
from cachesvc.model.units import Duration
from cachesvc.tiers.breaker import Breaker
from cachesvc.tiers.l3.contract import FenceReply, Fill, FillReply, Put, PutReply, Read, Reply, Use
from cachesvc.tiers.l3.record import to_record
from cachesvc.tiers.l3.redis_cell import RedisCell
from cachesvc.tiers.redis_replies import MOST_BYTES
from tests.doubles.hostile_server import HostileServer, Relay, endless, hostile, resp, trickle
from tests.doubles.servers import redis_server

CLOCK = SystemClock()
SETTINGS = L3(connect_timeout=Duration.parse("5s"), timeout=Duration.parse("5s"))
SHORT = L3(connect_timeout=Duration.parse("5s"), timeout=Duration.parse("400ms"))
"""For lies that have no end."""
PATIENCE_SECONDS = 60
"""The time of calls that have to end at all, on a machine that runs ten other programs."""
SKEW_US = 20_000
KEYS = [Key.of("docs", name) for name in "abc"]
NONCE = "0badcafe"


Ask: TypeAlias = Callable[[RedisCell], Awaitable[list[Any]]]


def entry() -> Entry:
    now_us = CLOCK.now_us()
    return Entry(b"value", now_us, now_us + 600 * SECONDS)


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with redis_server() as real, hostile(Relay(str(real.where)).answer) as running:
        yield running


@asynccontextmanager
async def cell_on(server: HostileServer, settings: L3 = SETTINGS) -> AsyncIterator[RedisCell]:
    """A cell that is attached, knows its scripts, and tells the truth again at the end."""
    url = f"redis://127.0.0.1:{server.port}/0"
    cell = RedisCell(
        "c1",
        url,
        settings,
        SKEW_US,
        CLOCK,
        nonce=lambda: NONCE,
        breaker=Breaker(may_open=lambda: False),
    )
    try:
        while isinstance((await cell.put_many([Put(KEYS[0], entry())]))[0], TierError):  # noqa: ASYNC110  another process
            await asyncio.sleep(0.01)  # a new issuer waits, by the server's clock
        for use in USES:
            await use(cell)
        assert cell.statistics().unreadable == 0
        yield cell
        server.lies.clear()
        server.always = None
        stored = await in_time(lambda: cell.put_many([Put(KEYS[0], entry())]))
        assert isinstance(stored, PutReply), stored
        read = await in_time(lambda: cell.read_many([Read(KEYS[0])]))
        assert isinstance(read, Reply), read
        assert read.entry == stored.entry
    finally:
        server.lies.clear()
        server.always = None
        await asyncio.wait_for(cell.stop(), PATIENCE_SECONDS)


async def in_time(ask: Callable[[], Awaitable[Any]]) -> Any:
    """The answer to the only item of a call, which is made again while a busy machine is too late."""
    while isinstance(answer := (await ask())[0], TierTimeoutError):
        pass
    return answer


async def read(cell: RedisCell) -> list[Any]:
    found = await cell.read_many([Read(key, lease=True) for key in KEYS])
    for one in found:
        assert isinstance(one, TierError) or isinstance(one.entry, Entry | None)
        if isinstance(one, Reply) and one.lease is not None:
            assert one.lease.startswith(NONCE)
            assert one.lease.isascii()
            assert one.lease.isprintable()
    return list(found)


async def fill(cell: RedisCell) -> list[Any]:
    found = await cell.fill_many([Fill(key, entry(), f"{NONCE}-5:17") for key in KEYS])
    assert all(isinstance(one, TierError | FillReply) for one in found)
    return list(found)


async def put(cell: RedisCell) -> list[Any]:
    found = await cell.put_many([Put(key, entry()) for key in KEYS])
    for one in found:
        assert isinstance(one, TierError) or (one.at >= 0 and one.lease[: len(NONCE)] in ("", NONCE))
    return list(found)


async def fence(cell: RedisCell) -> list[Any]:
    found = await cell.fence_many([Target.tag("docs", text) for text in "stu"], soft=False)
    assert all(isinstance(one, TierError) or (type(one) is FenceReply and one.at >= 0) for one in found)
    return list(found)


async def renew(cell: RedisCell) -> list[Any]:
    found = await cell.renew_many([(key, f"{NONCE}-5:17", 1000) for key in KEYS])
    assert all(isinstance(one, TierError | bool) for one in found)
    return list(found)


async def raised(call: Awaitable[Any]) -> list[Any]:
    try:
        return [await call]
    except TierError as error:
        return [error]


async def inspect(cell: RedisCell) -> list[Any]:
    return await raised(cell.inspect(KEYS[0], ["t"]))


async def claim(cell: RedisCell) -> list[Any]:
    return await raised(cell.claim([Use("eu", "eu-a feed", "q")], 1000))


async def report(cell: RedisCell) -> list[Any]:
    return await raised(cell.report())


USES: tuple[Ask, ...] = (
    *(read, fill, put, fence, renew),
    *(inspect, claim, report),
)

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 8),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.binary(max_size=60),
    st.sampled_from(
        [b"", b"\xff\xfe", b"a:1\r\nSet-Cookie: x", b"0badcafe-5:17", to_record(KEYS[0], entry())]
    ),
    st.sampled_from(["ERR", "NOSCRIPT", "READONLY no", "LOADING", "ERR \x1b[2J"]),
)
SHAPES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=6), max_leaves=12)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(SHAPES.map(resp) | st.binary(min_size=1, max_size=60), min_size=1, max_size=3),
    st.sampled_from(USES),
)
def test_any_reply_is_an_answer_or_a_failure_of_its_call(
    server: HostileServer, replies: list[bytes], use: Ask
) -> None:
    async def lying() -> None:
        async with cell_on(server, SHORT) as cell:
            server.lies = [[reply + b"\r\n!"] for reply in replies]  # and what nobody asked for
            await asyncio.wait_for(use(cell), PATIENCE_SECONDS)

    asyncio.run(lying())


NOW = CLOCK.now_us()
GOOD: dict[Ask, list[Any]] = {
    read: [NOW, NOW, 0, 0, 0],
    fill: [0, 0, 0],
    put: [NOW, NOW, NOW],
    fence: [1, 1, 1],
    renew: [1, 1, 1],
}


def instead(good: list[Any], place: int, bad: Any) -> list[Any]:
    return [*good[:place], bad, *good[place + 1 :]]


@pytest.mark.parametrize("use", GOOD, ids=lambda use: use.__name__)
@pytest.mark.parametrize(
    "bad",
    [
        None,
        True,
        -7,
        1 << 60,
        b"bytes",
        1.5,
        [],
        [1],
        [b"a", b"b"],
        [[]],
        [-1, b"", b"t:1"],
        [0, b"", b"\r\nx: y:1"],
    ],
    ids=repr,
)
async def test_one_part_of_another_shape_is_unreadable_and_counted(
    server: HostileServer, use: Ask, bad: Any
) -> None:
    """It was a 500 to every caller of the batch, or a line of its own in a caller's header."""
    if use is read and bad == b"bytes":
        return  # a record that cannot be read is a miss, as one of a later release
    async with cell_on(server) as cell:
        server.lies = [[resp(instead(GOOD[use], 2, bad))]]
        found = await use(cell)
        assert all(isinstance(one, UnreadableAnswerError) for one in found)
        assert cell.statistics().unreadable == 1


@pytest.mark.parametrize(
    ("use", "said"),
    [
        *((use, good[:-1]) for use, good in GOOD.items()),
        *((use, [*good, 0]) for use, good in GOOD.items()),
        *((use, b"OK") for use in GOOD),
        *((use, None) for use in GOOD),
        *((use, 7) for use in GOOD),
        *((use, []) for use in GOOD),
        (read, [NOW, NOW, -1, -1, -1]),
        (read, [NOW, NOW, 0, -1, -1]),
        (read, [-1, NOW, 0, 0, 0]),
        (read, [NOW, b"now", 0, 0, 0]),
        (read, [NOW, NOW, 0, 0, [0, b"", b"another-5:17"]]),
        (read, [NOW, NOW, 0, 0, [0, b"", b"0badcafe-5:17\r\nSet-Cookie: x"]]),
        (put, [NOW, NOW, [NOW, b"0badcafe-5:17", 5]]),
        (inspect, [b""] * 6),
        (inspect, [b"", b"\xff:\r\n5", 5, 0, NOW, 0, 0, 0, 0, 0, 0, 0]),
        (inspect, [b"", b"", -2, 0, NOW, 0, 0, 0, 0]),
        (claim, [b"\xff", [[]]]),
        (claim, [b"run", []]),
        (claim, [b"run", [[b"q"], [b"r"]]]),
        (claim, [b"x" * 70_000, [[]]]),
    ],
)
async def test_an_answer_of_another_shape_is_unreadable_and_counted(
    server: HostileServer, use: Ask, said: Any
) -> None:
    async with cell_on(server) as cell:
        server.lies = [
            [(b"+OK\r\n" if use is inspect else b"") + resp(said) + (b"+OK\r\n" if use is inspect else b"")]
        ]
        found = await use(cell)
        assert all(isinstance(one, UnreadableAnswerError) for one in found), found
        assert cell.statistics().unreadable == 1


HUGE = [
    b"*1000000000\r\n",
    b"*4294967295\r\n",
    b"*3\r\n:1\r\n:2\r\n~1000000000\r\n",
    b"*2\r\n$3\r\nabc\r\n*9000000\r\n",
    b"$-5\r\n",
    b"*-5\r\n",
    b"$4294967296\r\n",
    b">2\r\n",
    b"*1\r\n" * 12,
]


@pytest.mark.parametrize("said", HUGE)
async def test_a_length_that_nothing_has_costs_nothing(server: HostileServer, said: bytes) -> None:
    """A list of 10⁹ parts held up the event loop for nine seconds, when it was taken down."""
    async with cell_on(server, SHORT) as cell:
        server.lies = [[said]]
        began = time.process_time()
        found = await read(cell)
        assert all(isinstance(one, UnreadableAnswerError | TierTimeoutError) for one in found)
        assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "piece",
    [b"9", b":1\r\n", b"*0\r\n", b"*1\r\n", b"*2\r\n:1\r\n", b"$1\r\nx\r\n"],
    ids=repr,
)
async def test_an_endless_reply_is_bounded_in_bytes(server: HostileServer, piece: bytes) -> None:
    async with cell_on(server, SHORT) as cell:
        server.always = partial(_endless_list, piece)
        before = server.sent_bytes
        found = await asyncio.wait_for(read(cell), PATIENCE_SECONDS)
        assert server.sent_bytes - before < MOST_BYTES + (8 << 20)  # and what is in the kernel
        assert all(isinstance(one, UnreadableAnswerError | TierTimeoutError) for one in found)


def _endless_list(piece: bytes) -> Iterator[bytes]:
    yield b"*900000\r\n"
    yield from endless(piece)


async def test_a_reply_that_trickles_ends_with_its_time(server: HostileServer) -> None:
    async with cell_on(server, SHORT) as cell:
        server.always = partial(trickle, b"$5000\r\n" + b"x" * 5000, server.stopping)
        found = await asyncio.wait_for(read(cell), PATIENCE_SECONDS)
        assert all(isinstance(one, TierTimeoutError) for one in found)


async def test_a_value_may_contain_anything(server: HostileServer) -> None:
    """Headers of long lists inside of a value, whole and cut by the pieces of a reply."""
    async with cell_on(server) as cell:
        for size in (0, 65_000, 65_530, 200_000):
            value = b"x" * size + b"".join(HUGE) * 50
            now_us = CLOCK.now_us()
            put_in = Entry(value, now_us, now_us + 600 * SECONDS)
            (stored,) = await cell.put_many([Put(KEYS[1], put_in)])
            assert isinstance(stored, PutReply)
            for replies in ([Read(KEYS[1])], [Read(key) for key in KEYS]):
                found = await cell.read_many(replies)
                assert stored.entry in [one.entry for one in found if isinstance(one, Reply)]
        assert cell.statistics().unreadable == 0
