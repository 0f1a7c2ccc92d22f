"""What the rule needs of servers is checked on real ones: a setting that is changed is named within a poll."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis

from cachesvc.app import instance
from cachesvc.app.instance import App
from cachesvc.config.service import Server, Service
from cachesvc.config.topology import Cell, MemcachedServer, Namespace, Region, Topology
from cachesvc.model.clock import SystemClock
from cachesvc.telemetry.metrics import polled
from loadtests.fleet_topology import free_ports
from tests.doubles.servers import RealServer, memcached_server, redis_server, valkey_server
from tests.doubles.waiting import until

Unmet = Callable[[], list[tuple[str, str, str]]]
"""Returns the needs that an instance finds unmet: server, need and reason."""

CELL_IS_RIGHT = ("--maxmemory", "64mb", "--maxmemory-policy", "volatile-lru")
EVICTED = "a fence may be evicted, and the copies that it refuses are answered"
FULL = "a cell that is full of copies refuses fences, and writes get 503"
QUEUE_EVICTED = "changes and fences may be evicted"
RESTARTED = "a restart loses changes, and every namespace is fenced for it"


def cut_off(taken: str) -> str:
    return f"a master that was replaced and is cut off goes on taking {taken}, which the new one lacks"


class Servers(NamedTuple):
    cell: RealServer
    queue: RealServer
    memcached: RealServer
    replica: RealServer
    """It follows nobody until a test says whom."""


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll every 20 ms in place of 10 s."""
    monkeypatch.setattr(polled, "POLL_SECONDS", 0.02)


@pytest.fixture(params=[redis_server, valkey_server], ids=["redis", "valkey"])
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    redis = request.param
    with (
        redis(*CELL_IS_RIGHT, tcp=True) as cell,
        redis("--appendonly", "yes", tcp=True) as queue,
        redis(tcp=True) as replica,
        memcached_server() as memcached,
    ):
        yield Servers(cell, queue, memcached, replica)


def app_of(cell: str, queue: str, memcached: str, *, on_disk: bool = True) -> App:
    """An instance that is not started."""
    region = Region(queue, {"m1": MemcachedServer(memcached)}, queue_on_disk=on_disk)
    topology = Topology(
        version=1,
        regions={"eu": region},
        cells={"c1": Cell("eu", cell)},
        namespaces={"pages": Namespace("web")},
    )
    return App(Service(region="eu", instance="a", server=Server(port=0)), topology)


@pytest.fixture
def app(servers: Servers) -> App:
    """An instance that is built before any loop runs, as in the service: building it may block."""
    return app_of(servers.cell.redis_url, servers.queue.redis_url, servers.memcached.address)


class Turned(SystemClock):
    """The machine's clock, 80 ms ahead."""

    def now_us(self) -> int:
        return super().now_us() + 80_000


