"""The feed applies events, and after a failure it goes on: where, and when."""

import base64
import json
import random
import struct
from typing import Any

import pytest
from cachesvc_client.near.feed import LONGEST_PAUSE, FeedError, NearFeed
from cachesvc_client.near.near import NOTHING, Near, target_digest
from cachesvc_client.near.settings import NearSettings
from cachesvc_client.protocol.wire import Got
from cachesvc_client.values.codecs import BYTES, Schema
from hypothesis import given
from hypothesis import strategies as st

T0 = 1_700_000_000_000_000


def event(kind: str, id_: str, **data: Any) -> bytes:
    return f"event: {kind}\nid: {id_}\ndata: {json.dumps(data)}\n\n".encode()


def pairs(*targets: tuple[str, int]) -> str:
    packed = b"".join(struct.pack(">QQ", target_digest(target), at) for target, at in targets)
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def heartbeat(id_: str = "eu=1-1", floor: int = 0, **complete_to: int) -> bytes:
    return event("heartbeat", id_, complete_to=complete_to or {"eu": T0}, floor=floor, now=T0)


class Bench:
    def __init__(self, *urls: str) -> None:
        self.near = Near(lambda: 100.0, lambda digest, at: None)
        self.shelf = self.near.shelf("pages", NearSettings(), Schema(BYTES))
        self.urls = list(urls) or ["http://a:1", "http://b:1"]
        self.feed = NearFeed(self.near, lambda: self.urls, random.Random(1))

    def connect(self) -> None:
        self.feed.opened(200)

    def hold(self, *keys: str, tags: tuple[str, ...] = ()) -> None:
        for key in keys:
            assert self.shelf.keep(key, Got("hit", b"v", ttl=60, as_of=T0 - 1_000, tags=tags), 100.0)

    def held(self, keys: str) -> str:
        return "".join(key for key in keys if self.shelf.value(key) is not NOTHING)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.connect()
    bench.feed.received(event("reset", "eu=1-0", floor=T0 - 1_000_000, reason="new") + heartbeat())
    return bench


def test_events_become_fences(bench: Bench) -> None:
    bench.hold(*"abcdef")
    bench.hold("t", tags=("tag",))
    bench.feed.received(
        event(
            "fences", "eu=2-0", fences=pairs(("pages/a", T0), ("pages#tag", T0)), soft=pairs(("pages/b", T0))
        )
    )
    assert bench.held("abcdeft") == "cdef"
    bench.feed.received(event("fences", "eu=3-0", paced=[[f"{target_digest('pages/c'):016x}", T0 - 10, 1]]))
    assert bench.held("abcdeft") == "def"
    bench.feed.received(event("fences", "eu=4-0", namespaces=[["users", T0, False, 0]]))
    assert bench.held("abcdeft") == "def"
    bench.feed.received(event("fences", "eu=5-0", namespaces=[["pages", T0, False, 0]]))
    assert bench.held("abcdeft") == ""


