"""A memcached that answers anything: bounded, counted, and never the end of its thread."""

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc.config.service import L2
from cachesvc.model.clock import SECONDS, SystemClock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError, TierTimeoutError, UnreadableAnswerError
from cachesvc.model.units import Duration
from cachesvc.tiers.envelope import pack
from cachesvc.tiers.l2.contract import Lookup
from cachesvc.tiers.l2.memcached import MemcachedTier, wire_name
from cachesvc.tiers.l2.memcached_client import LARGEST_VALUE
from tests.doubles.hostile_server import HostileServer, endless, hostile, trickle

CLOCK = SystemClock()
BRISK = L2(connect_timeout=Duration.parse("300ms"), timeout=Duration.parse("300ms"))
KEYS = [Key.of("pages", f"key-{number}") for number in range(3)]
ENTRY = Entry(b"value", CLOCK.now_us(), CLOCK.now_us() + 600 * SECONDS)
HELD = {wire_name(key.id): pack(key, ENTRY) for key in KEYS}
NAME = wire_name(KEYS[0].id)

Use = Callable[[MemcachedTier], Awaitable[Sequence[Lookup]]]


def value(name: bytes, data: bytes) -> bytes:
    return b"VALUE %b 0 %d\r\n%b\r\n" % (name, len(data), data)


def answer(requests: BinaryIO) -> bytes | None:
    """Reads one request and answers it as memcached does."""
    words = requests.readline().split()
    if not words:
        return None
    if words[0] == b"get":
        return b"".join(value(name, HELD[name]) for name in words[1:] if name in HELD) + b"END\r\n"
    if words[0] == b"set":
        requests.read(int(words[4]) + 2)
        return b"STORED\r\n"
    if words[0] == b"mg":
        return b"EN\r\n"
    if words[0] == b"stats":
        return b"STAT curr_items 1\r\nSTAT bytes 2\r\nSTAT limit_maxbytes 3\r\nSTAT evictions 4\r\nEND\r\n"
    return b"DELETED\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with hostile(answer) as running:
        yield running


async def read(tier: MemcachedTier) -> Sequence[Lookup]:
    return await tier.get_many(KEYS)


async def write(tier: MemcachedTier) -> Sequence[TierError]:
    return await tier.set_many([(KEYS[0], ENTRY)])


async def delete(tier: MemcachedTier) -> Sequence[TierError]:
    return await tier.delete_many(KEYS[:1])


async def look(tier: MemcachedTier) -> Sequence[Lookup]:
    return [await tier.look(KEYS[0])]


async def report(tier: MemcachedTier) -> Sequence[TierError]:
    try:
        await tier.fullness()
    except TierError as error:
        return [error]
    return []


USES = (read, write, delete, look, report)


async def said(server: HostileServer, *uses: Use) -> list[Sequence[Lookup]]:
    """The results of the uses; the thread lives then, reads the truth, and can be ended."""
    tier = MemcachedTier("mc-0", f"127.0.0.1:{server.port}", BRISK, CLOCK)
    await tier.start()
    try:
        found = [await asyncio.wait_for(use(tier), 5) for use in uses]
        server.lies.clear()
        server.always = None
        assert await asyncio.wait_for(tier.get_many(KEYS), 5) == [ENTRY] * len(KEYS)
        assert (tier.loop.failures, tier.loop.trouble) == (0, "")
        unread = sum(isinstance(got[0], UnreadableAnswerError) for got in found if got)
        if look not in uses:
            assert tier.statistics().unreadable == unread
    finally:
        await asyncio.wait_for(tier.stop(), 2)
    return found


