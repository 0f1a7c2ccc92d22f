"""`Server-Timing`: answers that took long say what they cost, and how far homes are."""

import msgspec
import pytest

from cachesvc.web import server
from cachesvc.web.replies.server_timing import MOST_HOMES, server_timing
from tests.wire.conftest import Site

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer counts as one that took long."""
    monkeypatch.setattr(server, "FROM_SECONDS", -1.0)


def test_the_farthest_homes_are_named_and_those_that_nobody_has_reached_are_not() -> None:
    ways = {f"c{i}": i / 100 for i in range(9)}
    line = server_timing(0.2013, ways).decode()
    assert line.startswith('Server-Timing: cache;dur=201.3, home;desc="c8";dur=80.0, home;desc="c7";dur=70.0')
    assert line.count("home") == MOST_HOMES
    assert server_timing(0.0051, {"c0": 0.0}) == b"Server-Timing: cache;dur=5.1\r\n"


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    ("method", "target", "body", "concerned"),
    [
        ("GET", "/v1/pages/k", b"", ["k"]),
        ("PUT", "/v1/pages/k", b"v", ["k"]),
        ("DELETE", "/v1/pages/k", b"", ["k"]),
        ("POST", "/v1/pages:get", {"keys": ["k", "l"]}, ["k", "l"]),
        ("POST", "/v1/pages:put", {"items": [{"key": "k", "value": "dg=="}]}, ["k"]),
        ("POST", "/v1/invalidations", {"namespace": "pages", "keys": ["k"], "tags": ["t"]}, ["k", "t"]),
    ],
)
async def test_reads_and_writes_say_what_they_cost(
    site: Site, method: str, target: str, body: object, concerned: list[str]
) -> None:
    site.paths.homes.ways = {"us-1": 0.1998}
    is_json = isinstance(body, dict)
    sent = body if isinstance(body, bytes) else msgspec.json.encode(body) if body else b""
    answer = await site.ask(method, target, JSON if is_json else {}, sent)
    said = answer.headers["server-timing"]
    assert said.startswith("cache;dur=")
    assert said.endswith(', home;desc="us-1";dur=199.8')
    assert site.paths.homes.asked == concerned


async def test_an_answer_that_took_no_time_says_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FROM_SECONDS", 60.0)
    assert "server-timing" not in (await site.ask("GET", "/v1/pages/k")).headers


@pytest.mark.usefixtures("always")
async def test_probes_say_nothing_of_it(site: Site) -> None:
    assert "server-timing" not in (await site.ask("GET", "/livez")).headers
