"""Every background loop of an instance is watched, and named in readiness if it fails."""

import asyncio
from collections.abc import Callable

import pytest

from cachesvc.app.instance import App
from cachesvc.config.service import Service, Telemetry
from cachesvc.config.topology import Cell, MemcachedServer, Namespace, Region, Topology

TOPOLOGY = Topology(
    version=1,
    regions={
        "here": Region(
            queue="redis://127.0.0.1:1/0", pool={"m1": MemcachedServer(address="127.0.0.1:1")}, instances={}
        ),
        "there": Region(queue="redis://127.0.0.1:1/0"),
    },
    cells={"c1": Cell(region="here", url="redis://127.0.0.1:1/0")},
    namespaces={"pages": Namespace(owner="tests")},
)


@pytest.fixture
def app() -> App:
    telemetry = Telemetry(otlp="http://127.0.0.1:1")
    return App(Service(region="here", instance="a", telemetry=telemetry), TOPOLOGY)


@pytest.mark.timeout(30)
async def test_all_loops_are_watched_and_those_whose_server_is_away_are_named(app: App) -> None:
    names = {name for (name,) in app._loops.statistics()}
    assert names == {
        "fence feed of here",
        "fence feed of there",
        "consumer of changes",
        "heartbeats",
        "open changes",
        "names of servers",
        "sweep of L1",
        "shares of limits",
        "polling memcached servers",
        "polling cells",
        "polling queues",
        "thread of memcached m1",
        "deadlines of requests",
        "windows of overload",
        "sweep of answers that wait",
        "heartbeats of /v1/fences",
        "export of spans",
        "export of metrics",
    }
    for loop in app._loops._loops:
        loop._now = later(loop._now)
    running = [asyncio.create_task(app._feeds.consumer.run()), asyncio.create_task(app._feeds.feeds[0].run())]
    await asyncio.sleep(0.7)
    _, said = app.readiness()
    troubles = said["loops"]
    assert isinstance(troubles, dict)
    assert set(troubles) == {"consumer of changes", "fence feed of here"}
    assert troubles["consumer of changes"].startswith("has failed for ")
    for task in running:
        task.cancel()
    await asyncio.wait(running)


def later(now: Callable[[], float]) -> Callable[[], float]:
    """A clock that runs ten times as fast."""
    began = now()
    return lambda: began + 10 * (now() - began)
