"""A token shows who the client is; one that is refused is fetched once more; and it stands nowhere else."""

import asyncio
import copy
import logging
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from cachesvc_client import Cache, CacheError, ForbiddenError, NearSettings, UnauthenticatedError
from cachesvc_client.requests import bearer
from cachesvc_client.requests.bearer import KnownToken

from clients.python.tests.fake_service import FakeService

OLD, NEW = "old-token-of-checkout", "new-token-of-checkout"


class Issuer:
    """Issues a token at each call, the next one of these; the last one from then on."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> str:
        self.calls += 1
        await self.gate.wait()
        return self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]


@pytest.fixture(autouse=True)
def _it_stands_nowhere_else(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert OLD not in caplog.text
    assert NEW not in caplog.text


def shown(service: FakeService) -> set[str]:
    return {authorization for _, authorization in service.shown}


async def test_it_goes_with_every_request(service: FakeService) -> None:
    service.tokens = {OLD}
    async with Cache.from_url(service.url, token=OLD) as cache:
        pages = cache.namespace("pages", near=NearSettings())
        await pages.set("k", b"v")
        assert await pages.get("k") == b"v"
        await pages.invalidate(["k"])
        while "/v1/fences" not in {path for path, _ in service.shown}:  # noqa: ASYNC110  it has no event
            await asyncio.sleep(0.01)
    assert {path for path, _ in service.shown} >= {"/v1/topology", "/v1/fences", "/v1/pages:put"}
    assert shown(service) == {f"Bearer {OLD}"}


async def test_without_one_no_header_is_sent(service: FakeService, cache: Cache) -> None:
    await cache.namespace("pages").get("k")
    assert shown(service) == {""}


async def test_a_refused_token_is_fetched_once_for_all_who_wait(service: FakeService) -> None:
    service.tokens = {NEW}
    issuer = Issuer(OLD, NEW)
    async with Cache.from_url(service.url, token=issuer, batching=False, discover=False) as cache:
        pages = cache.namespace("pages")
        service.hold("k", b"v")
        assert await asyncio.gather(*(pages.get("k") for _ in range(20))) == [b"v"] * 20
    assert issuer.calls == 2
    assert [authorization for _, authorization in service.shown].count(f"Bearer {NEW}") == 20


async def test_a_write_is_sent_again_too(service: FakeService) -> None:
    """Nothing was done: a refusal comes before the request has any effect."""
    service.tokens = {NEW}
    async with Cache.from_url(service.url, token=Issuer(OLD, NEW), discover=False) as cache:
        await cache.namespace("pages").set("k", b"v")
    assert service.held["k"].value == b"v"


async def test_a_second_refusal_is_an_error(service: FakeService) -> None:
    service.tokens = set()
    issuer = Issuer(OLD, NEW, OLD)
    async with Cache.from_url(service.url, token=issuer, discover=False) as cache:
        pages = cache.namespace("pages")
        for _ in range(3):
            with pytest.raises(UnauthenticatedError) as raised:
                await pages.get("k")
            assert (raised.value.type, raised.value.status) == ("unknown-identity", 401)
            assert not raised.value.is_outage
            told = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
            assert OLD not in told
            assert NEW not in told
    assert issuer.calls == 2, "an issuer is not asked for each request that is refused"


async def test_a_text_that_is_refused_is_not_tried_again(service: FakeService) -> None:
    service.tokens = set()
    async with Cache.from_url(service.url, token=OLD, discover=False) as cache:
        with pytest.raises(UnauthenticatedError):
            await cache.namespace("pages").get("k")
    assert len(service.shown) == 1


async def test_a_file_is_read_again(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{OLD}\n")
    service.tokens = {OLD, NEW}
    async with Cache.from_url(service.url, token=file, discover=False) as cache:
        pages = cache.namespace("pages")
        await pages.get("k")
        file.write_text(f"{NEW}\n")
        await pages.get("k")
        assert shown(service) == {f"Bearer {OLD}"}, "not at every request"
        service.tokens = {NEW}
        await pages.get("k")
        assert service.shown[-1][1] == f"Bearer {NEW}", "at once when it is refused"

        monkeypatch.setattr(bearer, "LOOK_SECONDS", 0.0)
        cache._bearer.known.asked(0.0)
        file.write_text(OLD)
        service.tokens = {OLD, NEW}
        for _ in range(100):
            await pages.get("k")
        assert service.shown[-1][1] == f"Bearer {OLD}", "and after a while by itself"
        file.unlink()
        for _ in range(3):
            await pages.get("k")
        assert service.shown[-1][1] == f"Bearer {OLD}", "the token of a file that is gone stays"


async def test_a_token_that_cannot_be_fetched_is_an_outage(service: FakeService, tmp_path: Path) -> None:
    def fails() -> str:
        raise RuntimeError(f"the issuer said {OLD}")

    for source in (fails, tmp_path / "none"):
        async with Cache.from_url(service.url, token=source, discover=False) as cache:
            pages = cache.namespace("pages")
            with pytest.raises(UnauthenticatedError, match="no-token") as raised:
                await pages.get("k")
            assert raised.value.is_outage
            assert OLD not in str(raised.value)

            async def load(key: str) -> bytes:
                return b"loaded"

            assert await pages.get_or_load("k", load) == b"loaded"
    assert service.shown == []


async def test_a_fetch_that_hangs_ends_at_the_deadline_of_the_call(service: FakeService) -> None:
    issuer = Issuer(OLD)
    issuer.gate.clear()
    async with Cache.from_url(service.url, token=issuer, discover=False) as cache:
        pages = cache.namespace("pages", timeout="20ms")
        with pytest.raises(CacheError, match="deadline"):
            await pages.get("k")
        issuer.gate.set()
        await cache.namespace("pages").get("k")
    assert issuer.calls == 1


async def test_a_missing_scope_is_an_error_that_names_it_and_the_identity(service: FakeService) -> None:
    document = {
        "type": "https://cachesvc.dev/problems/missing-scope",
        "status": 403,
        "detail": "checkout may not do this",
        "scope": "read:pages",
        "identity": "checkout",
    }
    service.problem = (403, document, {})
    async with Cache.from_url(service.url, token=OLD, batching=False) as cache:
        with pytest.raises(ForbiddenError) as raised:
            await cache.namespace("pages").get("k")
    for error in (raised.value, raised.value.copy(), copy.copy(raised.value)):
        assert isinstance(error, ForbiddenError)
        assert (error.type, error.status, error.scope, error.identity) == (
            "missing-scope",
            403,
            "read:pages",
            "checkout",
        )
        assert not error.is_outage
    again = pickle.loads(pickle.dumps(raised.value))  # noqa: S301  made here
    assert (type(again), again.scope) == (ForbiddenError, "read:pages")


async def test_another_service_in_place_of_the_real_one_is_shown_nothing(service: FakeService) -> None:
    def asked() -> str:
        raise AssertionError("a test has no issuer")

    import aiohttp

    cache = Cache.from_url("http://real.example", token=asked, discover=False)
    async with aiohttp.ClientSession() as session:
        with cache.redirected(session, service.url):
            await cache.namespace("pages").get("k")
    assert shown(service) == {""}


@pytest.mark.parametrize("token", ["", "  ", f"{OLD} x", f"{OLD}\nX-Evil: 1", f"{OLD}é", 7, b"bytes", ["x"]])
def test_what_cannot_be_one_is_refused_without_being_told(token: object) -> None:
    with pytest.raises(ValueError, match="token") as raised:
        Cache.from_url("http://a", token=token)  # type: ignore[arg-type]  # it is the question
    assert OLD not in str(raised.value)


async def test_a_fetched_token_that_cannot_be_one_is_refused_without_being_told(service: FakeService) -> None:
    async with Cache.from_url(service.url, token=lambda: f"{OLD}\nX-Evil: 1", discover=False) as cache:
        with pytest.raises(UnauthenticatedError, match="no-token") as raised:
            await cache.namespace("pages").get("k")
    assert OLD not in "".join(traceback.format_exception(raised.value))
    assert service.shown == []


def test_a_client_of_https_sends_it_over_tls_only() -> None:
    known = KnownToken(OLD, tls_only=True)
    assert known.lines(OLD, is_tls=False) == {}
    assert known.lines(OLD, is_tls=True) == {"Authorization": f"Bearer {OLD}"}
    assert KnownToken(OLD, tls_only=False).lines(OLD, is_tls=False) == {"Authorization": f"Bearer {OLD}"}
    assert OLD not in repr(known)
