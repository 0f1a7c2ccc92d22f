"""The reference origin does what it is told, while it runs."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from yarl import URL

from loadtests.documents import OtherBytesError, document, version_of
from loadtests.origin import ReferenceOrigin


@pytest.fixture
async def origin() -> AsyncIterator[ReferenceOrigin]:
    origin = ReferenceOrigin(size="100B")
    await origin.start()
    yield origin
    await origin.stop()


@pytest.fixture
async def http(origin: ReferenceOrigin) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(origin.url) as session:
        yield session


async def get(http: aiohttp.ClientSession, key: str = "a", **headers: str) -> tuple[int, bytes, str]:
    async with http.get(f"/docs/{key}", headers=headers) as response:
        return response.status, await response.read(), response.headers.get("ETag", "")


async def control(http: aiohttp.ClientSession, **changes: Any) -> int:
    async with http.post("/_control", json=changes) as response:
        return response.status


async def stats(http: aiohttp.ClientSession) -> dict[str, Any]:
    async with http.get("/_stats") as response:
        answer: dict[str, Any] = await response.json()
        return answer


def test_the_bytes_follow_from_key_version_and_size() -> None:
    assert document("a", 1, 10) == b"a v1 a v1 "
    assert document("a", 2, 3) == b"a v"


async def test_another_version_has_other_bytes_and_another_etag(http: aiohttp.ClientSession) -> None:
    status, body, etag = await get(http)
    assert (status, body) == (200, document("a", 1, 100))
    assert (await get(http, **{"If-None-Match": etag}))[0] == 304
    assert await control(http, version=2) == 200
    assert await get(http, **{"If-None-Match": etag}) == (200, document("a", 2, 100), (await get(http))[2])


def test_a_document_says_its_version_and_another_keys_bytes_are_none() -> None:
    assert version_of("a", document("a", 12, 100)) == 12
    for other in (document("ab", 1, 100), document("a", 12, 4), b""):
        with pytest.raises(OtherBytesError):
            version_of("a", other)


async def test_a_changed_document_is_a_version_ahead_of_the_others(http: aiohttp.ClientSession) -> None:
    for version in (2, 3):
        async with http.post("/docs/a") as response:
            assert await response.json() == {"version": version}
    await control(http, version=10, reset=True)
    assert [version_of(key, (await get(http, key))[1]) for key in "ab"] == [12, 10]


async def test_it_counts_what_it_was_asked_until_it_is_told_to_forget(http: aiohttp.ClientSession) -> None:
    await asyncio.gather(*(get(http, key) for key in "aab"))
    counted = await stats(http)
    assert (counted["loads"], counted["keys"], counted["top"]) == (3, 2, {"a": 2, "b": 1})
    assert await control(http, reset=True) == 200
    assert (await stats(http))["loads"] == 0


async def test_it_fails_loses_and_answers_a_status_on_request(http: aiohttp.ClientSession) -> None:
    await control(http, absent=["b"])
    assert [(await get(http, key))[0] for key in "ab"] == [200, 404]
    await control(http, failure_rate=1.0)
    assert (await get(http))[0] == 500
    await control(http, failure_rate=0.0, status=403)
    assert (await get(http))[0] == 403


async def test_it_hangs_until_it_is_told_not_to(http: aiohttp.ClientSession, origin: ReferenceOrigin) -> None:
    await control(http, hang=True)
    hung = [asyncio.create_task(get(http, key)) for key in "abc"]
    await origin.asked(3)
    await control(http, hang=False)
    assert [status for status, _, _ in await asyncio.gather(*hung)] == [200, 200, 200]
    assert origin.peak == 3


@pytest.mark.parametrize(
    "changes", [{"latncy": "1s"}, {"latency": "soon"}, {"groups": ["ä"]}, {"version": "x"}]
)
async def test_it_refuses_what_it_does_not_understand_and_changes_nothing(
    http: aiohttp.ClientSession, origin: ReferenceOrigin, changes: dict[str, Any]
) -> None:
    before = origin.behaviour
    assert await control(http, **changes) == 400
    assert origin.behaviour == before


@pytest.mark.parametrize("key", ["%2E%2E", "a%2Fb", "caf%C3%A9"])
async def test_any_key_is_one_segment(http: aiohttp.ClientSession, origin: ReferenceOrigin, key: str) -> None:
    async with http.get(URL(f"{origin.url}/docs/{key}", encoded=True)) as response:
        assert response.status == 200
    assert len(origin.per_key) == 1


async def test_it_runs_as_a_process_and_ends_on_a_signal() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "loadtests.origin",
        "--port",
        "0",
        "--size",
        "9B",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().split()[1]
    async with aiohttp.ClientSession() as session, session.get(url.replace("{key}", "a")) as response:
        assert await response.read() == document("a", 1, 9)
    process.terminate()
    assert await process.wait() == 0
