"""Invalidations that a transaction could not send are sent again, without the caller."""

import asyncio
import logging
import random
import sqlite3
from typing import Any

import pytest
from cachesvc_client import Cache, CacheError, NotSentError
from cachesvc_client.protocol.wire import Invalidation
from cachesvc_client.requests import unsent
from cachesvc_client.requests.unsent import Unsent

from clients.python.tests.fake_service import FakeService

DOWN: tuple[int, dict[str, Any], dict[str, str]] = (
    503,
    {"type": "https://cachesvc.dev/problems/overloaded", "detail": "down", "retryable": True},
    {},
)
REFUSED: tuple[int, dict[str, Any], dict[str, str]] = (
    404,
    {"type": "https://cachesvc.dev/problems/no-such-namespace", "detail": "none"},
    {},
)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsent, "FIRST_PAUSE", 0.01)


async def changed(cache: Cache, *keys: str) -> NotSentError:
    with pytest.raises(NotSentError) as caught:
        async with cache.on_commit() as tx:
            tx.invalidate(cache.namespace("pages"), list(keys))
    return caught.value


async def until_sent(cache: Cache) -> None:
    task = cache._resending._task
    assert task is not None
    await asyncio.wait([task], timeout=10)
    assert cache.statistics().unsent == 0


async def test_it_is_sent_when_the_cache_is_back(service: FakeService, cache: Cache) -> None:
    service.hold("a", b"old")
    service.problems_of["pages"] = DOWN
    assert (await changed(cache, "a", "b")).is_sent_again
    assert (await changed(cache, "c")).is_sent_again
    assert cache.statistics().unsent == 2
    service.problems_of.clear()
    service.saw.clear()
    await until_sent(cache)
    assert [call.body["keys"] for call in service.saw] == [["a", "b"], ["c"]], "once each, in order"
    assert await cache.namespace("pages").get("a") is None
    assert cache._resending._task is None


async def test_what_is_refused_is_not_sent_again(service: FakeService, cache: Cache) -> None:
    service.problems_of["pages"] = REFUSED
    assert not (await changed(cache, "a")).is_sent_again
    assert cache.statistics().unsent == 0


async def test_what_is_refused_later_is_given_up_and_the_rest_is_sent(
    service: FakeService, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    users, pages = cache.namespace("users"), cache.namespace("pages")
    service.problems_of.update(users=DOWN, pages=DOWN)
    tx = cache.on_commit()
    tx.invalidate(users, ["7"])
    tx.invalidate(pages, ["a"])
    with pytest.raises(NotSentError):
        await tx.send()
    service.problems_of.update(users=REFUSED)
    del service.problems_of["pages"]
    await until_sent(cache)
    assert "an invalidation of 'users' is refused: no-such-namespace" in caplog.text
    assert service.saw[-1].body["keys"] == ["a"]


async def test_a_caller_that_sends_again_takes_it_back(
    service: FakeService, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsent, "FIRST_PAUSE", 5.0)
    service.problems_of["pages"] = DOWN
    tx = cache.on_commit()
    tx.invalidate(cache.namespace("pages"), ["a"])
    with pytest.raises(NotSentError):
        await tx.send()
    assert cache.statistics().unsent == 1
    service.problems_of.clear()
    await tx.send()
    assert cache.statistics().unsent == 0
    assert len(tx.receipts) == 1


async def test_closing_tries_once_more_and_says_what_is_left(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(unsent, "FIRST_PAUSE", 5.0)
    service.problems_of["pages"] = DOWN
    cache = Cache.from_url(service.url)
    async with cache:
        await changed(cache, "a")
    assert "the cache closes, and 1 invalidations could not be sent" in caplog.text
    service.problems_of.clear()
    async with cache:  # opened again, it goes on
        assert cache.statistics().unsent == 1
    assert cache.statistics().unsent == 0
    assert service.saw[-1].body["keys"] == ["a"]


async def test_an_outbox_outlives_the_process(service: FakeService) -> None:
    """The documents are written in the transaction, and sent by whoever finds them."""
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE outbox (id INTEGER PRIMARY KEY, document TEXT)")
    service.problems_of["pages"] = DOWN
    async with Cache.from_url(service.url) as cache:
        tx = cache.on_commit()
        with db:
            tx.invalidate(cache.namespace("pages"), ["a"], tags=["t"], soft=True)
            db.executemany("INSERT INTO outbox (document) VALUES (?)", [(one,) for one in tx.noted()])
        with pytest.raises(NotSentError):
            await tx.send()
    service.problems_of.clear()
    async with Cache.from_url(service.url) as another:
        for id_, document in db.execute("SELECT id, document FROM outbox").fetchall():
            assert (await another.send(document)).applied
            db.execute("DELETE FROM outbox WHERE id = ?", [id_])
    body = service.saw[-1].body
    assert (body["namespace"], body["keys"], body["tags"], body["soft"]) == ("pages", ["a"], ["t"], True)


@pytest.mark.parametrize(
    "document", ["", "{}", "[]", '{"namespace": "a/b", "keys": ["a"]}', 5, '{"namespace":"a","keys":[]}']
)
async def test_a_document_that_is_none_is_refused(cache: Cache, document: Any) -> None:
    with pytest.raises(ValueError, match=r"document|namespace|nothing to invalidate"):
        await cache.send(document)


def test_it_is_given_up_after_an_hour_and_the_room_is_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(unsent, "MOST_KEPT", 2)
    now = [0.0]
    kept_ones = Unsent(lambda: now[0], random.Random(1))
    failure = CacheError("deadline", "no answer", retryable=True)
    first = kept_ones.keep(Invalidation("pages", ["a"]), print)
    assert first is not None
    assert kept_ones.keep(Invalidation("pages", ["b"]), print) is not None
    assert kept_ones.keep(Invalidation("pages", ["c"]), print) is None
    assert not kept_ones.failed(first, failure)
    pauses = []
    for _ in range(20):
        pauses.append(kept_ones.pause())
        kept_ones.failed(first, failure)
    assert max(pauses) <= unsent.LONGEST_PAUSE
    assert pauses[0] < 0.05
    now[0] = unsent.KEPT_SECONDS
    with caplog.at_level(logging.ERROR):
        assert kept_ones.failed(first, failure)
    assert "is given up" in caplog.text
    assert len(kept_ones) == 1
