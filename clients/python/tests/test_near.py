"""The near cache holds copies that all fences it knows admit, and stays within bounds.

It answers only while the feed is in time.
"""

import gc
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pytest
from cachesvc_client.errors import CacheError
from cachesvc_client.near import near as near_module
from cachesvc_client.near.footprint import COPY_BYTES, TEXT_BYTES, bytes_of_object
from cachesvc_client.near.near import NOTHING, Near, Shelf, target_digest
from cachesvc_client.near.settings import NearSettings
from cachesvc_client.protocol.wire import OCTETS, Got
from cachesvc_client.requests.http import Reply
from cachesvc_client.requests.namespace_requests import NamespaceRequests
from cachesvc_client.requests.own_writes import OwnWrites
from cachesvc_client.values.codecs import BYTES, Schema, json_of
from cachesvc_client.values.context import ABSENT
from hypothesis import given
from hypothesis import strategies as st

T0 = 1_700_000_000_000_000
"""µs: the service's time at our 0."""


class Bench:
    """A near cache with a clock to turn, and a feed that says what it is told to."""

    def __init__(self, settings: NearSettings | None = None) -> None:
        self.seconds = 100.0
        self.heeded: list[tuple[int, int]] = []
        self.near = Near(lambda: self.seconds, lambda digest, at: self.heeded.append((digest, at)))
        self.shelf = self.near.shelf("pages", settings or NearSettings(), Schema(BYTES))
        self.beat()

    def us(self, seconds: float) -> int:
        """Returns the service's time in µs at this process's `seconds`."""
        return T0 + int(seconds * 1_000_000)

    @property
    def now(self) -> int:
        return self.us(self.seconds)

    def beat(self, behind: float = 0.1) -> None:
        self.near.heartbeat(self.us(self.seconds - behind), self.now)

    def turn(self, seconds: float) -> None:
        self.seconds += seconds
        self.beat()

    def keep(self, key: str, *, as_of: int = 0, shelf: Shelf | None = None, **more: Any) -> bool:
        fields: dict[str, Any] = {
            "outcome": "hit",
            "value": b"v",
            "ttl": 60,
            "as_of": as_of or self.now - 1_000,
            **more,
        }
        got = Got(**fields)
        return (shelf or self.shelf).keep(key, got, self.seconds)

    def held(self, keys: Iterable[str]) -> list[str]:
        return [key for key in keys if self.shelf.value(key) is not NOTHING]

    def fence(self, *targets: str, at: int = 0, soft: bool = False) -> None:
        self.near.merge([(target_digest(target), at or self.now) for target in targets], soft=soft)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_was_answered_fresh_is_held_until_its_ttl_ends(bench: Bench) -> None:
    assert bench.keep("a", ttl=60)
    for _ in range(60):
        assert bench.shelf.value("a") == b"v"
        bench.turn(1.0)
    assert bench.shelf.value("a") is NOTHING


@pytest.mark.parametrize(
    ("outcome", "is_held"),
    [("hit", True), ("loaded", True), ("absent", True), ("stale", False), ("miss", False)],
)
def test_only_fresh_answers_are_held(bench: Bench, outcome: str, is_held: bool) -> None:
    assert bench.keep("a", outcome=outcome) == is_held


@pytest.mark.parametrize("target", ["pages/a", "pages#t", "pages"])
@pytest.mark.parametrize("soft", [False, True])
def test_a_fence_on_key_tag_or_namespace_takes_the_copy_out_and_refuses_late_answers(
    bench: Bench, target: str, soft: bool
) -> None:
    as_of = bench.now - 1_000
    bench.keep("a", tags=("t",), as_of=as_of)
    bench.fence(target, at=as_of, soft=soft)
    assert bench.shelf.value("a") is NOTHING
    assert not bench.keep("a", tags=("t",), as_of=as_of)
    assert bench.keep("a", tags=("t",), as_of=as_of + 1)


@pytest.mark.parametrize("target", ["pages/b", "pages#u", "users", "users/a"])
def test_a_fence_on_something_else_leaves_the_copy_alone(bench: Bench, target: str) -> None:
    bench.keep("a", tags=("t",))
    bench.fence(target)
    assert bench.held(["a"]) == ["a"]
    assert bench.keep("c", tags=("t",))


def test_a_fence_older_than_the_copy_leaves_it_alone(bench: Bench) -> None:
    bench.keep("a", as_of=bench.now)
    bench.fence("pages/a", at=bench.now - 1)
    assert bench.held(["a"]) == ["a"]


