"""An instance leaves a relay and another instance alone that are away, and says so."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from cachesvc.app.instance import App
from cachesvc.config.service import Coherence, Server, Service
from cachesvc.config.topology import Cell, Namespace, Region, Topology
from cachesvc.explain.answer import Question
from cachesvc.model.entry import Key
from tests.doubles.servers import RealServer, free_port, redis_server
from tests.doubles.waiting import until


@pytest.fixture(scope="module")
def redis() -> Iterator[RealServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
async def app(redis: RealServer) -> AsyncIterator[App]:
    """An instance whose relay, `eu-r`, is away, and no other instance is there."""
    places = {name: f"http://127.0.0.1:{free_port()}" for name in ("eu-a", "eu-r")}
    topology = Topology(
        version=1,
        regions={"eu": Region(redis.redis_url, instances=places, relays={"eu-r": ""})},
        cells={"c1": Cell("eu", redis.redis_url.replace("db=0", "db=1"))},
        namespaces={"docs": Namespace("tests")},
    )
    coherence = Coherence(sketch_slots=1 << 12)
    service = Service(region="eu", instance="eu-a", server=Server(port=0), coherence=coherence)
    made = await asyncio.to_thread(App, service, topology)  # it reads files
    await made.start()
    yield made
    await made.stop()


async def test_a_relay_and_an_instance_that_are_away_are_left_alone_and_named(app: App) -> None:
    relay = "relay eu-r is left alone: fences are read from elsewhere"
    peer = "the instance eu/eu-r does not answer"

    def told() -> str:
        return str(app.readiness()[1]["troubles"])

    await until("the relay was tried", lambda: relay in told())
    assert peer not in told(), "nobody has asked it"
    explanation = await app.paths.explainer.explain(Key.of("docs", "a"), Question())
    assert "eu-r" in str(explanation)
    assert peer in told()
    text, _ = await app._metrics.exposition("")
    for kind, server in (("relay", "eu-r"), ("peer", "eu/eu-r")):
        assert f'cachesvc_breaker_open{{kind="{kind}",server="{server}"}} 1.0' in text.decode()
