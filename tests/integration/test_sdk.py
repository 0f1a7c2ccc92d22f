"""The SDK against the real service: what the README promises, with two clients that know nothing of each other."""

import asyncio
import urllib.request
from typing import Any

import pytest
from cachesvc_client import ABSENT, JSON, Absent, Cache, Hit, Miss, NearSettings, Profile

from tests.doubles.waiting import until


class Pages:
    """A loader that counts."""

    def __init__(self) -> None:
        self.loads = 0
        self.text = b"first"
        self.seconds = 0.05

    async def load(self, key: str) -> bytes:
        self.loads += 1
        await asyncio.sleep(self.seconds)  # a slow source: the others have to wait
        return self.text


async def test_one_of_two_hundred_callers_in_two_clients_loads(url: str) -> None:
    """Their patience is long: on a busy machine, nobody gives up waiting and loads alone."""
    pages = Pages()
    patient = Profile(timeout=60, connect_timeout=30, lease_wait=60)
    async with Cache.from_url(url, profile=patient) as one, Cache.from_url(url, profile=patient) as two:
        asking = [
            (one, two)[i % 2].namespace("pages").get_or_load("shared", pages.load, ttl="5m")
            for i in range(200)
        ]
        assert set(await asyncio.gather(*asking)) == {b"first"}
    assert pages.loads == 1


async def test_a_value_that_is_read_all_the_time_is_loaded_anew_before_it_expires(url: str) -> None:
    """Its load takes half of its life, so the first draws of the service are likely to say so."""
    pages = Pages()
    pages.seconds = 0.5
    async with Cache.from_url(url) as one, Cache.from_url(url) as two:
        namespaces = [one.namespace("pages"), two.namespace("pages")]
        reads, longest = 0, 0.0
        assert await namespaces[0].get_or_load("popular", pages.load, ttl="1s", stale=0) == b"first"
        pages.text = b"second"

        async def is_stored() -> bool:
            return bool(await namespaces[0].get("popular") == b"second")

        while pages.loads < 2 and reads < 10_000:
            asked_at = asyncio.get_running_loop().time()
            found = await namespaces[reads % 2].get_or_load("popular", pages.load, ttl="1m")
            longest = max(longest, asyncio.get_running_loop().time() - asked_at)
            reads += 1
            assert found == b"first"
        await until("the value is stored", is_stored)
        assert pages.loads == 2
        assert one.statistics().early_loads + two.statistics().early_loads == 1
        assert longest < 0.5, "nobody has waited for the load"


async def test_an_invalidation_after_a_commit_is_seen_by_its_client_at_once_and_by_tag(url: str) -> None:
    pages = Pages()
    async with Cache.from_url(url) as cache:
        namespace = cache.namespace("pages")
        assert await namespace.get_or_load("{ws-7}:block:42", pages.load, tags=["user:9"]) == b"first"
        assert await namespace.get("{ws-7}:block:42") == b"first"
        pages.text = b"second"
        receipt = await namespace.invalidate(tags=["user:9"])
        assert receipt.applied
        assert await namespace.get("{ws-7}:block:42") is None
        assert await namespace.get_or_load("{ws-7}:block:42", pages.load, tags=["user:9"]) == b"second"


@pytest.mark.parametrize(
    "purge", [{"tags": ["news"]}, {"all": True, "confirm": "pages"}, {"tags": ["news"], "soft": True}]
)
@pytest.mark.parametrize("near", [None, NearSettings()])
async def test_what_is_set_just_after_an_invalidation_is_read_by_its_client_and_by_others(
    url: str, purge: dict[str, Any], near: NearSettings | None
) -> None:
    async with Cache.from_url(url) as writer, Cache.from_url(url) as reader:
        mine, others = writer.namespace("pages", near=near), reader.namespace("pages", near=near)
        for number in range(3):
            await mine.set("just-after", b"old", tags=["news"])
            await mine.invalidate(**purge)
            await mine.set("just-after", b"%d" % number, tags=["news"])
            assert await mine.get("just-after") == b"%d" % number
            await mine.invalidate(**purge)
            await mine.set_many({"just-after": b"many", "beside": b"many"}, tags=["news"])
            assert await mine.get_many(["just-after", "beside"]) == {"just-after": b"many", "beside": b"many"}
            assert await others.get("beside") == b"many"


async def test_many_and_single_gets_agree_and_absence_is_remembered(url: str) -> None:
    async def nothing(key: str) -> Absent:
        return ABSENT

    async with Cache.from_url(url) as cache:
        namespace = cache.namespace("pages")
        await namespace.set_many({f"k{i}": b"%d" % i for i in range(100)})
        singles = await asyncio.gather(*(namespace.get(f"k{i}") for i in range(100)))
        assert dict(zip((f"k{i}" for i in range(100)), singles, strict=True)) == await namespace.get_many(
            [f"k{i}" for i in range(100)]
        )
        assert await namespace.get_or_load("nobody", nothing, default=b"none") == b"none"
        assert await namespace.get("nobody", b"none") == b"none"