def test_an_instance_is_told_of_the_hard_fence_that_refused_a_copy_and_of_no_soft_one(bench: Bench) -> None:
    bench.keep("a", tags=("t",))
    bench.keep("b", tags=("t",))
    bench.fence("pages/b", soft=True)
    bench.fence("pages#t", at=bench.now)
    assert bench.heeded == [(target_digest("pages/a"), bench.now)]


def test_an_instance_that_answers_what_a_fence_refuses_is_told_of_it(bench: Bench) -> None:
    bench.fence("pages#t", at=bench.now)
    assert not bench.keep("a", tags=("t",), as_of=bench.now)
    assert bench.heeded == [(target_digest("pages/a"), bench.now)]
    assert bench.shelf.statistics().refused == 1


@pytest.mark.parametrize("outcome", ["loaded", "absent", "hit"])
def test_an_answer_that_may_not_be_kept_is_not_held_and_takes_the_older_copy_with_it(
    bench: Bench, outcome: str
) -> None:
    bench.keep("a", value=b"old", as_of=bench.now - 5)
    bench.keep("b")
    assert not bench.keep("a", value=b"new", as_of=bench.now, outcome=outcome, keep=False)
    assert bench.held(["a", "b"]) == ["b"]


def test_the_answers_of_both_flavours_are_read_so(bench: Bench) -> None:
    """`NamespaceRequests` reads the replies of the async and the sync client."""
    requests = NamespaceRequests("pages", OwnWrites(lambda: bench.seconds), bench.near, shelf=bench.shelf)
    bench.keep("a", value=b"old", as_of=bench.now - 5)
    results = [
        {"outcome": "loaded", "value": b"new", "ttl": 60, "as_of": bench.now, "keep": False},
        {"outcome": "loaded", "value": b"new", "ttl": 60, "as_of": bench.now},
    ]
    reply = Reply(200, {}, msgspec.msgpack.encode({"results": results, "lag": 0.0}))
    answers = requests.got(reply, ["a", "b"], bench.seconds)
    assert [got.value for got in answers if isinstance(got, Got)] == [b"new", b"new"]
    assert bench.held(["a", "b"]) == ["b"]


def test_a_key_that_its_origin_wants_to_be_asked_later_says_when(bench: Bench) -> None:
    requests = NamespaceRequests("pages", OwnWrites(lambda: bench.seconds), bench.near, shelf=bench.shelf)
    problem = {"type": "origin-limited", "status": 503, "retryable": True, "retry_after": 17}
    reply = Reply(200, {}, msgspec.msgpack.encode({"results": [{"outcome": "error", "problem": problem}]}))
    (error,) = requests.got(reply, ["a"])
    assert isinstance(error, CacheError)
    assert (error.type, error.retry_after) == ("origin-limited", 17)


def test_an_answer_that_may_not_be_kept_leaves_a_newer_copy(bench: Bench) -> None:
    bench.keep("a", value=b"newer", as_of=bench.now)
    assert not bench.keep("a", as_of=bench.now - 5, keep=False)
    assert bench.shelf.value("a") == b"newer"


def test_a_slower_answer_does_not_replace_a_newer_copy(bench: Bench) -> None:
    bench.keep("a", value=b"new", as_of=bench.now)
    assert not bench.keep("a", value=b"old", as_of=bench.now - 5)
    assert bench.shelf.value("a") == b"new"


def test_an_answer_from_the_future_is_not_held(bench: Bench) -> None:
    assert not bench.keep("a", as_of=bench.now + near_module.AHEAD_US + 1)


# values -------------------------------------------------------------------------------------------


class Frozen(msgspec.Struct, frozen=True):
    name: str


class Open(msgspec.Struct):
    name: str


@pytest.mark.parametrize(("kind", "is_one"), [(Frozen, True), (Open, False)])
def test_an_object_is_made_once_where_nobody_can_change_it_and_for_each_reader_elsewhere(
    bench: Bench, kind: type[Any], is_one: bool
) -> None:
    shelf = bench.near.shelf("pages", NearSettings(), Schema(json_of(kind)))
    value = b'{"name":"x"}'
    bench.keep("a", shelf=shelf, value=value)
    first = shelf.value("a")
    assert first == kind("x")
    assert (shelf.value("a") is first) == is_one
    copy = COPY_BYTES + 1 + len(value) + TEXT_BYTES + len(OCTETS)
    assert shelf.statistics().bytes == copy + (bytes_of_object(first) if is_one else 0)


def test_what_this_schema_cannot_read_is_as_good_as_not_held(bench: Bench) -> None:
    shelf = bench.near.shelf("pages", NearSettings(), Schema(json_of(Frozen), 2))
    bench.keep("a", shelf=shelf, value=b"{}")
    assert shelf.value("a") is NOTHING