def test_an_instance_that_says_that_it_stops_is_left_without_a_warning(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    before = bench.feed.url()
    bench.feed.received(b"event: stopping\ndata: {}\n\n")
    bench.feed.lost("the instance ended it")
    assert bench.feed.url() != before
    assert bench.feed.headers()["Last-Event-ID"] == "eu=1-1"
    assert not bench.feed.is_up
    assert not caplog.records
    bench.feed.lost("no connection")
    assert ["no connection" in record.getMessage() for record in caplog.records] == [True]


def test_a_reset_or_a_heartbeat_with_a_higher_floor_empties(bench: Bench) -> None:
    bench.hold("a")
    bench.feed.received(event("reset", "eu=2-0", floor=T0, reason="a gap"))
    assert bench.held("a") == ""
    assert bench.feed.resets == 2
    assert bench.shelf.keep("b", Got("hit", b"v", ttl=60, as_of=T0 + 1), 100.0)
    bench.feed.received(heartbeat(floor=T0 + 1))
    assert bench.held("b") == ""


def test_the_region_that_is_furthest_behind_counts(bench: Bench) -> None:
    bench.hold("a")
    bench.feed.received(heartbeat(eu=T0, us=T0 - 3_000_000))
    assert bench.held("a") == ""
    bench.feed.received(heartbeat(eu=T0, us=0))
    assert bench.held("a") == ""
    bench.feed.received(heartbeat(eu=T0, us=T0 - 3_000))
    assert bench.held("a") == "a"


def test_unknown_events_and_members_are_passed_over(bench: Bench) -> None:
    bench.feed.received(event("news", "eu=9-0", anything=1) + event("fences", "eu=9-1", later=[1]))
    assert bench.feed.last_id == "eu=9-1"


def test_it_comes_again_with_the_id_of_the_last_whole_event_at_the_next_instance(bench: Bench) -> None:
    first = bench.feed.url()
    bench.feed.received(heartbeat("eu=7-0")[:-1])
    assert bench.feed.last_id == "eu=1-1"
    bench.feed.lost("reset by peer")
    assert bench.feed.headers()["Last-Event-ID"] == "eu=1-1"
    assert {first, bench.feed.url()} == {"http://a:1/v1/fences", "http://b:1/v1/fences"}
    bench.connect()
    bench.feed.received(heartbeat("eu=8-0"))
    assert bench.feed.last_id == "eu=8-0"


def test_a_resumption_that_another_queue_of_the_name_answers_empties(bench: Bench) -> None:
    """The instance knows by the id's epoch that it cannot tell what came after it, and sends a reset."""
    bench.feed.received(heartbeat("eu=7-0@5f3a9c01"))
    bench.hold("a")
    bench.feed.lost("reset by peer")
    assert bench.feed.headers()["Last-Event-ID"] == "eu=7-0@5f3a9c01"
    bench.connect()
    answer = event("reset", "eu=9-0@07d1e2b4", floor=T0, reason="what came after Last-Event-ID is not here")
    bench.feed.received(answer + heartbeat("eu=9-0@07d1e2b4"))
    assert bench.held("a") == ""
    assert bench.feed.last_id == "eu=9-0@07d1e2b4"


def test_while_it_is_lost_nothing_is_answered_and_after_a_resumption_it_is_as_good_as_before(
    bench: Bench,
) -> None:
    bench.hold("a")
    bench.feed.lost("silence")
    assert bench.held("a") == ""
    bench.connect()
    assert bench.held("a") == "", "connected is not told"
    bench.feed.received(heartbeat())
    assert bench.held("a") == "a"


def test_a_first_subscription_sends_no_id() -> None:
    assert "Last-Event-ID" not in Bench().feed.headers()


def test_an_id_that_is_refused_is_not_sent_again(bench: Bench) -> None:
    with pytest.raises(FeedError, match="400"):
        bench.feed.opened(400)
    assert "Last-Event-ID" not in bench.feed.headers()


@pytest.mark.parametrize(
    "nonsense",
    [
        event("heartbeat", "x", now="soon"),
        event("fences", "x", fences="AAAA"),
        event("fences", "x", paced=[["no hex", 1, 1]]),
        b"event: reset\ndata: {\n\n",
    ],
)
def test_nonsense_ends_the_connection_before_its_id_is_taken(bench: Bench, nonsense: bytes) -> None:
    with pytest.raises(FeedError, match="not what the protocol says"):
        bench.feed.received(nonsense)
    assert bench.feed.last_id == "eu=1-1"


def test_pauses_grow_are_random_bounded_and_short_again_after_an_event(bench: Bench) -> None:
    longest = []
    for _ in range(12):
        bench.feed.lost("refused")
        longest.append(max(bench.feed.pause() for _ in range(200)))
    assert longest[0] < 0.06 < longest[3] < longest[5]
    assert 0.8 * LONGEST_PAUSE < longest[-1] <= LONGEST_PAUSE
    bench.connect()
    bench.feed.received(heartbeat())
    bench.feed.lost("again")
    assert max(bench.feed.pause() for _ in range(200)) < 0.06


def test_clients_spread_over_the_instances() -> None:
    near = Near(lambda: 0.0, lambda digest, at: None)
    urls = ["http://a", "http://b", "http://c"]
    assert {NearFeed(near, lambda: urls, random.Random(seed)).url() for seed in range(30)} == {
        f"{url}/v1/fences" for url in urls
    }


HOSTILE = [
    b"id: caf\xc3\xa9\nevent: heartbeat\ndata: {}\n\n",
    b"id: a\x1b[2J\ndata: x\n\n",
    b"id: " + b"9" * 5000 + b"\ndata: x\n\n",
    b"event: fences\ndata: " + b"[" * 5000 + b"\n\n",
    b'event: fences\ndata: {"fences": "AAAA"}\n\n',
    b'event: fences\ndata: {"paced": [["x", 1, 1]]}\n\n',
    b'event: heartbeat\ndata: {"complete_to": {"eu": 1e400}, "floor": 1, "now": 1}\n\n',
    b"retry: " + b"9" * 5000 + b"\n\n",
    b'event: reset\ndata: {"floor": "' + b"9" * 5000 + b'"}\n\n',
]


@pytest.mark.parametrize("said", HOSTILE, ids=range(len(HOSTILE)))
def test_an_event_out_of_the_protocol_ends_its_connection_alone(said: bytes) -> None:
    """An id beyond ASCII went into the headers of every later attempt, and each of them failed."""
    bench = Bench()
    bench.connect()
    with pytest.raises(FeedError):
        bench.feed.received(said)
    bench.feed.lost("a test")
    assert bench.feed.headers().get("Last-Event-ID", "").isascii()
    bench.connect()
    bench.feed.received(
        b'id: eu=1-0\nevent: heartbeat\ndata: {"complete_to": {"eu": 5}, "floor": 1, "now": 5}\n\n'
    )
    assert (bench.feed.is_up, bench.feed.last_id) == (True, "eu=1-0")


@given(
    st.lists(
        st.binary(max_size=80) | st.sampled_from([*HOSTILE, b"data", b"\n\n", b"id: x", b"event: "]),
        max_size=8,
    )
)
def test_any_bytes_are_events_or_out_of_the_protocol(chunks: list[bytes]) -> None:
    bench = Bench()
    bench.connect()
    for chunk in chunks:
        try:
            bench.feed.received(chunk)
        except FeedError:
            bench.connect()
    assert bench.feed.last_id.isascii()
    assert bench.feed.last_id.isprintable()
    assert len(bench.feed.last_id) <= 4096
