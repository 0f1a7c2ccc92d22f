"""Reads honour this client's own writes, on an instance that has not merged their fences."""

import asyncio
from typing import Any

import pytest
from cachesvc_client import Cache
from cachesvc_client.requests.own_writes import (
    KEPT_SECONDS,
    MAX_WIDE,
    OwnWrites,
    key_digest,
    pairs_of,
    token_of,
)

from clients.python.tests.fake_service import FakeService, digest


class ManualSeconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("keys", "tags", "whole"), [(["a"], [], False), ([], ["t"], False), ([], [], True)])
async def test_an_invalidated_copy_is_not_read_again(
    service: FakeService, cache: Cache, keys: list[str], tags: list[str], whole: bool
) -> None:
    service.hold("a", b"old", tags=["t"])
    pages = cache.namespace("pages")
    assert await pages.get("a") == b"old"
    receipt = await pages.invalidate(keys, tags=tags, all=whole, confirm="pages")
    assert receipt.applied
    assert service.held["a"].value == b"old"
    assert await pages.get("a") is None
    await pages.set("a", b"new")
    assert await pages.get("a") == b"new"


async def test_a_deleted_key_is_not_read_again_by_either_kind_of_request(service: FakeService) -> None:
    for batching in (True, False):
        service.hold("a:explain", b"old")
        async with Cache.from_url(service.url, batching=batching) as cache:
            pages = cache.namespace("pages")
            await pages.delete("a:explain")
            assert service.saw[-1].path == "/v1/pages/a%3Aexplain"
            assert await pages.get("a:explain") is None


@pytest.mark.parametrize("lenience", [{"soft": True}, {"over": "5m"}, {"soft": True, "over": 300}])
async def test_a_soft_or_paced_invalidation_lets_stale_copies_be_read(
    service: FakeService, cache: Cache, lenience: dict[str, Any]
) -> None:
    service.hold("a", b"old")
    pages = cache.namespace("pages")
    await pages.invalidate(["a"], **lenience)
    assert await pages.get("a") == b"old"


async def test_a_token_that_came_with_an_error_counts(service: FakeService, cache: Cache) -> None:
    """`fence-not-published`: the change was accepted, so the write has to be seen."""
    service.hold("a", b"old")
    pages = cache.namespace("pages")
    token = token_of([(digest("pages/a"), 2_000_000)])
    service.problem = (
        503,
        {"type": "https://cachesvc.dev/problems/fence-not-published"},
        {"Cachesvc-Token": token},
    )
    (error,) = await asyncio.gather(pages.invalidate(["a"]), return_exceptions=True)
    assert isinstance(error, Exception)
    service.problem = None
    assert await pages.get("a") is None


async def test_only_reads_that_a_write_concerns_carry_a_token(service: FakeService, cache: Cache) -> None:
    pages, other = cache.namespace("pages"), cache.namespace("other")
    await pages.invalidate(["a"])
    await pages.get("b")
    await other.get("a")
    await pages.get("a")
    assert ["token" in call.body for call in service.calls(":get")] == [False, False, True]


def test_pairs_are_forgotten_after_their_time_and_merge_by_the_newest() -> None:
    clock = ManualSeconds()
    own = OwnWrites(clock)
    pair = key_digest("pages", "a")
    own.learn("pages", token_of([(pair, 7)]), ["a"])
    own.learn("pages", token_of([(pair, 5)]), ["a"])
    assert pairs_of(own.token_for("pages", ["a"])) == [(pair, 7)]
    clock.now = KEPT_SECONDS
    assert own.token_for("pages", ["a"]) == ""


def test_what_is_kept_is_bounded_and_the_oldest_go_first() -> None:
    own = OwnWrites(ManualSeconds(), max_keys=2)
    for i in range(3):
        own.learn("pages", token_of([(key_digest("pages", f"k{i}"), i)]), [f"k{i}"])
    assert [own.token_for("pages", [f"k{i}"]) != "" for i in range(3)] == [False, True, True]
    assert own.dropped == 1


def test_the_longest_token_fits_the_service() -> None:
    own = OwnWrites(ManualSeconds())
    keys = [f"k{i}" for i in range(256)]
    own.learn("pages", token_of((key_digest("pages", key), 1) for key in keys), keys)
    own.learn("pages", token_of((i, 1) for i in range(MAX_WIDE + 5)), [])
    assert len(own.token_for("pages", keys)) == 8192


def test_a_damaged_token_is_refused() -> None:
    with pytest.raises(ValueError, match="no token"):
        pairs_of("abc")
