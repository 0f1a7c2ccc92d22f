"""The door: what it remembers, and identities that a connection shows."""

import hashlib
from collections.abc import Mapping
from typing import Any, cast

import pytest
from aiohttp import web
from multidict import CIMultiDict

from cachesvc.config.callers import Callers, NamedCaller, Token
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.web.access import door
from cachesvc.web.access.door import Door
from tests.doubles.clocks import ManualClock


class Request(dict[Any, Any]):
    """The parts of a request that the door looks at."""

    def __init__(self, *authorization: str, certificate: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.headers = CIMultiDict([("Authorization", line) for line in authorization])
        self.transport = self
        self._certificate = certificate

    def get_extra_info(self, name: str) -> Mapping[str, Any] | None:
        return self._certificate if name == "peercert" else None


def shown(*authorization: str, certificate: Mapping[str, Any] | None = None) -> web.BaseRequest:
    return cast(web.BaseRequest, Request(*authorization, certificate=certificate))


def caller(token: str, *certificates: str) -> NamedCaller:
    return NamedCaller(("read:pages",), (Token(hashlib.sha256(token.encode()).hexdigest()),), certificates)


def certificate(*names: tuple[str, str]) -> Mapping[str, Any]:
    return {"subjectAltName": names, "notAfter": "Jan  1 00:00:00 2100 GMT"}


@pytest.fixture
def opened() -> Door:
    callers = Callers({"shop": caller("s", "spiffe://prod/shop"), "ops": caller("o", "ops.internal")})
    return Door(callers, ["pages"], ManualClock())


async def test_a_certificate_shows_who_it_is_and_a_token_comes_before_it(opened: Door) -> None:
    shop = certificate(("URI", "spiffe://prod/shop"))
    assert (await opened.admit(shown(certificate=shop))).caller.name == "shop"
    assert (await opened.admit(shown(certificate=certificate(("DNS", "ops.internal"))))).caller.name == "ops"
    assert (await opened.admit(shown("Bearer o", certificate=shop))).caller.name == "ops"
    with pytest.raises(RequestError) as refused:
        await opened.admit(shown("Bearer x", certificate=shop))
    assert refused.value.kind is ProblemKind.UNKNOWN_IDENTITY


@pytest.mark.parametrize("names", [(), (("DNS", "shop"),), (("URI", "spiffe://prod/other"),)])
async def test_a_certificate_of_nobody_shows_no_identity(
    opened: Door, names: tuple[tuple[str, str], ...]
) -> None:
    assert (await opened.admit(shown(certificate=certificate(*names)))).title == "anonymous"
    assert (await opened.admit(shown())).title == "anonymous"


async def test_a_connection_with_a_certificate_is_not_taken_for_an_anonymous_one(opened: Door) -> None:
    assert opened.reader(b"", "pages") is None
    opened.take(Callers(anonymous=("read:pages",)))
    assert opened.reader(b"", "pages") is not None


async def test_an_identity_is_remembered_until_callers_change(opened: Door) -> None:
    line = b"Bearer s"
    assert opened.reader(line, "pages") is None
    await opened.admit(shown(line.decode()))
    found = opened.reader(line, "pages")
    assert found is not None
    assert found.caller.name == "shop"
    assert opened.reader(line, "users") is None
    opened.take(Callers({"ops": caller("o")}))
    assert opened.reader(line, "pages") is None
    with pytest.raises(RequestError):
        await opened.admit(shown(line.decode()))
    assert opened.refusals.unknown == 1


async def test_what_is_remembered_is_bounded(opened: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "REMEMBERED_BYTES", 10 * door.GRANT_BYTES)
    for spaces in range(1, 50):
        await opened.admit(shown(f"Bearer{' ' * spaces}s"))
        assert 0 < len(opened._remembered) < 10