@pytest.fixture
def app_with_a_wrong_clock(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> App:
    monkeypatch.setattr(instance, "SystemClock", Turned)
    return app_of(servers.cell.redis_url, servers.queue.redis_url, servers.memcached.address)


async def test_clocks_that_disagree_are_named_also_of_a_cell_that_nobody_reads(
    app_with_a_wrong_clock: App,
) -> None:
    async with running(app_with_a_wrong_clock) as unmet:

        def named() -> list[tuple[str, str]]:
            return [(place, need) for place, need, _ in unmet()]

        await until("both are named", lambda: named() == [("cell c1", "clock"), ("queue eu", "clock")])
        assert "ms off that of this instance: " in unmet()[0][2]
        (cell,) = app_with_a_wrong_clock._backends.cells.values()
        assert -90_000 < cell.statistics().clock_offset_us < -70_000


@asynccontextmanager
async def running(app: App) -> AsyncIterator[Unmet]:
    """The instance, started, once it has looked at all of its servers."""
    await app.start()

    def unmet() -> list[tuple[str, str, str]]:
        found: Any = app.readiness()[1]["settings"]
        return [(one["server"], one["need"], one["why"]) for one in found]

    def kinds() -> set[str]:
        return {kind for kind, *_ in app._backends.findings.statistics()}

    try:
        await until("it has looked at all servers", lambda: kinds() == {"cell", "queue", "memcached"})
        yield unmet
    finally:
        await app.stop()


def said(caplog: pytest.LogCaptureFixture) -> Sequence[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "cachesvc.telemetry.findings" and record.levelno == logging.WARNING
    ]


@pytest.mark.parametrize(
    ("server", "setting", "wrong", "right", "need", "why"),
    [
        ("cell", "maxmemory-policy", "allkeys-lru", "volatile-lru", "eviction", EVICTED),
        ("cell", "maxmemory-policy", "allkeys-random", "volatile-lru", "eviction", EVICTED),
        ("cell", "maxmemory-policy", "noeviction", "volatile-ttl", "room", FULL),
        ("queue", "maxmemory-policy", "allkeys-lfu", "noeviction", "eviction", QUEUE_EVICTED),
        ("queue", "appendonly", "no", "yes", "persistence", RESTARTED),
    ],
)
async def test_a_setting_is_named_while_it_is_wrong(
    servers: Servers,
    app: App,
    server: str,
    setting: str,
    wrong: str,
    right: str,
    need: str,
    why: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    admin = Redis.from_url(getattr(servers, server).redis_url)
    place = {"cell": "cell c1", "queue": "queue eu"}[server]
    async with running(app) as unmet:
        assert unmet() == []
        await admin.config_set(setting, wrong)
        await until("the finding is there", lambda: bool(unmet()))
        what = "appendonly is no, and save is empty" if need == "persistence" else f"{setting} is {wrong}"
        assert unmet() == [(place, need, f"{what}: {why}")]
        # No instance can mend it, and all of them would stop at once.
        await until("it is ready all the same", lambda: app.readiness()[0])
        await admin.config_set(setting, right)
        await until("the finding is gone", lambda: not unmet())
    await admin.aclose()
    begun, ended = said(caplog)
    assert begun.startswith(f"{place}, {need}: {what}: {why}; set ")
    assert ended == f"{place}, {need}: as it must be again"


async def test_save_points_are_persistence_too(servers: Servers, app: App) -> None:
    admin = Redis.from_url(servers.queue.redis_url)
    async with running(app) as unmet:
        await admin.config_set("appendonly", "no")
        await until("the finding is there", lambda: bool(unmet()))
        await admin.config_set("save", "3600 1")
        await until("the finding is gone", lambda: not unmet())
    await admin.aclose()


@pytest.mark.parametrize(
    ("server", "taken"), [("cell", "fences and leases"), ("queue", "changes and fences")]
)
async def test_replicas_need_a_master_that_stops_when_it_is_cut_off(
    servers: Servers, app: App, server: str, taken: str
) -> None:
    master: RealServer = getattr(servers, server)
    host, port = master.address.split(":")
    admin, follower = Redis.from_url(master.redis_url), Redis.from_url(servers.replica.redis_url)
    place = {"cell": "cell c1", "queue": "queue eu"}[server]
    async with running(app) as unmet:
        assert unmet() == []
        await follower.replicaof(host, port)
        await until("the finding is there", lambda: bool(unmet()), seconds=20)
        what = "it has 1 replica, and min-replicas-to-write or min-replicas-max-lag is 0"
        assert unmet() == [(place, "failover", f"{what}: {cut_off(taken)}")]
        await admin.config_set("min-replicas-to-write", 1)
        await until("the finding is gone", lambda: not unmet())
        await admin.config_set("min-replicas-max-lag", 3600)
        await until("so long is as good as never", lambda: bool(unmet()))
        assert unmet()[0][2].startswith("it has 1 replica, and min-replicas-max-lag is 3600 s: ")
        await admin.config_set("min-replicas-max-lag", 0)
        await until("0 is off", lambda: "or min-replicas-max-lag is 0" in unmet()[0][2])
        await admin.config_set("min-replicas-max-lag", 10)
        await until("the finding is gone", lambda: not unmet())
        await admin.config_set("min-replicas-to-write", 0)
        await follower.replicaof("NO", "ONE")
        await until("without replicas there is no failover", lambda: not unmet())
    await admin.aclose()
    await follower.aclose()


async def test_an_address_that_leads_to_a_replica_is_named(servers: Servers, app: App) -> None:
    """Also one that takes writes: they are lost when it next follows its master."""
    admin = Redis.from_url(servers.queue.redis_url)
    host, port = servers.replica.address.split(":")
    async with running(app) as unmet:
        await admin.config_set("replica-read-only", "no")
        await admin.replicaof(host, port)
        await until("the finding is there", lambda: bool(unmet()))
        assert [(place, need) for place, need, _ in unmet()] == [("queue eu", "master")]
        await admin.replicaof("NO", "ONE")
        await until("the finding is gone", lambda: not unmet())
    await admin.aclose()


async def test_what_config_would_say_is_unknown_where_it_is_refused_and_that_is_said_once(
    servers: Servers, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    admin = Redis.from_url(servers.queue.redis_url)
    await admin.config_set("appendonly", "no")
    await admin.acl_setuser("default", enabled=True, nopass=True, commands=["+@all", "-config"], keys=["*"])
    async with running(app) as unmet:
        await until("it has looked often", lambda: app.readiness()[0])
        assert unmet() == []
        assert app.readiness()[1]["settings_unknown"] == {"queue eu": ["persistence"]}
        statistics = app._backends.findings.statistics()
        assert {need for kind, _, need, _ in statistics if kind == "queue"} == {
            *("eviction", "failover", "master", "single", "clock", "version")
        }
    await admin.aclose()
    lines = [record.getMessage() for record in caplog.records if "does not tell" in record.getMessage()]
    assert lines == ["queue eu does not tell whether it has: persistence"]


@pytest.fixture
def app_of_a_queue_in_memory(servers: Servers) -> App:
    return app_of(servers.cell.redis_url, servers.replica.redis_url, servers.memcached.address, on_disk=False)


async def test_a_queue_that_is_meant_to_keep_nothing_is_no_finding(app_of_a_queue_in_memory: App) -> None:
    async with running(app_of_a_queue_in_memory) as unmet:
        assert unmet() == []


@pytest.fixture
def app_of_a_cluster(servers: Servers) -> Iterator[App]:
    with redis_server(
        "--cluster-enabled", "yes", "--cluster-port", str(free_ports(1)[0]), tcp=True
    ) as cluster:
        yield app_of(servers.cell.redis_url, cluster.redis_url, servers.memcached.address, on_disk=False)


async def test_a_cluster_is_named(app_of_a_cluster: App) -> None:
    async with running(app_of_a_cluster) as unmet:
        ((place, need, why),) = unmet()
        assert (place, need) == ("queue eu", "single")
        assert why.startswith("cluster-enabled is 1: ")


@pytest.fixture
def app_of_a_small_memcached(servers: Servers) -> Iterator[App]:
    with memcached_server("-I", "512k", "-M") as memcached:
        yield app_of(servers.cell.redis_url, servers.queue.redis_url, memcached.address)


async def test_a_memcached_that_keeps_less_than_it_could_is_named(app_of_a_small_memcached: App) -> None:
    async with running(app_of_a_small_memcached) as unmet:
        assert unmet() == [
            (
                "memcached m1",
                "item-size",
                "its largest item is 524288 bytes: larger values have no copy in L2",
            ),
            ("memcached m1", "room", "it does not evict: once it is full, it takes no new copies"),
        ]
