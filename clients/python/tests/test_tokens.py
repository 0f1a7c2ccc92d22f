"""A client reads another client's write if it is handed the token."""

import asyncio

import msgspec
import pytest
from cachesvc_client import Cache, CacheError
from cachesvc_client.requests.http import Reply
from cachesvc_client.requests.namespace_requests import NamespaceRequests
from cachesvc_client.requests.own_writes import (
    MAX_HANDED,
    MAX_PAIRS,
    OwnWrites,
    key_digest,
    pairs_of,
    token_of,
)

from clients.python.tests.fake_service import FakeService


async def test_a_token_handed_over_shows_the_write_to_another_client(
    service: FakeService, cache: Cache
) -> None:
    service.hold("a", b"old")
    service.hold("tagged", b"old", tags=["t"])
    async with Cache.from_url(service.url) as other:
        pages = other.namespace("pages")
        await cache.namespace("pages").invalidate(["a"], tags=["t"])
        assert await pages.get_many(["a", "tagged"]) == {"a": b"old", "tagged": b"old"}
        with other.with_token(cache.token()):
            assert await pages.get("a") is None
            assert await pages.get_many(["a", "tagged"]) == {}
        assert await pages.get("a") == b"old", "only in the block"


async def test_a_receipts_token_is_one_as_well_and_an_empty_one_asks_for_nothing(
    service: FakeService, cache: Cache
) -> None:
    service.hold("a", b"old")
    receipt = await cache.namespace("pages").invalidate(["a"])
    async with Cache.from_url(service.url) as other:
        assert other.token() == ""
        with other.with_token(""):
            assert await other.namespace("pages").get("a") == b"old"
        with other.with_token(receipt.token):
            assert await other.namespace("pages").get("a") is None


async def test_callers_with_and_without_tokens_share_a_request_and_get_their_own_answers(
    service: FakeService, cache: Cache
) -> None:
    """A caller without a token may be answered with less than it could, never with more."""
    pages = cache.namespace("pages")
    service.hold("a", b"old")
    service.hold("b", b"new")

    async def under(token: str, key: str) -> bytes | None:
        with cache.with_token(token):
            return await pages.get(key)

    token_a = token_of([(key_digest("pages", "a"), 9_000_000)])
    token_b = token_of([(key_digest("pages", "b"), 1)])
    assert tuple(await asyncio.gather(under(token_a, "a"), under(token_b, "b"), pages.get("b"))) == (
        None,
        b"new",
        b"new",
    )
    (call,) = service.calls(":get")
    assert sorted(pairs_of(call.body["token"])) == sorted(pairs_of(token_a) + pairs_of(token_b))


async def test_a_load_from_before_is_not_joined_under_a_token(service: FakeService, cache: Cache) -> None:
    pages = cache.namespace("pages")
    gate, entered = asyncio.Event(), asyncio.Semaphore(0)
    truth = b"before"

    async def load(key: str) -> bytes:
        value = truth
        entered.release()
        await gate.wait()
        return value

    early = asyncio.create_task(pages.get_or_load("a", load))
    await entered.acquire()
    truth = b"after"
    service.fence("a")
    with cache.with_token(token_of([(key_digest("pages", "a"), 1_500_000)])):
        late = asyncio.create_task(pages.get_or_load("a", load))
    await entered.acquire()
    gate.set()
    assert (await early, await late) == (b"before", b"after")


async def test_blocks_add_up_and_tasks_started_inside_inherit_them(
    service: FakeService, cache: Cache
) -> None:
    pages = cache.namespace("pages")
    one, two = token_of([(1, 5), (2, 5)]), token_of([(2, 7)])
    with cache.with_token(one), cache.with_token(two):
        await asyncio.create_task(pages.get("a"))
    assert pairs_of(service.saw[-1].body["token"]) == [(1, 5), (2, 7)]


async def test_tokens_that_exceed_one_request_are_spread_over_several(
    service: FakeService, cache: Cache
) -> None:
    pages = cache.namespace("pages")

    async def under(nth: int) -> None:
        with cache.with_token(token_of((nth * 1000 + i, 1) for i in range(200))):
            assert await pages.get(f"k{nth}", b"none") == b"v"

    for nth in range(5):
        service.hold(f"k{nth}", b"v")
    await asyncio.gather(*(under(nth) for nth in range(5)))
    sent = [len(pairs_of(call.body["token"])) for call in service.calls(":get")]
    assert len(sent) == 5
    assert max(sent) <= MAX_PAIRS


@pytest.mark.parametrize("token", ["abc", "!!!!"])
async def test_what_is_no_token_is_refused(cache: Cache, token: str) -> None:
    with pytest.raises(ValueError, match="is no token"), cache.with_token(token):
        pass


async def test_a_token_too_large_for_a_read_is_refused_by_name(cache: Cache) -> None:
    token = token_of((i, 1) for i in range(MAX_HANDED + 1))
    with pytest.raises(ValueError, match="invalidate with wait='region' instead"), cache.with_token(token):
        pass


def test_a_token_has_the_newest_writes_of_all_namespaces() -> None:
    own = OwnWrites(lambda: 0.0)
    own.learn(
        "pages",
        token_of((key_digest("pages", f"k{i}"), i + 1) for i in range(300)),
        [f"k{i}" for i in range(300)],
    )
    own.learn("users", token_of([(7, 1000)]), [])
    pairs = pairs_of(own.token())
    assert len(pairs) == MAX_HANDED
    assert pairs[0] == (7, 1000)
    assert min(at for _, at in pairs) == 300 - MAX_HANDED + 2


@pytest.mark.parametrize("kept_in", ["header", "body"])
def test_the_token_of_a_receipt_is_found_in_the_header_or_in_the_body(kept_in: str) -> None:
    own = OwnWrites(lambda: 0.0)
    requests = NamespaceRequests("pages", own)
    token = token_of([(key_digest("pages", "a"), 7)])
    document = {
        "id": "r:1-1",
        "token": token,
        "applied": True,
        "position": "1-1",
        "wait": "none",
        "reached": True,
    }
    headers = {"Cachesvc-Token": token} if kept_in == "header" else {}
    requests.receipt(Reply(200, headers, msgspec.json.encode(document)), ["a"])
    assert own.token_for("pages", ["a"]) == token


def test_a_problem_without_a_header_has_its_token_in_the_body() -> None:
    own = OwnWrites(lambda: 0.0)
    token = token_of([(key_digest("pages", "a"), 7)])
    problem = {"type": "https://cachesvc.dev/problems/fence-not-published", "status": 503, "token": token}
    with pytest.raises(CacheError):
        NamespaceRequests("pages", own).receipt(Reply(503, {}, msgspec.json.encode(problem)), ["a"])
    assert own.token_for("pages", ["a"]) == token