def test_known_absent_is_held_as_such(bench: Bench) -> None:
    bench.keep("a", outcome="absent", value=b"")
    assert bench.shelf.value("a") is ABSENT


def test_a_copy_tells_its_age_and_the_bound_of_the_near_cache(bench: Bench) -> None:
    bench.keep("a", as_of=bench.now - 5_000_000, ttl=60, tier="l1", age=5, lag=0.3)
    bench.turn(2.0)
    told = bench.shelf.got("a")
    assert told is not None
    assert (told.tier, told.age, told.ttl, told.value) == ("near", 7, 58, b"v")
    assert told.lag == pytest.approx(0.1)
    assert bench.shelf.got("b") is None
    bench.near.down()
    assert bench.shelf.got("a") is None


# windows ------------------------------------------------------------------------------------------


def test_a_paced_fence_ends_each_copy_at_its_own_moment(bench: Bench) -> None:
    keys = [f"k{nth}" for nth in range(64)]
    for key in keys:
        bench.keep(key, tags=("t",))
    at, over = bench.now, 10_000_000
    bench.near.pace(target_digest("pages#t"), at, over)
    moments = {key: at + (target_digest(f"pages/{key}") * over >> 64) for key in keys}
    for _ in range(21):
        assert bench.held(keys) == [key for key in keys if moments[key] > bench.now]
        bench.turn(0.5)
    assert bench.held(keys) == []


def test_a_paced_fence_also_concerns_what_arrives_later_and_is_remembered_when_it_is_over(
    bench: Bench,
) -> None:
    at, over = bench.now, 1_000_000
    bench.near.pace(target_digest("pages"), at, over)
    assert bench.keep("a", as_of=at)
    assert bench.keep("new", as_of=at + 1)
    bench.turn(0.5)
    bench.turn(0.6)
    assert bench.held(["a", "new"]) == ["new"]
    assert not bench.keep("a", as_of=at)
    bench.near.pace(target_digest("other"), bench.now, 1_000_000)
    assert not bench.keep("b", as_of=at)


# the floor ----------------------------------------------------------------------------------------


def test_a_reset_empties_the_shelf(bench: Bench) -> None:
    bench.keep("a")
    bench.near.raise_floor(bench.now)
    assert bench.held(["a"]) == []
    assert bench.shelf.statistics().entries == 0
    assert not bench.keep("a", as_of=bench.now)
    assert bench.keep("a", as_of=bench.now + 1)


def test_an_old_copy_is_kept_once_its_instance_vouches_for_more_than_the_floor(bench: Bench) -> None:
    floor = bench.now + 200_000
    bench.near.raise_floor(floor)
    bench.turn(2.0)
    old = floor - 60_000_000
    assert not bench.keep("a", as_of=old), "the answer does not say"
    assert not bench.keep("a", as_of=old, lag=1.9)
    assert bench.keep("a", as_of=old, lag=0.3)
    bench.fence("pages/a", at=old)
    assert not bench.keep("a", as_of=old, lag=0.3)


# trust --------------------------------------------------------------------------------------------


def test_before_the_first_heartbeat_nothing_is_kept() -> None:
    near = Near(lambda: 5.0, lambda digest, at: None)
    shelf = near.shelf("pages", NearSettings(), Schema(BYTES))
    assert not shelf.keep("a", Got("hit", b"v", ttl=60, as_of=T0), 5.0)
    assert shelf.value("a") is NOTHING


def test_a_silent_feed_is_not_trusted_for_long(bench: Bench) -> None:
    bench.keep("a")
    bench.seconds += 1.49
    assert bench.held(["a"]) == ["a"]
    bench.seconds += 0.02
    assert bench.held(["a"]) == []
    bench.beat()
    assert bench.held(["a"]) == ["a"]


def test_a_feed_that_is_down_is_not_trusted_and_what_was_held_is_good_again_when_it_is_back(
    bench: Bench,
) -> None:
    bench.keep("a")
    bench.near.down()
    assert bench.held(["a"]) == []
    assert not bench.keep("b")
    bench.beat()
    assert bench.held(["a"]) == ["a"]


def test_a_watermark_later_than_max_lag_is_not_trusted(bench: Bench) -> None:
    strict = bench.near.shelf("pages", NearSettings(max_lag="500ms"), Schema(BYTES))
    for shelf in (bench.shelf, strict):
        assert bench.keep("a", shelf=shelf)
    bench.beat(behind=0.6)
    assert bench.shelf.value("a") == b"v"
    assert strict.value("a") is NOTHING
    bench.beat(behind=2.5)
    assert bench.shelf.value("a") is NOTHING


