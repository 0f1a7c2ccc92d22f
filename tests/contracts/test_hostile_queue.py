"""A queue that answers anything, and streams in which anybody has written anything.

What cannot be read is a gap on `fences` and a dead letter on `changes`; no loop ends of it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from cachesvc.changes.contract import Attendance, Done, Parked
from cachesvc.changes.redis import changes as redis_changes
from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.changes.redis.fence_items import LONGEST_AHEAD_US, decode
from cachesvc.changes.redis.fences import LARGEST_ITEM, RedisFenceStream
from cachesvc.model.change import Change, Target
from cachesvc.model.errors import TierError, UnreadableAnswerError
from cachesvc.model.fence import Fence
from cachesvc.model.units import Duration
from cachesvc.tiers.breaker import Breaker
from tests.contracts.queue_benches import RETENTION, SKEW
from tests.contracts.test_hostile_cell import HUGE, SHAPES
from tests.doubles.hostile_server import HostileServer, Relay, hostile, resp
from tests.doubles.servers import RealServer, redis_server

BRISK = Duration.parse("1s")
FENCE = Fence(7, 1)


class Queue:
    """Both streams of one queue, as an instance uses them."""

    def __init__(self, url: str) -> None:
        never = Breaker(may_open=lambda: False)  # each call is made, whatever came of those before
        self.changes = RedisChanges(url, "eu", timeout=BRISK, breaker=never)
        self.stream = RedisFenceStream(
            url,
            "eu",
            skew=SKEW,
            retention=RETENTION,
            follower=("eu", "eu-a"),
            incarnation="1",
            timeout=BRISK,
            breaker=never,
        )


@asynccontextmanager
async def queue_at(url: str) -> AsyncIterator[Queue]:
    queue = Queue(url)
    try:
        yield queue
    finally:
        await asyncio.wait_for(queue.stream.stop(), 5)
        await asyncio.wait_for(queue.changes.stop(), 5)


@pytest.fixture(scope="module")
def real() -> Iterator[RealServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
def server(real: RealServer) -> Iterator[HostileServer]:
    with hostile(Relay(str(real.where)).answer) as running:
        yield running


@pytest.fixture
async def admin(real: RealServer) -> AsyncIterator["Redis"]:
    client = Redis.from_url(real.redis_url)
    await client.flushall()
    yield client
    await client.aclose()


Ask: TypeAlias = Callable[[Queue], Awaitable[Any]]
ME = Attendance("me", "eu-a", ("c1=x",), 1_000_000)

USES: dict[str, Ask] = {
    "append": lambda queue: queue.changes.append(Change("docs", keys=("a",))),
    "take": lambda queue: queue.changes.take("eu-a", count=10, wait_seconds=0.01),
    "reclaim": lambda queue: queue.changes.reclaim("eu-a", idle_seconds=0, count=10),
    "parked": lambda queue: queue.changes.parked(idle_seconds=0, count=10),
    "acknowledge": lambda queue: queue.changes.acknowledge(["1-1"]),
    "completion": lambda queue: queue.changes.completion(ME),
    "open": lambda queue: queue.stream.open(),
    "read": lambda queue: queue.stream.read(wait_seconds=0),
    "publish": lambda queue: queue.stream.publish([FENCE], done=[Done("1-1")]),
    "report": lambda queue: queue.stream.report("1-1"),
    "followers": lambda queue: queue.stream.followers(),
    "receipt": lambda queue: queue.stream.receipt("1-1"),
    "now_us": lambda queue: queue.stream.now_us(),
    "server_report": lambda queue: queue.stream.server_report(lambda: 0),
    "settle": lambda queue: queue.stream.settle([Parked("c1", 5, target=Target.key("docs", "a"))]),
}


async def is_well(queue: Queue) -> bool:
    """True if a change goes the whole way, and its fence arrives."""
    await queue.stream.open()
    while (await queue.stream.read(wait_seconds=0)).fences:
        pass
    id_ = await queue.changes.append(Change("docs", keys=("b",)))
    await queue.stream.publish([Fence(99, 1)], done=[Done(id_)])
    batch = await queue.stream.read(wait_seconds=0)
    return [fence.digest for fence in batch.fences] == [99] and (await queue.stream.receipt(id_)) is not None


async def lied_to(server: HostileServer, name: str, lies: list[bytes]) -> BaseException | None:
    """The failure of a use that was lied to; the queue is well afterwards, and so is the use."""
    failure = None
    async with queue_at(f"redis://127.0.0.1:{server.port}/0") as queue:
        await queue.stream.open()
        await USES[name](queue)
        server.lies = [[lie] for lie in lies]
        try:
            await asyncio.wait_for(USES[name](queue), 8)
        except TierError as error:
            failure = error
        server.lies.clear()
        try:
            assert await is_well(queue)
        except UnreadableAnswerError:  # an answer too many, which came after the next command was sent
            assert await is_well(queue)
        await USES[name](queue)
    return failure


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        SHAPES.map(resp) | st.binary(min_size=1, max_size=60).map(lambda said: said + b"\r\n!\r\n"),
        min_size=1,
        max_size=2,
    ),
    st.sampled_from([*USES]),
)
def test_any_answer_is_an_answer_or_a_failure_of_its_call(
    server: HostileServer, lies: list[bytes], name: str
) -> None:
    asyncio.run(lied_to(server, name, lies))


UNREADABLE: list[tuple[str, Any]] = [
    *((name, b"\xff\xfe") for name in ("append", "take", "reclaim", "parked", "completion")),
    *((name, b"\xff\xfe") for name in ("open", "read", "publish", "followers", "receipt")),
    *((name, 7) for name in ("append", "take", "parked", "completion")),
    *((name, 7) for name in ("open", "read", "publish", "followers", "receipt", "now_us")),
    ("append", [b"1-1\r\nx: y"]),
    ("append", [b"1-1", b"1-2"]),
    ("parked", [[b"c1", b"kdocs/a"]]),
    ("parked", [[b"c1", b"kdocs/a", b"soon 0"]]),
    ("completion", [1, b"a:b:0", b"", 1, b"", [], None, [0] * 6, 0]),
    ("completion", [1, b"a:b:x", b"", 1, b"", [], b"", [0] * 6, 0]),
    ("completion", [1, b"a:b:0", b"", 1, b"", [[b"neighbour", b"", b"", 0]], b"", [0] * 6, 0]),
    ("completion", [1, b"a:b:0", b"", -1, b"", [], b"", [0] * 6, 0]),
    ("completion", [1, b"a:b:0", b"", 1, b"", [], b"", [0] * 5, 0]),
    ("completion", [1, b"a:b:0", b"", 1, b"", [], b"", [0] * 6, b"yes"]),
    ("open", [b"e", b"first", b"1-1", []]),
    ("read", [b"e", [[b"1-1", [b"p"]]]]),
    ("read", [b"e", [[b"1", [b"p", b""]]]]),
    ("read", [b"e", [[b"1-1", [1, 2]]]]),
    ("publish", [b"e", b"last"]),
    ("followers", [b"e", [[b"eu/eu-a#1", b"0-0", -1]]]),
    ("receipt", [b"x"]),
    ("receipt", []),
]


@pytest.mark.parametrize(("name", "said"), UNREADABLE)
async def test_an_answer_of_another_shape_is_unreadable(server: HostileServer, name: str, said: Any) -> None:
    assert isinstance(await lied_to(server, name, [resp(said)]), UnreadableAnswerError)


@pytest.mark.parametrize("name", ["append", "reclaim", "completion", "open", "read", "publish"])
@pytest.mark.parametrize("said", [[b"a digest"], b"0" * 40, None, 7])
async def test_a_digest_of_a_script_that_the_server_makes_up_is_not_kept(
    server: HostileServer, name: str, said: Any
) -> None:
    await lied_to(server, name, [resp("NOSCRIPT No matching script"), resp(said)])


@pytest.mark.parametrize("said", HUGE)
async def test_a_length_that_nothing_has_costs_nothing(server: HostileServer, said: bytes) -> None:
    assert isinstance(await lied_to(server, "completion", [said]), TierError)


NOW_MS = 1_700_000_000_000
FIELD_NAMES = [b"p", b"q", b"n", b"w", b"u", b"g", b"c", b"h", b"r", b"t", b"o", b"later"]


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(FIELD_NAMES),
            st.one_of(
                st.binary(max_size=64),
                st.integers(-(1 << 70), 1 << 70).map(lambda number: b"%d" % number),
                st.sampled_from(
                    [
                        b"[" * 5000,
                        b"\x91" * 5000,
                        b'[[1,2,true,"x",-3]]',
                        b'[[-1,2,true,"x",3]]',
                        b"c1=0x1",
                        b"c1=" + b"f" * 5000,
                        b"9" * 5000,
                    ]
                ),
            ),
        ),
        max_size=4,
    )
)
def test_items_of_any_content_are_fences_in_bounds_or_unreadable(items: list[Mapping[bytes, bytes]]) -> None:
    found = decode((NOW_MS, fields) for fields in items)
    for fence in found.fences:
        assert fence.digest >= 0
        assert 0 <= fence.at <= NOW_MS * 1000 + LONGEST_AHEAD_US
        assert fence.over >= 0
        assert len(fence.namespace) <= 256
    assert found.complete_to is None or 0 <= found.complete_to <= 1 << 53
    assert 0 <= found.unreadable <= len(items)


MALFORMED: list[dict[Any, Any]] = [
    {b"p": b"odd"},
    {b"p": b"\xff" * 16},
    {b"n": b"\xc1"},
    {b"n": b"\x91" * 5000},
    {b"w": b'[[1,2,true,"x",-3]]'},
    {b"h": b"-5"},
    {b"h": b"9" * 40},
    {b"g": b"-1", b"p": bytes(16)},
    {b"c": b"c1", b"p": bytes(16)},
    {b"later": b"1"},
    {b"p": bytes(LARGEST_ITEM + 16)},
    {b"%d" % number: b"" for number in range(6000)},
]


@pytest.mark.parametrize("fields", MALFORMED, ids=range(len(MALFORMED)))
async def test_a_malformed_item_is_a_gap_and_the_next_item_is_read(
    real: RealServer, admin: "Redis", fields: dict[Any, Any]
) -> None:
    """The follower's position has passed it: it is a gap once, and not for ever."""
    async with queue_at(real.redis_url) as queue:
        await queue.stream.publish([FENCE])
        await queue.stream.open()
        await queue.stream.read(wait_seconds=0)
        await admin.xadd("fences", fields)
        await queue.stream.publish([Fence(8, 2)])
        batch = await queue.stream.read(wait_seconds=0)
        assert (batch.gap, batch.unreadable, [fence.digest for fence in batch.fences]) == (True, 1, [8])
        await queue.stream.publish([Fence(9, 3)])
        batch = await queue.stream.read(wait_seconds=0)
        assert (batch.gap, [fence.digest for fence in batch.fences]) == (False, [9])