MADE_UP = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda verb, name, flags, size, data, end: (
            b"%b %b %b %b\r\n%b%b" % (verb, name, flags, size, data, end)
        ),
        st.sampled_from([b"VALUE", b"VA", b"value", b"\x00"]),
        st.sampled_from([*HELD, b"another", b"", b"x" * 300]),
        st.sampled_from([b"0", b"-1", b"x"]),
        st.one_of(
            st.integers(-(1 << 70), 1 << 70).map(lambda number: b"%d" % number),
            st.integers(-60, 9).map(lambda number: b"%d" % number),
            st.sampled_from([b"+5", b"1_0", b" 5", b"0x5", b"\xd9\xa1", b"9" * 5000]),
        ),
        st.sampled_from([b"", b"value\r\n", value(NAME, HELD[NAME])]),
        st.sampled_from([b"", b"END\r\n", b"END\r\nEND\r\n", b"ERROR\r\n"]),
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(MADE_UP, min_size=1, max_size=3), st.sampled_from(USES))
def test_any_answer_is_an_answer_or_a_failure_of_its_call(
    server: HostileServer, answers: list[bytes], use: Use
) -> None:
    async def closing() -> None:
        # The end of the connection after the answer: a client that waits for more is told at once.
        server.lies = [[b"".join(answers)]]
        ended = asyncio.get_running_loop().call_later(0.05, server.close_all)
        for lookup in (await said(server, use))[0]:
            assert lookup is None or isinstance(lookup, TierError) or lookup == ENTRY
        ended.cancel()

    asyncio.run(closing())


@pytest.mark.parametrize(
    "lie",
    [
        b"VALUE %b 0 -%d\r\n" % (NAME, len(b"VALUE %b 0 -XX\r\n" % NAME) + 2),
        b"VALUE %b 0 -9\r\n" % NAME,
        b"VALUE %b 0 99999999999\r\n" % NAME,
        b"VALUE %b 0 %d\r\n" % (NAME, LARGEST_VALUE + 1),
        b"VALUE another 0 1\r\nx\r\nEND\r\n",
        value(NAME, HELD[NAME]) * 2 + b"END\r\n",
        b"".join(value(name, b"x") for name in HELD) + value(b"more", b"x") + b"END\r\n",
        b"VALUE %b 0 +5\r\nvalue\r\nEND\r\n" % NAME,
        b"x" * 5000,
        b"END\r\nEND\r\n",
    ],
)
async def test_a_lie_about_a_value_is_unreadable_and_counted(server: HostileServer, lie: bytes) -> None:
    """A negative length as long as its own line was read for ever, by a thread that nothing could end."""
    server.lies = [[lie]]
    ((first, *_),) = await said(server, read)
    assert isinstance(first, UnreadableAnswerError)


@pytest.mark.parametrize(
    ("use", "lie"),
    [
        (write, b"DONE\r\n"),
        (write, b"STORED\r\nSTORED\r\n"),
        (write, b"x" * 5000),
        (delete, b"\r\n"),
        (look, b"VA -5 \r\nx"),
        (look, b"VA 4294967296\r\nx"),
        (look, b"VA\r\n"),
        (report, b"STAT curr_items -1\r\nx\r\nEND\r\n"),
        (report, b"x" * (1 << 19)),
    ],
)
async def test_other_lies_are_unreadable_too(server: HostileServer, use: Use, lie: bytes) -> None:
    server.lies = [[lie]]
    ((first, *_),) = await said(server, use)
    assert isinstance(first, UnreadableAnswerError)


async def test_a_report_without_numbers_is_refused(server: HostileServer) -> None:
    server.lies = [[b"STAT curr_items many\r\nSTAT bytes %b\r\nEND\r\n" % (b"9" * 5000)]]
    (failures,) = await said(server, report)
    assert str(failures[0]) == "mc-0: its stats lack curr_items"


@pytest.mark.parametrize("use", [read, write, delete, look, report])
async def test_an_answer_that_trickles_gets_no_more_time(server: HostileServer, use: Use) -> None:
    """Each byte began the socket's time limit anew: a kilobyte could take a thread for minutes."""
    server.always = partial(trickle, b"STAT x " + b"9" * 5000, server.stopping)
    (found,) = await said(server, use)
    assert isinstance(found[0], TierTimeoutError)


@pytest.mark.parametrize("use", [read, write, delete, report])
async def test_an_endless_line_is_bounded_in_bytes(server: HostileServer, use: Use) -> None:
    before = server.sent_bytes
    server.always = partial(endless, b"9")
    tracemalloc.start()
    try:
        (found,) = await said(server, use)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert isinstance(found[0], UnreadableAnswerError)
    assert server.sent_bytes - before < 32 << 20