def test_a_process_that_was_stopped_does_not_take_old_heartbeats_for_news(bench: Bench) -> None:
    bench.keep("a")
    bench.seconds += 30.0
    late = bench.us(bench.seconds - 29.5)
    bench.near.heartbeat(late - 100_000, late)
    assert bench.held(["a"]) == []
    bench.beat()
    assert bench.held(["a"]) == ["a"]


def test_a_clock_of_the_service_that_was_set_back_is_believed_in_the_end(bench: Bench) -> None:
    for _ in range(400):
        bench.seconds += 0.5
        now = bench.now - 3_000_000
        bench.near.heartbeat(now - 100_000, now)
    assert bench.shelf.is_trusted


def test_a_forked_child_begins_empty_and_is_not_stopped_by_a_lock_that_was_held(bench: Bench) -> None:
    bench.keep("a")
    bench.fence("pages/b")
    bench.near._lock.acquire()  # by a thread that exists no more
    bench.near.after_fork()
    assert not bench.keep("a")
    bench.beat()
    assert bench.held(["a"]) == []
    assert bench.keep("a")
    assert not bench.keep("b")
    assert bench.shelf.statistics().entries == 1


# bounds -------------------------------------------------------------------------------------------


def test_the_number_of_entries_is_bounded_and_who_was_read_stays() -> None:
    bench = Bench(NearSettings(max_entries=4))
    for key in "abcd":
        bench.keep(key)
    assert bench.held("ac") == ["a", "c"]
    bench.keep("e")
    bench.keep("f")
    assert bench.held("abcdef") == ["a", "c", "e", "f"]
    assert bench.shelf.statistics().evicted == 2


def test_the_bytes_are_bounded_and_a_copy_too_large_is_not_kept() -> None:
    bench = Bench(NearSettings(max_bytes=1 << 16))
    for nth in range(100):
        assert bench.keep(f"k{nth}", value=b"x" * 4000)
        assert bench.shelf.statistics().bytes <= 1 << 16
    assert not bench.keep("large", value=b"x" * (1 << 14))


def test_the_indexes_hold_nothing_that_is_gone() -> None:
    bench = Bench(NearSettings(max_entries=8))
    for nth in range(100):
        bench.keep(f"k{nth % 30}", tags=(f"t{nth % 7}", "all"), as_of=bench.now + nth)
    bench.fence("pages#all", at=bench.now + 1_000)
    statistics = bench.shelf.statistics()
    assert (statistics.entries, statistics.bytes) == (0, 0)
    assert not bench.shelf._by_tag  # a leak would not be seen otherwise
    assert not bench.shelf._by_key


def test_a_shelf_goes_with_its_namespace_object(bench: Bench) -> None:
    other = bench.near.shelf("users", NearSettings(), Schema(BYTES))
    bench.keep("a", shelf=other)
    del other
    gc.collect()
    bench.fence("users/a")
    assert bench.heeded == []


@pytest.mark.parametrize(
    "wrong", [{"max_entries": 0}, {"max_bytes": 10}, {"max_lag": 0}, {"max_lag": "soon"}]
)
def test_impossible_settings_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NearSettings(**wrong)


# the rule, over any history -----------------------------------------------------------------------


def steps() -> st.SearchStrategy[list[tuple[str, str, int]]]:
    keeps = st.tuples(st.just("keep"), st.sampled_from("abc"), st.integers(-50, 0))
    fences = st.tuples(
        st.sampled_from(["hard", "soft"]),
        st.sampled_from(["pages/a", "pages/b", "pages#t", "pages"]),
        st.integers(-50, 0),
    )
    floors = st.tuples(st.just("floor"), st.just(""), st.integers(-50, 0))
    return st.lists(st.one_of(keeps, fences, floors), max_size=40)


@given(steps())
def test_nothing_is_answered_that_a_fence_told_of_refuses(history: list[tuple[str, str, int]]) -> None:
    bench = Bench()
    fences: dict[str, int] = {}
    floor = 0
    for what, target, ago in history:
        at = bench.now + ago
        if what == "keep":
            bench.keep(target, tags=("t",) if target == "c" else (), as_of=at)
        elif what == "floor":
            bench.near.raise_floor(at)
            floor = max(floor, at)
        else:
            bench.fence(target, at=at, soft=what == "soft")
            fences[target] = max(fences.get(target, 0), at)
        for key, copy in copies(bench.shelf):
            targets = [f"pages/{key}", "pages", *(["pages#t"] if key == "c" else [])]
            assert copy > max(floor, *(fences.get(one, 0) for one in targets))


def copies(shelf: Shelf) -> Iterator[tuple[str, int]]:
    for key in "abc":
        if got := shelf.got(key):
            yield key, got.as_of
