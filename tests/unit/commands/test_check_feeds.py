"""The checker follows each instance's feed of merged fences.

Tested are the event stream's grammar, reconnection, and the records that come of it.
"""

import asyncio
import itertools
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.commands.check.history import Merged, Record
from cachesvc.commands.check.load.feeds import EventParser, Feed, FeedEvent, Merges, vector_of
from cachesvc.commands.check.load.instances import Instance
from cachesvc.commands.check.watch.merge_lag import MergeLags
from tests.doubles.deployment import FakeDeployment, deployment

STREAM = (
    b"event: reset\nid: eu=1-0\ndata: {}\n\n"
    b": a comment\n\n"
    b"event: fences\r\nid: eu=2-0,us=5-1\r\ndata: one\r\ndata:two\r\n\r\n"
    b"event: heartbeat\nid: eu=2-1,us=5-1\ndata: {}\n\n"
)
EVENTS = [
    FeedEvent("reset", "eu=1-0", b"{}"),
    FeedEvent("fences", "eu=2-0,us=5-1", b"one\ntwo"),
    FeedEvent("heartbeat", "eu=2-1,us=5-1", b"{}"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8).map(sorted))
def test_events_are_the_same_however_the_stream_is_cut(cuts: list[int]) -> None:
    parser = EventParser()
    edges = [0, *cuts, len(STREAM)]
    events = [event for start, end in itertools.pairwise(edges) for event in parser.feed(STREAM[start:end])]
    assert events == EVENTS


def test_an_unfinished_event_is_none() -> None:
    assert EventParser().feed(STREAM[:-1]) == EVENTS[:-1]


@pytest.mark.parametrize("text", ["eu", "eu=", "=1-0", "eu=1-0,us"])
def test_what_is_no_vector_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no vector"):
        vector_of(text)


def test_only_regions_that_moved_are_noted_and_a_new_start_is() -> None:
    noted: list[Record] = []
    merges = Merges("eu/eu-a", noted.append, iter(range(10, 20)).__next__)
    for id_ in ("eu=1-0,us=5-0", "eu=1-0,us=5-0", "eu=2-0,us=5-0", "eu=1-0,us=5-0"):
        merges.take(FeedEvent("fences", id_))
    assert noted == [
        Merged("eu/eu-a", "eu", "1-0", 10),
        Merged("eu/eu-a", "us", "5-0", 10),
        Merged("eu/eu-a", "eu", "2-0", 12),
        Merged("eu/eu-a", "eu", "1-0", 13),
    ]


@pytest.fixture
async def fake() -> AsyncIterator[FakeDeployment]:
    async with deployment("eu/eu-a", origin="") as found:
        yield found


async def test_a_feed_that_breaks_is_taken_up_where_it_was_left(fake: FakeDeployment) -> None:
    instance = fake.instances["eu/eu-a"]
    taken: asyncio.Queue[FeedEvent] = asyncio.Queue()
    async with aiohttp.ClientSession() as http:
        followed = Instance("eu/eu-a", instance.url, "check", http)
        feed = Feed(followed, http, taken.put_nowait)
        following = asyncio.create_task(feed.follow())
        assert [(await taken.get()).kind for _ in range(2)] == ["subscribed", "reset"]
        fake.invalidate(["k"], [])
        assert await taken.get() == FeedEvent("fences", "eu=1000-1", b"{}")
        instance.hang_up()
        assert [(await taken.get()).kind for _ in range(2)] == ["subscribed", "reset"]
        following.cancel()
        await asyncio.wait([following])
    assert instance.last_event_ids == ["eu=1000-1"]
    assert (feed.broken, feed.resets) == (1, 2)
    assert followed.is_gone, "until it says that it is ready"


def fences(*digests: int, namespaces: tuple[tuple[str, int, bool, int], ...] = ()) -> bytes:
    packed = b"".join(digest.to_bytes(8, "big") + (1).to_bytes(8, "big") for digest in digests)
    return msgspec.json.encode(
        {"fences": urlsafe_b64encode(packed).rstrip(b"=").decode(), "namespaces": namespaces}
    )


LOW, HIGH = 1, 2**64 - 1


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (fences(HIGH), []),
        (fences(HIGH, LOW), [("eu", 0.05)]),
        (fences(namespaces=(("check", 1, False, 0),)), [("eu", 0.05)]),
    ],
)
def test_a_share_of_the_fences_is_measured_by_digest(data: bytes, seen: list[tuple[str, float]]) -> None:
    observed: list[tuple[str, float]] = []
    lags = MergeLags(0.5, lambda region, seconds: observed.append((region, seconds)), lambda: 1050)
    lags.take(FeedEvent("subscribed"))
    lags.take(FeedEvent("heartbeat", "eu=900-0,us=1-0"))
    lags.take(FeedEvent("fences", "eu=1000-0,us=1-0", data))
    assert observed == seen


def test_what_was_missed_while_the_feed_was_broken_is_not_measured() -> None:
    observed: list[tuple[str, float]] = []
    lags = MergeLags(1.0, lambda region, seconds: observed.append((region, seconds)), lambda: 99_000)
    lags.take(FeedEvent("heartbeat", "eu=900-0"))
    lags.take(FeedEvent("subscribed"))
    lags.take(FeedEvent("fences", "eu=1000-0", fences(LOW)))
    assert observed == []
    lags.take(FeedEvent("heartbeat", "eu=98990-0"))
    lags.take(FeedEvent("fences", "eu=99000-0", fences(LOW)))
    assert observed == [("eu", 0.0)]
