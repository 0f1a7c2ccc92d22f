"""An instance reads fences from a relay over TLS, and shows it the instances' token."""

import hashlib
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cachesvc.app.instance import App
from cachesvc.config.callers import Callers, NamedCaller, Token
from cachesvc.config.service import Coherence, Server, Service
from cachesvc.config.tls import ClientTls, ListenerTls
from cachesvc.config.topology import Cell, Namespace, Region, Topology
from cachesvc.model.change import Change, Target
from loadtests.fleet_topology import free_ports
from tests.doubles.certificates import Authority
from tests.doubles.servers import RealServer, redis_server
from tests.doubles.waiting import until

NAMES = ("relay", "follower")


@pytest.fixture(scope="module")
def redis() -> Iterator[RealServer]:
    with redis_server() as running:
        yield running


def built(
    redis: RealServer, folder: Path, authority: Authority, *, scopes: Sequence[str], believed: Authority
) -> Sequence[App]:
    """The relay and its follower, which believes that authority; the token has these scopes."""
    own, token = authority.issue(), folder / "token"
    token.write_text("token-of-instances\n")
    places = {
        name: f"https://localhost:{port}" for name, port in zip(NAMES, free_ports(len(NAMES)), strict=True)
    }
    topology = Topology(
        version=1,
        regions={"eu": Region(redis.redis_url, instances=places, relays={"relay": ""})},
        cells={"c1": Cell("eu", redis.redis_url.replace("db=0", "db=1"))},
        namespaces={"docs": Namespace("tests")},
        callers=Callers(
            named={
                "instances": NamedCaller(
                    scopes=tuple(scopes),
                    tokens=(Token(sha256=hashlib.sha256(b"token-of-instances").hexdigest()),),
                )
            }
        ),
    )
    return [
        App(
            Service(
                region="eu",
                instance=name,
                server=Server(
                    port=int(places[name].rpartition(":")[2]),
                    peer_token_file=str(token),
                    tls=ListenerTls(cert=own.cert, key=own.key),
                ),
                tls=ClientTls(ca=believed.file),
                coherence=Coherence(sketch_slots=1 << 12),
            ),
            topology,
        )
        for name in NAMES
    ]


@asynccontextmanager
async def running(apps: Sequence[App]) -> AsyncIterator[None]:
    for app in apps:
        await app.start()
    yield
    for app in reversed(apps):
        await app.stop()


@pytest.fixture
def as_usual(redis: RealServer, tmp_path: Path) -> Sequence[App]:
    authority = Authority(tmp_path, "own")
    return built(redis, tmp_path, authority, scopes=["observe:*"], believed=authority)


@pytest.fixture
def with_another_token(redis: RealServer, tmp_path: Path) -> Sequence[App]:
    authority = Authority(tmp_path, "own")
    return built(redis, tmp_path, authority, scopes=["explain:*"], believed=authority)


@pytest.fixture
def under_another_authority(redis: RealServer, tmp_path: Path) -> Sequence[App]:
    own, other = Authority(tmp_path, "own"), Authority(tmp_path, "other")
    return built(redis, tmp_path, own, scopes=["observe:*"], believed=other)


async def test_a_follower_reads_fences_over_tls_and_shows_its_token(as_usual: Sequence[App]) -> None:
    relay, follower = as_usual
    async with running(as_usual):
        await until("it follows the relay", lambda: follower.readiness()[1]["relays"] == {"eu": "relay"})
        change = Change("docs", keys=("a",))
        target = Target.key("docs", "a").digest
        assert not follower.paths.fences.known(target).hard
        await relay.paths.invalidator.invalidate(change)
        await until("the fence is merged", lambda: bool(follower.paths.fences.known(target).hard))
        assert follower.readiness()[1]["relays"] == {"eu": "relay"}


async def test_a_relay_refuses_a_follower_without_the_right(
    with_another_token: Sequence[App], caplog: pytest.LogCaptureFixture
) -> None:
    why = "answered 403: its callers need one with observe:*, whose token server.peer_token_file holds here"
    await is_left_alone(with_another_token, why, caplog)


async def test_a_follower_leaves_a_relay_alone_whose_certificate_it_does_not_believe(
    under_another_authority: Sequence[App], caplog: pytest.LogCaptureFixture
) -> None:
    await is_left_alone(under_another_authority, "an authority that tls.ca does not have", caplog)


async def is_left_alone(apps: Sequence[App], why: str, caplog: pytest.LogCaptureFixture) -> None:
    """Returns when the follower has left the relay alone for this reason, and reads the queue."""
    relay, follower = apps
    caplog.set_level(logging.INFO, "cachesvc.changes.relay")
    async with running(apps):
        left = "relay relay is left alone: fences are read from elsewhere"
        await until("the relay is left alone", lambda: left in str(follower.readiness()[1]["troubles"]))
        assert why in caplog.text
        assert "token-of-instances" not in caplog.text
        target = Target.key("docs", "b").digest
        await relay.paths.invalidator.invalidate(Change("docs", keys=("b",)))
        await until("the fence is merged", lambda: bool(follower.paths.fences.known(target).hard))
        assert follower.readiness()[1]["relays"] == {}
