"""Invalidations of a transaction are sent after it, and not at all if it raises.

Invalidations that could not be sent are named in an error.
"""

import asyncio

import pytest
from cachesvc_client import Cache, CacheError, NotSentError

from clients.python.tests.fake_service import FakeService


async def test_what_was_noted_is_sent_after_the_block_one_request_a_namespace(
    service: FakeService, cache: Cache
) -> None:
    pages, users = cache.namespace("pages"), cache.namespace("users")
    service.hold("a", b"old")
    async with cache.on_commit() as tx:
        tx.invalidate(pages, ["a"])
        tx.invalidate(users, tags=["t"])
        tx.invalidate(pages, ["b"])
        assert service.saw == []
        assert repr(tx) == "<OnCommit 3 noted, 0 receipts>"
    assert sorted(
        (call.body["namespace"], call.body["keys"], call.body.get("tags", [])) for call in service.saw
    ) == [
        ("pages", ["a", "b"], []),
        ("users", [], ["t"]),
    ]
    assert [receipt.applied for receipt in tx.receipts] == [True, True]
    assert await pages.get("a") is None, "the client reads its own writes"


@pytest.mark.parametrize("error", [KeyError, asyncio.CancelledError])
async def test_nothing_is_sent_if_the_block_raises(
    service: FakeService, cache: Cache, error: type[BaseException]
) -> None:
    async def change() -> None:
        async with cache.on_commit() as tx:
            tx.invalidate(cache.namespace("pages"), ["a"])
            raise error

    with pytest.raises(error):
        await change()
    assert service.saw == []


async def test_an_empty_transaction_sends_nothing(service: FakeService, cache: Cache) -> None:
    async with cache.on_commit():
        pass
    assert service.saw == []


async def test_a_mistake_is_told_inside_the_block_so_that_the_transaction_can_be_rolled_back(
    cache: Cache,
) -> None:
    with pytest.raises(ValueError, match="nothing to invalidate"):
        async with cache.on_commit() as tx:
            tx.invalidate(cache.namespace("pages"))


async def test_what_could_not_be_sent_is_named_and_can_be_sent_again(
    service: FakeService, cache: Cache
) -> None:
    pages, users = cache.namespace("pages"), cache.namespace("users")
    service.problems_of["pages"] = (
        500,
        {"type": "https://cachesvc.dev/problems/internal", "detail": "broken"},
        {},
    )
    tx = cache.on_commit()
    tx.invalidate(users, ["7"])
    tx.invalidate(pages, ["a", "b"])
    with pytest.raises(
        NotSentError, match="1 invalidations were not sent, the first of 'pages': broken"
    ) as caught:
        async with tx:
            pass
    assert isinstance(caught.value, CacheError)
    assert ([one.keys for one in caught.value.unsent], len(caught.value.receipts)) == ([["a", "b"]], 1)
    service.problems_of.clear()
    service.saw.clear()
    await tx.send()
    assert [call.body["keys"] for call in service.saw] == [["a", "b"]], "only what was left"
    assert len(tx.receipts) == 2


async def test_a_caller_that_leaves_while_it_is_sent_does_not_stop_it(service: FakeService) -> None:
    """The transaction has committed by then: the copies are out of date, whether anyone waits."""
    async with Cache.from_url(service.url, default_timeout="5s") as cache:

        async def change() -> None:
            async with cache.on_commit() as tx:
                tx.invalidate(cache.namespace("pages"), ["a"])

        service.gate.clear()
        changing = asyncio.create_task(change())
        await service.arrived.acquire()
        changing.cancel()
        await asyncio.wait([changing])
        assert changing.cancelled()
        service.gate.set()
    assert service.fences, "closing the cache waits for it"


async def test_what_a_torn_transaction_had_not_sent_stays_noted(service: FakeService, cache: Cache) -> None:
    """As when the loop is shut down: it can be sent once more."""
    tx = cache.on_commit()
    tx.invalidate(cache.namespace("pages"), ["a"])
    service.gate.clear()
    sending = asyncio.create_task(tx.send())
    await service.arrived.acquire()
    for task in tuple(cache._tasks.requests):
        task.cancel()
    await asyncio.wait([sending])
    assert repr(tx) == "<OnCommit 1 noted, 0 receipts>"
    service.gate.set()
    await tx.send()
    assert len(tx.receipts) == 1
