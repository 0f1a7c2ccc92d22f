"""Each call of the sync flavour gets there and back.

The meaning of the calls is tested with the async flavour, which sends the same bytes.
"""

from collections.abc import Callable

import pytest
from cachesvc_client import (
    JSON,
    CacheError,
    Hit,
    LoadContext,
    Miss,
    NotSentError,
    PartialError,
    Receipt,
    ReceiptState,
    Unavailable,
)
from cachesvc_client.sync import Cache, Namespace
from cachesvc_client.values.lookups import etag_of

from clients.python.tests.sync.threaded_service import ThreadedService

UNAVAILABLE = {"type": "https://cachesvc.dev/problems/home-unavailable", "status": 503}
BAD_KEY = {"type": "https://cachesvc.dev/problems/value-too-large", "status": 413}


@pytest.fixture
def pages(sync_cache: Cache) -> Namespace[bytes]:
    return sync_cache.namespace("pages")


def test_a_lookup_says_what_is_known(threaded: ThreadedService, pages: Namespace[bytes]) -> None:
    threaded.fake.hold("a", b"1")
    threaded.fake.hold("gone", b"", absent=True)
    found = pages.lookup("a")
    assert isinstance(found, Hit)
    assert (found.value, found.tier, found.stale, found.lag) == (b"1", "l1", False, 0.1)
    assert found.etag == etag_of(b"1", "application/octet-stream")
    assert (pages.lookup("b"), pages.lookup("gone")) == (Miss(), Miss("absent"))
    threaded.fake.problem = (503, UNAVAILABLE, {})
    unavailable = pages.lookup("a")
    assert isinstance(unavailable, Unavailable)
    assert unavailable.error.type == "home-unavailable"


def test_keys_for_which_an_answer_had_no_room_are_asked_for_again(
    threaded: ThreadedService, pages: Namespace[bytes]
) -> None:
    keys = [f"k{i}" for i in range(50)]
    for key in keys:
        threaded.fake.hold(key, key.encode())
    threaded.fake.room = 20
    assert pages.get_many(keys) == {key: key.encode() for key in keys}
    assert [len(request.body["keys"]) for request in threaded.fake.calls(":get")] == [50, 30, 10]


def test_many_are_told_apart(threaded: ThreadedService, pages: Namespace[bytes]) -> None:
    threaded.fake.key_problems["bad"] = BAD_KEY
    with pytest.raises(PartialError) as unset:
        pages.set_many({"a": b"1", "bad": b"2"})
    with pytest.raises(PartialError) as unread:
        pages.get_many(["a", "b", "bad"])
    assert (list(unset.value.failed), list(unread.value.failed), unread.value.found) == (
        ["bad"],
        ["bad"],
        {"a": b"1"},
    )


def test_an_outage_fails_all_keys_of_a_call_for_many(
    threaded: ThreadedService, pages: Namespace[bytes]
) -> None:
    threaded.fake.problem = (503, UNAVAILABLE, {})
    with pytest.raises(PartialError) as caught:
        pages.get_many(["a", "b"])
    assert {key: error.type for key, error in caught.value.failed.items()} == dict.fromkeys(
        "ab", "home-unavailable"
    )


def test_a_thousand_keys_go_in_requests_of_a_bounded_size(
    threaded: ThreadedService, pages: Namespace[bytes]
) -> None:
    values = {f"k{i}": b"1" for i in range(1000)}
    pages.set_many(values)
    assert pages.get_many(values) == values
    assert [len(call.body["keys"]) for call in threaded.fake.calls(":get")] == [256, 256, 256, 232]


def test_a_touch_stores_the_read_value_once_more(threaded: ThreadedService, pages: Namespace[bytes]) -> None:
    threaded.fake.hold("a", b"1")
    assert pages.touch("a", ttl="5m")
    assert not pages.touch("b")
    assert threaded.fake.held["a"].value == b"1"


def test_without_batching_every_get_is_a_request_of_its_own(threaded: ThreadedService) -> None:
    threaded.fake.hold("a/b ü", b"1")
    with Cache.from_url(threaded.url, batching=False) as cache:
        pages = cache.namespace("pages")
        assert (pages.get("a/b ü"), pages.get("missing")) == (b"1", None)
        pages.set("c", b"2")
        assert pages.get_or_load("c", lambda _key: b"") == b"2"
    assert [(call.method, call.path) for call in threaded.fake.saw] == [
        ("GET", "/v1/pages/a%2Fb%20%C3%BC"),
        ("GET", "/v1/pages/missing"),
        ("POST", "/v1/pages:put"),
        ("POST", "/v1/pages:get"),
    ]


def test_an_own_write_is_seen_on_an_instance_that_has_not_heard_of_it(
    threaded: ThreadedService, pages: Namespace[bytes]
) -> None:
    """The fake only announces an invalidation: its copies stay."""
    ways: list[Callable[[], Receipt]] = [
        lambda: pages.delete("a"),
        lambda: pages.invalidate(["a"]),
        lambda: pages.invalidate(tags=["t"]),
        lambda: pages.invalidate(all=True, confirm="pages"),
    ]
    for invalidate in ways:
        threaded.fake.hold("a", b"old", tags=["t"])
        assert pages.get("a") == b"old"
        assert invalidate().applied
        assert threaded.fake.held["a"].value == b"old"
        assert pages.get("a") is None


