"""`lookup` says what is known of a value, and `touch` lets it live anew."""

import pytest
from cachesvc_client import JSON, Cache, CacheError, Hit, Miss, Unavailable
from cachesvc_client.values.lookups import etag_of

from clients.python.tests.fake_service import FakeService


async def test_a_hit_says_what_is_known_of_it(service: FakeService, cache: Cache) -> None:
    service.hold("a", b"1", content_type="application/json")
    found = await cache.namespace("pages", codec=JSON).lookup("a")
    assert found == Hit(
        1, tier="l1", age=3, ttl=42, stale=False, lag=0.1, etag=etag_of(b"1", "application/json")
    )


async def test_a_stale_value_says_so(service: FakeService, cache: Cache) -> None:
    service.hold("a", b"1", stale=True)
    match await cache.namespace("pages").lookup("a"):
        case Hit(value=b"1", stale=True, ttl=-1):
            pass
        case other:
            raise AssertionError(other)


async def test_a_miss_says_why(service: FakeService, cache: Cache) -> None:
    service.hold("absent", b"", absent=True)
    service.hold("other", b"not json")
    pages = cache.namespace("pages", codec=JSON)
    assert [await pages.lookup(key) for key in ("missing", "absent", "other")] == [
        Miss("miss"),
        Miss("absent"),
        Miss("unreadable"),
    ]


async def test_a_cache_that_cannot_be_asked_is_an_answer_and_a_refusal_is_not(
    service: FakeService, cache: Cache
) -> None:
    pages = cache.namespace("pages")
    service.problem = (503, {"type": "https://cachesvc.dev/problems/overloaded", "retryable": False}, {})
    match await pages.lookup("a"):
        case Unavailable(error):
            assert (error.type, error.status) == ("overloaded", 503)
        case other:
            raise AssertionError(other)
    service.problem = None
    service.gate.clear()
    assert isinstance(await pages.lookup("a", timeout="20ms"), Unavailable)
    service.gate.set()
    service.problem = (404, {"type": "https://cachesvc.dev/problems/no-such-namespace"}, {})
    with pytest.raises(CacheError, match="no-such-namespace"):
        await pages.lookup("a")


async def test_a_lookup_knows_as_much_where_every_get_is_a_request(service: FakeService) -> None:
    service.hold("a", b"1")
    async with Cache.from_url(service.url, batching=False) as cache:
        assert isinstance(await cache.namespace("pages").lookup("a"), Hit)


async def test_a_touch_stores_the_same_value_once_more_if_it_is_still_the_stored_one(
    service: FakeService, cache: Cache
) -> None:
    service.hold("a b", b"1", content_type="application/json; v=2", tags=["t", "u"])
    pages = cache.namespace("pages")
    assert await pages.touch("a b", ttl="5m", stale=1.5)
    put = service.saw[-1]
    assert (put.method, put.path) == ("PUT", "/v1/pages/a%20b")
    assert {
        name: put.headers[name] for name in ("Content-Type", "If-Match", "Cache-Control", "Cache-Groups")
    } == {
        "Content-Type": "application/json; v=2",
        "If-Match": etag_of(b"1", "application/json; v=2"),
        "Cache-Control": "max-age=300, stale-while-revalidate=2",
        "Cache-Groups": '"t", "u"',
    }
    held = service.held["a b"]
    assert (held.value, held.content_type, held.tags) == (b"1", "application/json; v=2", ["t", "u"])
    await pages.get("a b")
    assert "token" in service.saw[-1].body, "a touch is a write, and its client reads what it wrote"


async def test_a_touch_leaves_the_lifetimes_it_was_not_told_to_the_namespace(
    service: FakeService, cache: Cache
) -> None:
    service.hold("a", b"1")
    assert await cache.namespace("pages").touch("a")
    assert "Cache-Control" not in service.saw[-1].headers


@pytest.mark.parametrize("held", [None, {"stale": True}, {"absent": True}])
async def test_there_is_nothing_to_touch_where_nothing_fresh_is(
    service: FakeService, cache: Cache, held: dict[str, bool] | None
) -> None:
    if held is not None:
        service.hold("a", b"1", **held)
    assert not await cache.namespace("pages").touch("a")
    assert [request.method for request in service.saw] == ["POST"]


async def test_a_touch_does_not_bring_back_what_was_changed_in_between(
    service: FakeService, cache: Cache
) -> None:
    service.hold("a", b"1")
    await cache.namespace("pages").get("a")
    service.changes_before_puts = lambda: service.hold("a", b"2")
    assert not await cache.namespace("pages").touch("a")
    assert service.held["a"].value == b"2"
