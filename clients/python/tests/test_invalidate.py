"""Invalidations: how they are asked for, what their receipts say, at once and later."""

import pytest
from cachesvc_client import Cache, CacheError, Receipt, ReceiptState

from clients.python.tests.fake_service import FakeService


async def test_what_is_asked_is_what_is_sent(service: FakeService, cache: Cache) -> None:
    pages = cache.namespace("pages")
    await pages.invalidate(["a"], tags=["t"])
    await pages.invalidate(all=True, confirm="pages", over="5m", wait="global")
    await pages.invalidate(["a"], soft=True, over=1.5)
    assert [call.body for call in service.calls("/v1/invalidations")] == [
        {"namespace": "pages", "keys": ["a"], "tags": ["t"]},
        {"namespace": "pages", "keys": [], "all": True, "confirm": "pages", "over": "5m", "wait": "global"},
        {"namespace": "pages", "keys": ["a"], "soft": True, "over": "1500ms"},
    ]


async def test_a_receipt_says_that_everybody_is_there(cache: Cache) -> None:
    receipt = await cache.namespace("pages").invalidate(["a"], wait="region")
    at = receipt.id.removeprefix("eu:").removesuffix("-0")
    assert receipt == Receipt(f"eu:{at}-0", receipt.token, applied=True, position=f"{at}-1")
    assert receipt.reached


async def test_a_receipt_says_who_was_missing_at_the_deadline(service: FakeService, cache: Cache) -> None:
    service.missing = ["eu/b", "us/a"]
    receipt = await cache.namespace("pages").invalidate(["a"], wait="global")
    assert (receipt.applied, receipt.reached, receipt.missing) == (True, False, ("eu/b", "us/a"))


async def test_a_write_that_did_not_get_everywhere_in_time_is_read_all_the_same(
    service: FakeService, cache: Cache
) -> None:
    """The token of the write goes with the reads of this client."""
    service.hold("a", b"old")
    service.missing = ["eu/b"]
    pages = cache.namespace("pages")
    await pages.invalidate(["a"], wait="region")
    assert await pages.get("a") is None


async def test_how_far_it_has_got_is_asked_for_later(service: FakeService, cache: Cache) -> None:
    service.receipts["eu:1-0"] = {
        "id": "eu:1-0",
        "state": "parked",
        "position": "1-1",
        "missed": ["c2"],
        "merged": ["eu/a"],
    }
    assert await cache.receipt("eu:1-0") == ReceiptState(
        "eu:1-0", "parked", "1-1", missed=("c2",), merged=("eu/a",)
    )
    with pytest.raises(CacheError) as caught:
        await cache.receipt("eu:2-0")
    assert (caught.value.type, caught.value.status) == ("no-such-receipt", 404)


async def test_the_audit_is_told_who_it_was(service: FakeService) -> None:
    async with Cache.from_url(service.url, caller="checkout (web-7)") as cache:
        pages = cache.namespace("pages")
        await pages.invalidate(["a"])
        await pages.delete("a")
        await pages.get("a")
    assert [call.headers.get("Cachesvc-Caller") for call in service.saw] == [
        "checkout (web-7)",
        "checkout (web-7)",
        None,
    ]


async def test_a_client_without_a_name_says_none(service: FakeService, cache: Cache) -> None:
    await cache.namespace("pages").invalidate(["a"])
    assert "Cachesvc-Caller" not in service.saw[0].headers


async def test_what_is_kept_until_the_queue_is_back_is_told(service: FakeService, cache: Cache) -> None:
    """The write counts for this client, and its receipt can be asked for later."""
    service.hold("a", b"old")
    service.unannounced = "eu:1-2"
    pages = cache.namespace("pages")
    receipt = await pages.invalidate(["a"])
    assert (receipt.id, receipt.announced, receipt.reached) == ("eu:1-2", False, False)
    assert await pages.get("a") is None
    service.hold("b", b"1")
    assert await pages.touch("b", ttl="5m")
