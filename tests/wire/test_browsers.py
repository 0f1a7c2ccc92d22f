"""What keeps browsers from being used against an instance, or by what it stores."""

import pytest
from msgspec.structs import replace

from cachesvc.model.errors import RequestError
from cachesvc.web.requests.hosts import Hosts
from tests.wire.conftest import Site

OWN = [
    "localhost",
    "LOCALHOST:80",
    "127.0.0.1:8080",
    "127.3.2.1",
    "[::1]:80",
    "a.localhost",
    "cachesvc",
    "x:1",
]
STRANGE = [
    "evil.example",
    "evil.example:8080",
    "evil.example.",
    "10.0.0.1",
    "127.0.0.1.evil.example",
    "[2001:db8::1.2.3.4]",
]


@pytest.mark.parametrize("host", OWN)
async def test_an_instance_on_a_loopback_address_answers_by_its_own_names(site: Site, host: str) -> None:
    site.hold("k")
    for _ in range(2):  # the second time, the spelling is known
        for headers in ({}, {"Cache-Control": "max-age=9"}):
            assert (await site.ask("GET", "/v1/pages/k", {"Host": host, **headers})).status == 200


@pytest.mark.parametrize("host", STRANGE)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/pages/k"),
        ("PUT", "/v1/pages/k"),
        ("DELETE", "/v1/pages/k"),
        ("POST", "/v1/pages:get"),
        ("GET", "/v1/topology"),
        ("GET", "/metrics"),
    ],
)
async def test_and_to_nobody_by_a_name_that_a_stranger_may_own(
    site: Site, host: str, method: str, path: str
) -> None:
    site.hold("k")
    response = await site.ask(method, path, {"Host": host})
    assert response.status == 421
    assert b"wrong-host" in response.body
    assert b"value" not in response.body
    assert site.writer.saw == []


def test_a_name_of_the_configuration_is_answered_and_other_addresses_answer_all() -> None:
    Hosts("127.0.0.1", ("cache.internal",)).check("Cache.Internal:80")
    Hosts("127.0.0.1").check(None)
    Hosts("0.0.0.0").check("evil.example")  # noqa: S104  not bound, and the very case that is meant
    with pytest.raises(RequestError):
        Hosts("localhost", ("cache.internal",)).check("other.internal")


async def test_no_answer_may_be_taken_for_a_page(site: Site) -> None:
    site.reader.l1["k"] = replace(site.hold("k", b"<script>alert(1)</script>"), content_type="text/html")
    for method, path in (("GET", "/v1/pages/k"), ("GET", "/v1/pages/none"), ("GET", "/nowhere")):
        headers = (await site.ask(method, path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"] == "sandbox"