def test_a_token_handed_over_is_honoured_within_its_block(
    threaded: ThreadedService, pages: Namespace[bytes]
) -> None:
    threaded.fake.hold("a", b"old")
    with Cache.from_url(threaded.url) as writer:
        assert writer.token() == ""
        writer.namespace("pages").delete("a")
        token = writer.token()
    with Cache.from_url(threaded.url) as reader:
        theirs = reader.namespace("pages")
        with reader.with_token(token):
            assert theirs.get("a") is None
            assert theirs.get_many(["a"]) == {}
            assert theirs.get_or_load("a", lambda _key: b"new") == b"new"
    assert pages.get("a") == b"new"


def test_a_receipt_is_asked_for_later(threaded: ThreadedService, sync_cache: Cache) -> None:
    threaded.fake.receipts["eu:1-0"] = {"id": "eu:1-0", "state": "done", "position": "1-1"}
    assert sync_cache.receipt("eu:1-0") == ReceiptState("eu:1-0", "done", "1-1")
    with pytest.raises(CacheError, match="no-such-receipt"):
        sync_cache.receipt("eu:2-0")


def test_a_transaction_sends_when_it_ends_and_nothing_if_it_raises(
    threaded: ThreadedService, sync_cache: Cache, pages: Namespace[bytes]
) -> None:
    def fail() -> None:
        with sync_cache.on_commit() as tx:
            tx.invalidate(pages, ["a"])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert threaded.fake.saw == []
    with sync_cache.on_commit() as tx:
        tx.invalidate(pages, ["a"])
        tx.invalidate(pages, ["b"], tags=["t"])
        assert threaded.fake.saw == []
    assert [call.body for call in threaded.fake.saw] == [
        {"namespace": "pages", "keys": ["a", "b"], "tags": ["t"]}
    ]
    assert len(tx.receipts) == 1


def test_what_a_transaction_could_not_send_is_sent_again(
    threaded: ThreadedService, sync_cache: Cache, pages: Namespace[bytes]
) -> None:
    threaded.fake.problem = (503, UNAVAILABLE, {})
    tx = sync_cache.on_commit()
    with pytest.raises(NotSentError) as caught, tx:
        tx.invalidate(pages, ["a"])
    assert [asked.keys for asked in caught.value.unsent] == [["a"]]
    threaded.fake.problem = None
    tx.send()
    assert len(tx.receipts) == 1
    tx.send()
    assert len(tx.receipts) == 1, "it is sent once"


def test_a_cached_function_is_answered_from_the_cache(threaded: ThreadedService, sync_cache: Cache) -> None:
    users = sync_cache.namespace("users", type=dict[str, int])
    ran: list[int] = []

    @users.cached("profile:{user_id}", ttl="5m", tags=["user:{user_id}"])
    def profile(user_id: int, ctx: LoadContext | None = None) -> dict[str, int] | None:
        assert ctx is not None
        ran.append(user_id)
        return {"id": user_id} if user_id else None

    assert [profile(7), profile(user_id=7), profile(0), profile(0)] == [{"id": 7}, {"id": 7}, None, None]
    assert ran == [7, 0]
    assert threaded.fake.held["profile:7"].tags == ["user:7"]
    profile.invalidate(7)
    assert profile(7) == {"id": 7}
    assert profile.refresh(7) == {"id": 7}
    assert ran == [7, 0, 7, 7]


def test_a_cached_method_is_that_of_its_object(sync_cache: Cache) -> None:
    class Users:
        def __init__(self, prefix: str) -> None:
            self.prefix = prefix

        @sync_cache.namespace("users", type=str).cached("name:{self.prefix}:{user_id}")
        def name(self, user_id: int) -> str:
            return f"{self.prefix}{user_id}"

    assert [Users("u").name(1), Users("v").name(1), Users("u").name(1)] == ["u1", "v1", "u1"]


def test_mistakes_are_told_by_name_before_anything_is_sent(
    threaded: ThreadedService, sync_cache: Cache
) -> None:
    pages = sync_cache.namespace("pages")
    with pytest.raises(ValueError, match="key"):
        pages.get("a\nb")
    with pytest.raises(ValueError, match="keys: a list"):
        pages.invalidate("abc")
    with pytest.raises(ValueError, match="timeout"):
        pages.get("a", timeout="soon")
    with pytest.raises(TypeError, match="a value here is bytes, not str"):
        pages.set("a", "text")  # type: ignore[arg-type]  # the mistake in question
    with pytest.raises(ValueError, match="give one of them"):
        sync_cache.namespace("a", codec=JSON, type=int)  # type: ignore[call-overload]  # the mistake in question
    with pytest.raises(ValueError, match="is no base URL"):
        Cache.from_url("redis://h")
    assert threaded.fake.saw == []


def test_what_a_torn_transaction_had_not_sent_stays_noted(
    threaded: ThreadedService, sync_cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by `gevent.Timeout`: what was sent has its receipt, and the rest can be sent once more."""
    pages, users = sync_cache.namespace("pages"), sync_cache.namespace("users")
    tx = sync_cache.on_commit()
    tx.invalidate(pages, ["a"])
    tx.invalidate(users, ["7"])
    with monkeypatch.context() as torn:
        torn.setattr(users, "send_also_at_close", _torn)
        with pytest.raises(KeyboardInterrupt):
            tx.send()
    assert repr(tx) == "<OnCommit 1 noted, 1 receipts>"
    tx.send()
    assert [call.body["keys"] for call in threaded.fake.saw] == [["a"], ["7"]]


def _torn(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_only_instance_is_asked_without_a_digest_of_the_key(
    threaded: ThreadedService, pages: Namespace[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    threaded.fake.hold("a", b"1")
    monkeypatch.setattr("cachesvc_client.requests.namespace_requests.key_digest", _torn)
    assert pages.get("a") == b"1"
    assert pages.get_many(["a", "b"]) == {"a": b"1"}
