"""An instance is ready only if a feed and a consumer of its own can do their work."""

import asyncio
from typing import Any

import pytest

from cachesvc.app.instance import App
from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.changes.redis.fences import RedisFenceStream
from cachesvc.config.service import Server, Service
from cachesvc.config.topology import Cell, Namespace, Region, Topology
from cachesvc.telemetry import loops

NOWHERE = "redis://127.0.0.1:1/0"
TOPOLOGY = Topology(
    version=1,
    regions={"eu": Region(NOWHERE)},
    cells={"c1": Cell("eu", NOWHERE)},
    namespaces={"pages": Namespace("web")},
)


async def broken(*_: Any, **__: Any) -> Any:
    """Fails as a library does whose version is too old."""
    raise TypeError("got an unexpected keyword argument")


@pytest.fixture
def app() -> App:
    """An instance that is built before any loop runs, as in the service: building it may block."""
    return App(Service(region="eu", instance="a", server=Server(port=0)), TOPOLOGY)


async def readiness(app: App) -> tuple[bool, Any]:
    """What the instance says once its loops have had time to try."""
    await app.start()
    try:
        for _ in range(100):
            if app.readiness()[0]:
                break
            await asyncio.sleep(0.01)
        return app.readiness()
    finally:
        await app.stop()


async def test_an_instance_whose_queue_is_out_of_reach_is_ready(app: App) -> None:
    ready, why = await readiness(app)
    assert ready
    assert why["consumer"] == "has asked for changes"
    assert why["fence_feeds"] == {"eu": "out of reach"}


@pytest.mark.parametrize(
    ("stream", "method", "name", "said"),
    [
        (RedisChanges, "take", "consumer", "has not asked for changes yet"),
        (RedisFenceStream, "open", "fence_feeds", {"eu": "not tried yet"}),
    ],
)
async def test_an_instance_that_can_never_take_or_follow_is_not(
    app: App, stream: type, method: str, name: str, said: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, method, broken)
    monkeypatch.setattr(RedisChanges, "completion", broken)  # it comes first, and the queue is away
    ready, why = await readiness(app)
    assert not ready
    assert why[name] == said


async def test_what_is_wrong_is_said_in_sentences(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that waits for the queue says nothing of its own; one with a defect is named."""
    monkeypatch.setattr(loops, "FAILING_SECONDS", 0.05)
    monkeypatch.setattr(app.paths.l1, "sweep", broken_at_once)
    await app.start()
    try:
        for _ in range(1000):
            troubles: Any = app.readiness()[1]["troubles"]
            if len(troubles) == 3:
                break
            await asyncio.sleep(0.01)
    finally:
        await app.stop()
    assert troubles[:2] == ["the queue of eu does not answer", "cell c1 does not answer"]
    (loop,) = troubles[2:]
    assert loop.startswith("sweep of L1 has failed for 0 s: TypeError at test_readiness.py:")


def broken_at_once(*_: Any) -> None:
    raise TypeError("got an unexpected keyword argument")