@pytest.mark.parametrize(
    "fields",
    [
        {b"x": b"y"},
        {b"event": b"\xc1"},
        {b"event": b"[" * 50_000},
        {b"event": b'{"data": {"namespace": "\\ud800"}}'},
        {b"%d" % number: b"" for number in range(6000)},
        {b"event": b"x" * 3000},
    ],
    ids=range(6),
)
async def test_a_malformed_change_is_buried_and_its_neighbours_are_read(
    real: RealServer, admin: "Redis", fields: dict[Any, Any]
) -> None:
    async with queue_at(real.redis_url) as queue:
        await admin.xadd("changes", fields)
        id_ = await queue.changes.append(Change("docs", keys=("a",)))
        taken = await queue.changes.take("eu-a", count=10, wait_seconds=0)
        bad, good = taken
        assert (good.id, good.changes) == (id_, (Change("docs", keys=("a",)),))
        assert bad.reason
        await queue.changes.bury(bad)
        assert (await queue.changes.completion()).count.dead == 1
        assert (await queue.changes.completion()).oldest == id_


async def test_changes_that_no_reply_has_room_for_are_read_in_smaller_numbers(
    real: RealServer, admin: "Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is too large by itself is a dead letter; it stopped every heartbeat of its region."""
    monkeypatch.setattr("cachesvc.tiers.redis_replies.MOST_BYTES", 300_000)
    monkeypatch.setattr(redis_changes, "LARGEST_CHANGE", 200_000)
    async with queue_at(real.redis_url) as queue:
        for size in (90_000, 90_000, 400_000, 90_000, 90_000):
            await admin.xadd("changes", {b"event": b"x" * size})
        found: dict[str, str] = {}
        for _ in range(12):
            try:
                for change in await queue.changes.take("eu-a", count=10, wait_seconds=0):
                    found[change.id] = change.reason
                for change in await queue.changes.reclaim("eu-a", idle_seconds=0, count=10):
                    found[change.id] = change.reason
            except UnreadableAnswerError:
                continue
        assert len(found) == 4
        assert (await queue.changes.completion()).count.dead == 1


async def test_notes_that_nobody_here_wrote_are_forgotten(real: RealServer, admin: "Redis") -> None:
    """A note without a time was an error of the script, and with it the end of heartbeats and of waits."""
    async with queue_at(real.redis_url) as queue:
        await queue.stream.publish([FENCE])
        await queue.stream.open()
        await admin.hset("changes:consumers", "who", "ever")
        await admin.hset("fences:readers", "who", "ever")
        await admin.hset("parked:cells", "c1", "0 0 0")
        await admin.hset("parked:at:c1", "kdocs/a", "soon")
        await admin.zadd("parked:order:c1", {"kdocs/a": 1})
        assert (await queue.changes.completion(ME)).rivals == []
        assert [follower.instance for follower in await queue.stream.followers()] == ["eu-a"]
        assert await queue.changes.parked(idle_seconds=0, count=10) == []
        assert (await queue.changes.completion()).count.parked == 0
