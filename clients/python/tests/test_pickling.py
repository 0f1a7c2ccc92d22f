"""Everything that the SDK raises and returns can be pickled and copied."""

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cachesvc_client
import pytest
from cachesvc_client import (
    ABSENT,
    BYTES,
    JSON,
    LAPTOP,
    MSGPACK,
    Cache,
    CacheError,
    CodecError,
    ForbiddenError,
    Hit,
    LoadContext,
    Miss,
    NearSettings,
    NotSentError,
    PartialError,
    Profile,
    Receipt,
    ReceiptState,
    Retries,
    Tls,
    UnauthenticatedError,
    Unavailable,
    json_of,
    msgpack_of,
)
from cachesvc_client.protocol.wire import Invalidation
from cachesvc_client.sync import Cache as SyncCache
from cachesvc_client.sync.flight import GaveUpError
from cachesvc_client.values.lifetimes import Lifetimes

FAILURE = CacheError(
    "overloaded", "later", status=503, retryable=True, retry_after=2.0, request_id="r-1", field="$.keys"
)


@dataclass
class Page:
    title: str


def errors() -> list[CacheError]:
    receipt = Receipt("eu:1-0", "AAA", applied=True)
    asked = Invalidation("pages", ["a"], ("t",))
    raised = CacheError("deadline", "no answer")
    raised.add_note("seen by a worker")
    forbidden = ForbiddenError("missing-scope", "checkout has not the scope read:pages", status=403)
    forbidden.scope, forbidden.identity = "read:pages", "checkout"
    return [
        forbidden,
        UnauthenticatedError("unknown-identity", "no caller has this token", status=401),
        FAILURE,
        raised,
        CacheError("closed"),
        PartialError({"a": FAILURE}, {"b": b"1"}),
        NotSentError([(asked, FAILURE)], [receipt]),
        GaveUpError("deadline", "too late", retryable=True),
    ]


WAYS: list[Callable[[Any], Any]] = [lambda one: pickle.loads(pickle.dumps(one)), copy.copy, copy.deepcopy]  # noqa: S301  ours


def told(error: Any) -> Any:
    """Everything that an error tells, comparable."""
    if isinstance(error, BaseException):
        return type(error), str(error), error.args, told(vars(error))
    if isinstance(error, dict):
        return {name: told(value) for name, value in error.items()}
    return [told(value) for value in error] if isinstance(error, list) else error


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", errors(), ids=lambda error: type(error).__name__)
def test_errors(way: Callable[[Any], Any], error: CacheError) -> None:
    again = way(error)
    assert again is not error
    assert told(again) == told(error)
    assert again.is_outage == error.is_outage


@pytest.mark.parametrize("way", WAYS)
def test_answers_settings_and_codecs(way: Callable[[Any], Any]) -> None:
    cache = Cache.from_url("http://a")
    shelf = cache.namespace("a", near=NearSettings()).near
    assert shelf is not None
    for one in (
        Hit(b"1", "l1", 1, 2, False, 0.1, '"e"'),
        Miss("absent"),
        Receipt("eu:1-0", "AAA", applied=False, missing=("eu/a",)),
        ReceiptState("eu:1-0", "done"),
        LAPTOP,
        Retries(),
        NearSettings(max_lag="1s"),
        Tls(ca="authorities.pem"),
        cache.statistics(),
        cache.feed.statistics(),
        shelf.statistics(),
    ):
        assert way(one) == one
    assert way(ABSENT) is ABSENT
    assert told(way(Unavailable(FAILURE)).error) == told(FAILURE)
    assert str(way(CodecError("$.a: no"))) == "$.a: no"
    for codec in (JSON, MSGPACK, json_of(Page), msgpack_of(Page), BYTES):
        again = way(codec)
        value: Any = b"1" if codec is BYTES else Page("x") if "Page" in repr(vars(codec)) else {"a": 1}
        assert again.decode(again.encode(value)) == value
    context = way(LoadContext("a", Lifetimes(ttl=5.0), 7.0, float))
    assert (context.key, context.lifetimes.ttl, context.deadline) == ("a", 5.0, 7.0)


cache = SyncCache.from_url("http://127.0.0.1:1")
pages = cache.namespace("pages", codec=JSON)


@pages.cached("double:{number}")
def double(number: int) -> int:
    return 2 * number


class Prices:
    def __init__(self, tenant: str) -> None:
        self.tenant = tenant

    @pages.cached("price:{self.tenant}:{number}")
    def of(self, number: int) -> str:
        return f"{self.tenant}{number}"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_cached_function_goes_to_a_worker_by_its_name(method: str) -> None:
    with multiprocessing.get_context(method).Pool(1) as workers:
        assert workers.map(double, [1, 2]) == [2, 4]
        assert workers.map(Prices("x").of, [1]) == ["x1"]
        with pytest.raises(CacheError, match="unreachable"):
            workers.map(pages.get, ["a"]) if method == "never" else workers.apply(asked, ())


def asked() -> object:
    return pages.get("a")


@pytest.mark.parametrize("flavour", [Cache, SyncCache])
def test_clients_are_shared_by_copies_and_say_that_they_cannot_be_pickled(flavour: Any) -> None:
    client = flavour.from_url("http://a")
    namespace = client.namespace("a")
    for one, what in ((client, "a Cache is of one process"), (namespace, "a Namespace is of one process")):
        assert copy.copy(one) is one
        assert copy.deepcopy({"held": one})["held"] is one
        with pytest.raises(TypeError, match=what):
            pickle.dumps(one)


def test_every_public_class_of_the_package_is_tried_here() -> None:
    tried = {type(error).__name__ for error in errors()}
    tried |= {"Hit", "Miss", "Unavailable", "Receipt", "ReceiptState", "Retries", "NearSettings", "Profile"}
    tried |= {"Statistics", "NearStatistics", "FeedStatistics", "CodecError", "LoadContext", "CachedFunction"}
    tried |= {"Cache", "Namespace", "OnCommit", "Codec", "Absent", "Lookup", "Loader", "Tls"}
    classes = {name for name in cachesvc_client.__all__ if isinstance(getattr(cachesvc_client, name), type)}
    assert classes <= tried
    assert isinstance(LAPTOP, Profile)