async def test_a_version_a_tag_and_an_etag_are_answered_as_they_were_stored(url: str) -> None:
    async with Cache.from_url(url) as cache:
        pages = cache.namespace("pages", codec=JSON, version=3)
        await pages.set("versioned", [1, 2], tags=['a "b" \\c', "d, e"])
        found = await pages.lookup("versioned")
        assert isinstance(found, Hit)
        with await asyncio.to_thread(urllib.request.urlopen, f"{url}/v1/pages/versioned") as answer:
            assert (answer.headers["Content-Type"], answer.headers["ETag"]) == (
                "application/json; v=3",
                found.etag,
            )
        assert await cache.namespace("pages", codec=JSON, version=2).lookup("versioned") == Miss("unreadable")


async def test_a_touch_prolongs_what_is_stored_with_its_tags_and_nothing_else(url: str) -> None:
    async with Cache.from_url(url) as cache:
        pages = cache.namespace("pages", codec=JSON, version=3)
        tags = ['a "b" \\c', "d, e"]
        await pages.set("touched", [1, 2], ttl="10s", tags=tags)
        assert await pages.touch("touched", ttl="1h")
        found = await pages.lookup("touched")
        assert isinstance(found, Hit)
        assert (found.value, found.ttl > 1800) == ([1, 2], True)
        await pages.invalidate(tags=tags[:1])
        assert await pages.get("touched") is None
        assert not await pages.touch("touched")


async def test_another_client_reads_a_write_it_has_the_token_of(url: str) -> None:
    async with Cache.from_url(url) as writer, Cache.from_url(url) as reader:
        await writer.namespace("pages").set("handed", b"1")
        assert await reader.namespace("pages").get("handed") == b"1"
        await writer.namespace("pages").set("handed", b"2")
        with reader.with_token(writer.token()):
            assert await reader.namespace("pages").get("handed") == b"2"


async def test_a_cached_function_is_invalidated_by_what_was_committed(url: str) -> None:
    truth = "first"
    async with Cache.from_url(url) as cache:
        pages = cache.namespace("pages", codec=JSON)

        @pages.cached("title:{slug}", ttl="5m", tags=["slug:{slug}"])
        async def title(slug: str) -> str:
            return truth

        assert await asyncio.gather(*(title("home") for _ in range(20))) == ["first"] * 20
        truth = "second"
        assert await title("home") == "first"
        async with cache.on_commit() as tx:
            tx.invalidate(pages, tags=["slug:home"])
        assert await title("home") == "second"


async def test_a_load_of_a_source_that_lags_is_answered_and_not_kept_right_after_a_change(url: str) -> None:
    pages = Pages()
    async with Cache.from_url(url) as cache:
        lagging = cache.namespace("pages", lag="20s")
        await lagging.invalidate(["replicated"])
        assert await lagging.get_or_load("replicated", pages.load) == b"first"
        assert await lagging.get("replicated") is None
        assert cache.statistics().fenced_fills == 1
        assert await lagging.get_or_load("replicated", pages.load, lag=0) == b"first"
        assert await lagging.get("replicated") == b"first"


async def test_a_loader_that_fails_is_answered_for_by_the_value_before(url: str) -> None:
    async with Cache.from_url(url) as cache:
        namespace = cache.namespace("pages")
        lives: dict[str, Any] = {"ttl": "1ms", "stale": 0, "stale_if_error": "1m"}

        async def load(_key: str) -> bytes:
            return b"first"

        async def fails(_key: str) -> bytes:
            raise ConnectionError("the source is down")

        assert await namespace.get_or_load("last-resort", load, **lives) == b"first"
        await asyncio.sleep(0.02)
        assert await namespace.get_or_load("last-resort", fails, **lives) == b"first"
        with pytest.raises(ConnectionError):
            await namespace.get_or_load("last-resort", fails, ttl="1ms")
        await namespace.invalidate(["last-resort"])
        with pytest.raises(ConnectionError):
            await namespace.get_or_load("last-resort", fails, **lives)


async def test_many_misses_are_one_call_of_the_loader_and_one_call_fills_them(url: str) -> None:
    calls: list[list[str]] = []

    async def load(keys: list[str]) -> dict[str, bytes]:
        calls.append(keys)
        return {key: key.encode() for key in keys[1:]}

    keys = [f"many:{nth}" for nth in range(300)]
    async with Cache.from_url(url) as cache:
        namespace = cache.namespace("pages")
        for _ in range(2):
            found = await namespace.get_or_load_many(keys, load, ttl="5m")
            assert found == {key: key.encode() for key in keys[1:]}
    assert calls == [keys]


async def test_many_large_values_come_in_several_answers(url: str) -> None:
    """40 values of 900 KB are more than twice what one answer has room for (`server.max_answer`)."""
    values = {f"large{i}": bytes([i]) * 900_000 for i in range(40)}
    async with Cache.from_url(url, default_timeout="20s") as cache:
        pages = cache.namespace("pages")
        for key, value in values.items():
            await pages.set(key, value)
        before = cache.statistics().requests
        assert await pages.get_many(list(values)) == values
        assert 3 <= cache.statistics().requests - before <= 6
