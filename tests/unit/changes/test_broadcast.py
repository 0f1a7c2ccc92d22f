"""Subscribers of `GET /v1/fences` are sent everything once, in order, or a reset."""

import asyncio
import struct
from base64 import urlsafe_b64decode
from typing import Any

import msgspec
import pytest

from cachesvc.changes.broadcast.broadcast import CHUNK_BYTES, Broadcast
from cachesvc.changes.broadcast.events import EVENT_OVERHEAD, FENCE_BYTES, Event, read_vector, vector_text
from cachesvc.changes.broadcast.subscription import Subscription
from cachesvc.model.errors import RequestError
from cachesvc.model.fence import Fence
from tests.doubles.clocks import ManualClock

SKEW_US = 100_000
LEAD_US = 2 * SKEW_US + 1000
REGIONS = ("us", "eu")


class Told:
    """The events of one subscriber, as it would keep them."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, Any]] = []

    @property
    def last_id(self) -> str:
        return self.events[-1][1]

    def add(self, chunk: bytes) -> None:
        for text in chunk.decode().split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in text.split("\n"))
            assert list(fields) == ["event", "id", "data"]
            self.events.append((fields["event"], fields["id"], msgspec.json.decode(fields["data"])))

    def digests(self) -> list[int]:
        return [
            digest
            for kind, _, data in self.events
            if kind == "fences"
            for digest, _ in pairs(data.get("fences", ""))
        ]

    def of(self, kind: str) -> list[tuple[str, Any]]:
        return [(id_, data) for one, id_, data in self.events if one == kind]


def pairs(text: str) -> list[tuple[int, int]]:
    return list(struct.iter_unpack(">QQ", urlsafe_b64decode(text + "=" * (-len(text) % 4))))


async def told(subscription: Subscription, into: Told | None = None) -> Told:
    """All that there is for it now."""
    into = into or Told()
    while True:
        taking = asyncio.create_task(subscription.next())
        await asyncio.sleep(0)
        if not taking.done():
            taking.cancel()
            return into
        if not taking.result():
            return into
        into.add(taking.result())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broadcast(clock: ManualClock) -> Broadcast:
    """Both regions are read, from 100-0 on."""
    made = Broadcast(clock, SKEW_US, REGIONS)
    for region in REGIONS:
        made.reset(region, "100-0", 0, "begun")
    return made


def hard(*digests: int) -> list[Fence]:
    return [Fence(digest, at=digest * 10) for digest in digests]


async def test_a_new_subscriber_drops_what_it_holds_and_hears_at_once_how_far_the_feeds_are(
    broadcast: Broadcast, clock: ManualClock
) -> None:
    broadcast.heartbeat("eu", "101-0", 5_000)
    heard = await told(broadcast.subscribe())
    now = clock.now_us()
    assert heard.events == [
        ("reset", "eu=101-0,us=100-0", {"floor": now + LEAD_US, "reason": "this subscription is new"}),
        ("heartbeat", "eu=101-0,us=100-0", {"complete_to": {"us": 0, "eu": 5_000}, "floor": 0, "now": now}),
    ]


async def test_a_batch_of_every_kind_of_fence_is_one_event(broadcast: Broadcast) -> None:
    subscription = broadcast.subscribe()
    broadcast.fences(
        "us",
        "101-7",
        [
            Fence(2**64 - 1, 5),
            Fence(7, 6, soft=True),
            Fence(8, 7, over=60),
            Fence(9, 8, namespace="pages"),
            Fence(10, 9, soft=True, namespace="users", over=70),
            Fence(11, 10, unapplied=True),
        ],
    )
    ((id_, data),) = (await told(subscription)).of("fences")
    assert id_ == "eu=100-0,us=101-7"
    assert pairs(data["fences"]) == [(2**64 - 1, 5), (11, 10)]
    assert pairs(data["soft"]) == [(7, 6)]
    assert data["paced"] == [["0000000000000008", 7, 60]]
    assert data["namespaces"] == [["pages", 8, False, 0], ["users", 9, True, 70]]


async def test_members_without_fences_are_left_out(broadcast: Broadcast) -> None:
    subscription = broadcast.subscribe()
    broadcast.fences("us", "101-0", hard(1))
    assert (await told(subscription)).of("fences")[0][1].keys() == {"fences"}


async def test_a_batch_without_fences_moves_the_position_and_is_no_event(broadcast: Broadcast) -> None:
    subscription = broadcast.subscribe()
    await told(subscription)
    broadcast.fences("eu", "105-0", ())
    assert (await told(subscription)).events == []
    broadcast.heartbeat("us", "101-0", 1)
    assert (await told(subscription)).last_id == "eu=105-0,us=101-0"


async def test_a_heartbeat_comes_after_the_fences_it_is_about_and_only_the_newest_one(
    broadcast: Broadcast,
) -> None:
    subscription = broadcast.subscribe()
    broadcast.heartbeat("eu", "101-0", 1)
    broadcast.fences("eu", "102-0", hard(1))
    broadcast.heartbeat("eu", "103-0", 2)
    broadcast.fences("eu", "104-0", hard(2))
    heard = await told(subscription)
    assert [kind for kind, _, _ in heard.events] == ["reset", "fences", "fences", "heartbeat"]
    assert heard.events[-1][1:] == (
        "eu=104-0,us=100-0",
        {"complete_to": {"us": 0, "eu": 2}, "floor": 0, "now": ManualClock().now_us()},
    )


async def test_a_waiting_subscriber_is_woken_by_what_comes(broadcast: Broadcast) -> None:
    subscription = broadcast.subscribe()
    await told(subscription)
    waiting = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    broadcast.fences("eu", "101-0", hard(1))
    assert (await waiting).startswith(b"event: fences\nid: eu=101-0,us=100-0\n")


async def test_a_cancelled_wait_loses_nothing(broadcast: Broadcast) -> None:
    subscription = broadcast.subscribe()
    await told(subscription)
    waiting = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    broadcast.fences("eu", "101-0", hard(1))
    waiting.cancel()
    await asyncio.wait([waiting])
    assert (await told(subscription)).digests() == [1]


async def test_the_quiet_are_told_that_nothing_happened(broadcast: Broadcast, clock: ManualClock) -> None:
    subscription = broadcast.subscribe()
    broadcast.beat()
    await told(subscription)
    clock.advance(seconds=1)
    broadcast.beat()
    assert [data["now"] for _, data in (await told(subscription)).of("heartbeat")] == [clock.now_us()]
    broadcast.heartbeat("eu", "101-0", 1)
    await told(subscription)
    broadcast.beat()
    assert (await told(subscription)).events == [], "a feed's heartbeat did it"
    broadcast.beat()
    assert len((await told(subscription)).events) == 1


# resuming -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", range(6))
async def test_a_subscriber_that_comes_again_gets_what_it_missed_once_and_in_order(
    broadcast: Broadcast, seen: int
) -> None:
    positions = [("eu", "101-0"), ("us", "101-0"), ("eu", "101-1"), ("eu", "102-0"), ("us", "103-0")]
    subscription = broadcast.subscribe()
    heard = await told(subscription)
    for digest, (region, position) in enumerate(positions, start=1):
        if digest == seen + 1:
            subscription.close()
        broadcast.fences(region, position, hard(digest))
        await told(subscription, heard)
    resumed = await told(broadcast.subscribe(read_vector(heard.last_id)))
    assert heard.digests() + resumed.digests() == [1, 2, 3, 4, 5]
    assert resumed.of("reset") == []
    assert resumed.events[-1][:2] == ("heartbeat", "eu=102-0,us=103-0")


async def test_the_id_of_another_instance_is_resumed_with_ids_that_never_go_back(
    broadcast: Broadcast,
) -> None:
    """That one had read `us` first: what it has of it is not sent again."""
    for digest, (region, position) in enumerate(
        [("eu", "101-0"), ("us", "101-0"), ("eu", "102-0"), ("us", "102-0")], start=1
    ):
        broadcast.fences(region, position, hard(digest))
    subscription = broadcast.subscribe({"eu": "100-0", "us": "101-5"})
    broadcast.fences("eu", "103-0", hard(5))
    resumed = await told(subscription)
    assert resumed.digests() == [1, 3, 4, 5]
    assert [id_ for id_, _ in resumed.of("fences")] == [
        "eu=101-0,us=101-5",
        "eu=102-0,us=101-5",
        "eu=102-0,us=102-0",
        "eu=103-0,us=102-0",
    ]


async def test_positions_between_those_of_events_are_resumed_from(broadcast: Broadcast) -> None:
    """Heartbeats take positions too."""
    broadcast.fences("eu", "101-0", hard(1))
    broadcast.heartbeat("eu", "102-0", 1)
    broadcast.fences("eu", "103-0", hard(2))
    assert (await told(broadcast.subscribe({"eu": "101-3", "us": "100-0"}))).digests() == [2]


@pytest.mark.parametrize(
    "after",
    [
        {"eu": "99-9", "us": "100-0"},
        {"eu": "100-0", "us": "99-0"},
        {"eu": "101-1", "us": "100-0"},
        {"eu": "100-0"},
        {"eu": "100-0", "us": "100-0", "ap": "1-0"},
    ],
    ids=["before eu", "before us", "of the future", "a region is missing", "an unknown region"],
)
async def test_what_cannot_be_resumed_begins_with_a_reset(
    broadcast: Broadcast, clock: ManualClock, after: dict[str, str]
) -> None:
    broadcast.fences("eu", "101-0", hard(1))
    heard = await told(broadcast.subscribe(after))
    assert [kind for kind, _, _ in heard.events] == ["reset", "heartbeat"]
    assert heard.events[0][2]["floor"] == clock.now_us() + LEAD_US


@pytest.fixture
def two_servers(clock: ManualClock) -> Broadcast:
    """`eu` and `us` are read from queues of the epochs `0000000a` and `0000000b`."""
    made = Broadcast(clock, SKEW_US, REGIONS)
    made.reset("eu", "100-0@0000000a", 0, "begun")
    made.reset("us", "100-0@0000000b", 0, "begun")
    made.fences("eu", "101-0@0000000a", hard(1))
    return made


async def test_an_id_of_the_same_epochs_is_resumed(two_servers: Broadcast) -> None:
    heard = await told(two_servers.subscribe(read_vector("eu=100-7@0000000a,us=100-0@0000000b")))
    assert heard.digests() == [1]
    assert heard.of("reset") == []
    assert heard.last_id == "eu=101-0@0000000a,us=100-0@0000000b"


@pytest.mark.parametrize(
    "id_",
    [
        "eu=101-0@0000000c,us=100-0@0000000b",
        "eu=101-0@0000000b,us=100-0@0000000a",
        "eu=101-0@0000000a,us=100-0@0000000c",
        "eu=101-0,us=100-0@0000000b",
        "eu=101-0,us=100-0",
    ],
    ids=["another queue of eu", "swapped", "another queue of us", "eu is of an old form", "an old form"],
)
async def test_an_id_of_another_epoch_begins_with_a_reset(
    two_servers: Broadcast, clock: ManualClock, id_: str
) -> None:
    """The positions are ones that this instance has passed: they alone would be resumed from."""
    heard = await told(two_servers.subscribe(read_vector(id_)))
    assert [kind for kind, _, _ in heard.events] == ["reset", "heartbeat"]
    assert heard.events[0][2]["floor"] == clock.now_us() + LEAD_US


async def test_the_place_before_an_item_is_resumed_from(broadcast: Broadcast) -> None:
    """A gap ends just before the oldest item, whose number may be 0: the number there is the largest one."""
    broadcast.reset("eu", "199-18446744073709551615@0000000a", 0, "fences of eu were lost")
    broadcast.fences("eu", "200-0@0000000a", hard(1))
    heard = await told(broadcast.subscribe(read_vector("eu=199-18446744073709551615@0000000a,us=100-0")))
    assert heard.digests() == [1]
    assert heard.of("reset") == []


async def test_a_subscriber_that_stays_is_told_of_another_epoch_by_its_reset(two_servers: Broadcast) -> None:
    subscription = two_servers.subscribe()
    before = await told(subscription)
    two_servers.reset("eu", "50-0@0000000c", 77, "fences of eu were lost")
    two_servers.fences("eu", "102-0@0000000c", hard(2))
    after = await told(subscription)
    assert [(kind, id_) for kind, id_, _ in after.events] == [
        ("reset", "eu=50-0@0000000c,us=100-0@0000000b"),
        ("fences", "eu=102-0@0000000c,us=100-0@0000000b"),
    ]
    assert (await told(two_servers.subscribe(read_vector(before.last_id)))).of("reset")
    assert not (await told(two_servers.subscribe(read_vector(after.last_id)))).of("reset")


async def test_the_first_reset_honours_a_floor_that_lies_ahead(
    broadcast: Broadcast, clock: ManualClock
) -> None:
    ahead = clock.now_us() + 2 * LEAD_US
    broadcast.reset("eu", "200-0", ahead, "lost")
    heard = await told(broadcast.subscribe())
    assert [data["floor"] for _, _, data in heard.events] == [ahead, ahead]


async def test_a_gap_is_passed_on_and_nobody_resumes_from_before_it(broadcast: Broadcast) -> None:
    subscription = broadcast.subscribe()
    broadcast.fences("eu", "101-0", hard(1))
    before = await told(subscription)
    broadcast.reset(
        "eu", "50-0", 77, "fences of eu were lost"
    )  # another epoch of the stream: its clock was behind
    after = await told(subscription)
    assert after.events == [("reset", "eu=50-0,us=100-0", {"floor": 77, "reason": "fences of eu were lost"})]
    broadcast.fences("eu", "51-0", hard(2))
    assert (await told(broadcast.subscribe(read_vector(before.last_id)))).events[0][0] == "reset"
    assert (await told(broadcast.subscribe(read_vector(after.last_id)))).digests() == [2]


async def test_a_slow_subscriber_gets_a_gap_in_its_place(broadcast: Broadcast) -> None:
    subscription = broadcast.subscribe()
    broadcast.fences("eu", "101-0", hard(1))
    broadcast.reset("eu", "200-0", 77, "lost")
    broadcast.fences("eu", "201-0", hard(2))
    assert [kind for kind, _, _ in (await told(subscription)).events] == [
        "reset",
        "fences",
        "reset",
        "fences",
        "heartbeat",
    ]


async def test_a_region_that_was_never_read_is_left_out_and_resets_when_it_is(clock: ManualClock) -> None:
    broadcast = Broadcast(clock, SKEW_US, REGIONS)
    subscription = broadcast.subscribe()
    heard = await told(subscription)
    assert [id_ for _, id_, _ in heard.events] == ["", ""]
    broadcast.reset("eu", "5-0", 1, "begun")
    broadcast.fences("eu", "6-0", hard(1))
    await told(subscription, heard)
    assert heard.last_id == "eu=6-0"
    assert (await told(broadcast.subscribe({"eu": "5-0"}))).digests() == [1]
    broadcast.heartbeat("us", "9-0", 1)
    assert (await told(broadcast.subscribe({"eu": "6-0"}))).events[0][0] == "reset", (
        "nobody knows what it missed of us"
    )


# bounds ---------------------------------------------------------------------------------------------------------------


def bounded(clock: ManualClock, **limits: int) -> Broadcast:
    broadcast = Broadcast(clock, SKEW_US, ("eu",), **limits)
    broadcast.reset("eu", "100-0", 0, "begun")
    return broadcast


@pytest.mark.parametrize(
    "limits",
    [{"log_fences": 3}, {"log_bytes": 3 * (EVENT_OVERHEAD + FENCE_BYTES)}],
    ids=["by count", "by bytes"],
)
async def test_what_the_log_dropped_cannot_be_resumed_from(
    clock: ManualClock, limits: dict[str, int]
) -> None:
    broadcast = bounded(clock, **limits)
    for digest in range(1, 7):
        broadcast.fences("eu", f"{100 + digest}-0", hard(digest))
    assert broadcast.statistics().fences == 3
    assert (await told(broadcast.subscribe({"eu": "103-0"}))).digests() == [4, 5, 6]
    assert (await told(broadcast.subscribe({"eu": "102-0"}))).events[0][0] == "reset"


@pytest.mark.parametrize("notices", ["when it takes", "at the next beat"])
async def test_a_subscriber_that_is_too_slow_is_lost(clock: ManualClock, notices: str) -> None:
    broadcast = bounded(clock, log_fences=2)
    slow, quick = broadcast.subscribe(), broadcast.subscribe()
    heard = Told()
    for digest in range(1, 5):
        broadcast.fences("eu", f"{100 + digest}-0", hard(digest))
        await told(quick, heard)
    if notices == "at the next beat":
        broadcast.beat()
        assert slow.is_over
    assert await slow.next() == b""
    assert heard.digests() == [1, 2, 3, 4]
    statistics = broadcast.statistics()
    assert (statistics.subscribers, statistics.lost, statistics.events) == (1, 1, 5)


async def test_a_subscriber_takes_no_more_than_a_chunk_at_once(broadcast: Broadcast) -> None:
    subscription = broadcast.subscribe()
    for number in range(1000):
        broadcast.fences("eu", f"{200 + number}-0", hard(*range(20)))
    sizes = []
    while subscription.beats < 0:
        sizes.append(len(await subscription.next()))
    assert len(sizes) > 4
    assert max(sizes) < CHUNK_BYTES + 1000


async def test_an_event_is_rendered_when_a_subscriber_has_it(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[Event] = []
    render = Event.render

    def noted(event: Event) -> bytes:
        rendered.append(event)
        return render(event)

    monkeypatch.setattr(Event, "render", noted)
    broadcast = bounded(clock)
    for digest in range(1, 4):
        broadcast.fences("eu", f"{100 + digest}-0", hard(digest))
    assert rendered == []
    assert (await told(broadcast.subscribe({"eu": "101-0"}))).digests() == [2, 3]
    assert [event.position for event in rendered] == ["102-0", "103-0"]


async def test_a_large_batch_that_nobody_watches_is_not_kept(clock: ManualClock) -> None:
    broadcast = bounded(clock, unwatched_fences=2, log_fences=4)
    broadcast.fences("eu", "101-0", hard(1))
    broadcast.fences("eu", "102-0", hard(2, 3, 4))
    assert broadcast.statistics().fences == 1
    for digest in range(5, 9):
        broadcast.fences("eu", f"{100 + digest}-0", hard(digest))
    assert (await told(broadcast.subscribe({"eu": "101-0"}))).events[0][0] == "reset"
    subscription = broadcast.subscribe({"eu": "108-0"})
    broadcast.fences("eu", "109-0", hard(9, 10, 11))
    assert (await told(subscription)).digests() == [9, 10, 11]


async def test_one_subscriber_too_many_is_refused_until_another_leaves(clock: ManualClock) -> None:
    broadcast = bounded(clock, max_subscribers=1)
    first = broadcast.subscribe()
    with pytest.raises(RequestError, match="1 subscribers are connected") as caught:
        broadcast.subscribe()
    assert (caught.value.status, caught.value.kind, caught.value.kind.retry_after_seconds) == (
        503,
        "too-many-subscribers",
        1,
    )
    first.close()
    broadcast.subscribe()
    assert broadcast.statistics().lost == 0


async def test_closing_ends_a_wait(broadcast: Broadcast) -> None:
    subscription = broadcast.subscribe()
    await told(subscription)
    waiting = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    subscription.close()
    assert await waiting == b""


@pytest.mark.parametrize(
    "text", ["", "eu", "eu=", "eu=1", "eu=1-0,", "=1-0", "eu=1-0;us=1-0", "eu=x-0", "eu=" + "9" * 17 + "-0"]
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no event id"):
        read_vector(text)


def test_an_id_reads_back_as_the_vector_it_was() -> None:
    vector = {"us-west": "1700000000000-3", "eu": "1-0"}
    assert vector_text(vector) == "eu=1-0,us-west=1700000000000-3"
    assert read_vector(vector_text(vector)) == vector


async def test_it_shows_its_state(broadcast: Broadcast) -> None:
    subscription = broadcast.subscribe()
    assert repr(broadcast) == "<Broadcast [1 subscribers] at eu=100-0,us=100-0>"
    assert repr(subscription) == "<Subscription [next is 2]>"
    subscription.close()
    assert repr(subscription) == "<Subscription [over]>"


# who may not know every namespace ----------------------------------------------------------------


async def test_a_subscriber_is_told_no_namespace_that_it_may_not_know(broadcast: Broadcast) -> None:
    some, whole, resumed = (
        broadcast.subscribe(seen=["pages"]),
        broadcast.subscribe(),
        broadcast.subscribe({"eu": "100-0", "us": "100-0"}, ["pages"]),
    )
    for namespace in ("users", "pages"):
        broadcast.fences("eu", "101-0", [*hard(1), Fence(9, 8, namespace=namespace)])
    named = {
        name: [
            fence[0]
            for kind, _, data in heard.events
            if kind == "fences"
            for fence in data.get("namespaces", [])
        ]
        for name, heard in (
            ("some", await told(some)),
            ("whole", await told(whole)),
            ("resumed", await told(resumed)),
        )
    }
    assert named == {"some": ["pages"], "whole": ["users", "pages"], "resumed": ["pages"]}
