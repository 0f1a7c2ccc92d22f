"""`tls=`: which instances are believed, client certificates, and renewed files."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cachesvc_client import Cache, NearSettings, Tls, Unavailable
from cachesvc_client import sync as blocking
from cachesvc_client.instances import tls as module

from clients.python.tests.fake_service import FakeService
from tests.doubles.certificates import PAST, Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def service(authority: Authority) -> AsyncIterator[FakeService]:
    running = FakeService()
    running.tls = authority.issue().server_context()
    async with running:
        running.hold("a", b"A")
        yield running


async def got(service: FakeService, tls: Tls | ssl.SSLContext | None) -> bytes | None:
    async with Cache.from_url(service.url, tls=tls, discover=False) as cache:
        return await cache.namespace("pages").get("a")


async def test_an_instance_of_a_known_authority_is_asked(service: FakeService, authority: Authority) -> None:
    assert await got(service, Tls(ca=authority.file)) == b"A"
    assert await got(service, authority.client_context()) == b"A"


async def test_threads_ask_it_too(service: FakeService, authority: Authority) -> None:
    def asked() -> bytes | None:
        with blocking.Cache.from_url(
            service.url, tls=blocking.Tls(ca=authority.file), discover=False
        ) as cache:
            return cache.namespace("pages", near=NearSettings()).get("a")

    assert await asyncio.to_thread(asked) == b"A"


@pytest.mark.parametrize(
    ("names", "left", "ca", "why"),
    [
        ((), PAST, "ca", "certificate has expired"),
        (("other.test",), None, "ca", "is not valid for '127.0.0.1'"),
        ((), None, "other", "unable to get local issuer certificate"),
    ],
)
async def test_any_other_instance_is_refused_and_the_error_says_why(
    tmp_path: Path, authority: Authority, names: tuple[str, ...], left: object, ca: str, why: str
) -> None:
    Authority(tmp_path, "other")
    service = FakeService()
    service.tls = authority.issue(*names, left=left).server_context()  # type: ignore[arg-type]  # a timedelta
    tls = Tls(ca=str(tmp_path / f"{ca}.pem"))
    async with service:
        service.hold("a", b"A")
        async with Cache.from_url(service.url, tls=tls, discover=False) as cache:
            found: object = await cache.namespace("pages").lookup("a")
        for said in (found, await asyncio.to_thread(_looked_up, service.url, tls)):
            assert isinstance(said, Unavailable)
            assert why in str(said.error)
        assert service.saw == []


def _looked_up(url: str, tls: Tls) -> object:
    with blocking.Cache.from_url(url, tls=tls, discover=False) as cache:
        return cache.namespace("pages").lookup("a")


async def test_renewed_files_are_used_for_new_connections(tmp_path: Path, authority: Authority) -> None:
    service = FakeService()
    service.tls = authority.issue().server_context()
    service.tls.load_verify_locations(authority.file)
    service.tls.verify_mode = ssl.CERT_REQUIRED
    mine = authority.issue("me.test", file="mine")
    tls = Tls(ca=authority.file, cert=mine.cert, key=mine.key)
    async with service:
        service.hold("a", b"A")
        assert await got(service, tls) == b"A"
        context = module.context_of(tls)
        assert context is not None
        Authority(tmp_path, "stranger").issue("me.test", file="mine")
        assert await got(service, context) == b"A"  # looked at a moment ago
        aged: Any = context
        aged._looked_at -= module.LOOK_SECONDS
        async with Cache.from_url(service.url, tls=context, discover=False) as cache:
            assert isinstance(await cache.namespace("pages").lookup("a"), Unavailable)


def test_files_that_cannot_be_used_are_told_at_once(tmp_path: Path, authority: Authority) -> None:
    for tls in (Tls(ca=str(tmp_path / "none.pem")), Tls(ca=authority.file, cert=authority.file), "ca.pem"):
        with pytest.raises(ValueError, match=r"^tls: "):
            Cache.from_url("https://127.0.0.1:1", tls=tls)  # type: ignore[arg-type]  # that is the test


async def test_a_session_has_its_own(service: FakeService, authority: Authority) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ValueError, match=r"^tls: is of no use beside session="):
            Cache.from_url(service.url, tls=Tls(ca=authority.file), session=session)
