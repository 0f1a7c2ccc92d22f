"""The load against a small deployment: what it notes is judged to hold, and an instance that ignores its fences is found."""

import asyncio
from collections import Counter
from random import Random

import aiohttp
import pytest
from msgspec.structs import replace

from cachesvc.commands.check.history import Announcement, HistoryWriter, Read, Record
from cachesvc.commands.check.judge import judge
from cachesvc.commands.check.load import announcer
from cachesvc.commands.check.load.announcer import Announcer, Told, is_queue_down
from cachesvc.commands.check.load.instances import InstanceError, Instances, answered_by
from cachesvc.commands.check.load.origin import Snapshot
from cachesvc.commands.check.load.producers import Producers, QueueError
from cachesvc.commands.check.load.workload import Dice, Keyspace
from cachesvc.commands.check.run import CheckError, check
from cachesvc.commands.check.settings import AT_ONCE, CheckSettings, deployment_of, namespace_yaml
from cachesvc.config.topology import Namespace, Origin, Region, Topology
from cachesvc.model.errors import ConfigError
from loadtests.fleet_topology import free_ports
from tests.doubles.deployment import deployment

NAMES = ("eu/eu-a", "eu/eu-b", "us/us-a")


@pytest.fixture
def settings() -> CheckSettings:
    """Short, and with a bound that lets it settle at once."""
    (port,) = free_ports(1)
    return CheckSettings(
        instances={},
        origin_port=port,
        duration_seconds=0.6,
        rate=400,
        delays=AT_ONCE,
        max_lag_us=100_000,
        heartbeat_us=1,
        skew_us=1,
    )


async def checked(settings: CheckSettings, *, deaf: str = "") -> HistoryWriter:
    history = HistoryWriter()
    async with deployment(*NAMES, origin=f"http://{settings.origin_address}/check/{{key}}") as fake:
        if deaf:
            fake.instances[deaf].is_deaf = True
        await check(replace(settings, instances=fake.addresses), history)
    return history


async def test_a_coherent_deployment_passes(settings: CheckSettings) -> None:
    history = await checked(settings)
    verdict = judge(history.records, least_share=0)
    assert verdict.broken == ()
    assert {"C0", "C1", "C2", "C3", "C7", "C10"}.isdisjoint(verdict.unobserved)
    kinds = Counter(type(record).__name__ for record in history.records)
    assert {"Run", "Write", "Announcement", "Fenced", "Merged", "Load", "Read"} <= set(kinds)
    read = {(read.instance, read.key) for read in history.records if isinstance(read, Read)}
    assert len(read) == len(NAMES) * (settings.keys + settings.clients), (
        "the last sweep reads every key everywhere"
    )


async def test_an_instance_that_does_not_heed_its_fences_is_named(settings: CheckSettings) -> None:
    verdict = judge((await checked(settings, deaf="us/us-a")).records, least_share=0)
    assert "C3" in verdict.broken
    assert {violation.instance for violation in verdict.finding("C3").examples} == {"us/us-a"}


async def test_it_does_not_begin_while_its_origins_address_is_taken(settings: CheckSettings) -> None:
    server = await asyncio.start_server(
        lambda _reader, writer: writer.close(), "127.0.0.1", settings.origin_port
    )
    async with server:
        with pytest.raises(
            CheckError, match=rf"cannot listen on 127.0.0.1:{settings.origin_port}.*--origin-listen"
        ):
            await checked(settings)


def dice(seed: int, **more: float) -> Dice:
    space = Keyspace.of(CheckSettings(instances={}, run_id="r"))
    return Dice(
        Random(seed), space, more.get("read_share", 0.7), with_events=bool(more.get("with_events", 1))
    )


def test_a_seed_gives_the_same_acts_again_and_another_gives_others() -> None:
    acts = [[(dice_.act(), *dice_.keys("any")) for _ in range(50)] for dice_ in (dice(1), dice(1), dice(2))]
    assert acts[0] == acts[1] != acts[2]


def test_acts_come_in_the_shares_asked_for() -> None:
    rolling = dice(1)
    counts = Counter(rolling.act() for _ in range(10_000))
    shares = {act: count / 10_000 for act, count in counts.items()}
    assert shares == pytest.approx(
        {"session": 0.35, "read": 0.35, "api": 0.12, "event": 0.08, "tag": 0.04, "put": 0.06}, abs=0.02
    )


def test_without_queues_events_become_calls() -> None:
    rolling = dice(1, with_events=0)
    assert "event" not in {rolling.act() for _ in range(1000)}


def test_sessions_keep_to_keys_that_share_no_tag_with_the_others() -> None:
    space = Keyspace.of(CheckSettings(instances={}))
    own = {tag for key in space.of_sessions for tag in space.tags_of[key]}
    other = {tag for key in space.keys if key not in space.of_sessions for tag in space.tags_of[key]}
    assert space.of_sessions
    assert own.isdisjoint(other)
    assert any(len(tags) == 2 for tags in space.tags_of.values())


@pytest.mark.parametrize(
    ("cache_status", "expected"),
    [
        ("cachesvc-l1; hit; ttl=42", ("hit", "l1")),
        ("cachesvc-l2; hit; ttl=-3, cachesvc-l1; fwd=stale", ("stale", "l2")),
        ("cachesvc-l3; fwd=uri-miss; stored, cachesvc-l2; fwd=uri-miss", ("loaded", "origin")),
        ("", ("loaded", "origin")),
    ],
)
def test_who_answered_is_read_from_the_cache_status(cache_status: str, expected: tuple[str, str]) -> None:
    assert answered_by(cache_status) == expected


@pytest.mark.parametrize(
    ("error", "is_down"),
    [
        (QueueError("eu", "is away"), True),
        (InstanceError("eu/eu-a", "queue-unavailable"), True),
        (InstanceError("eu/eu-a", "ClientConnectorError"), False),
    ],
)
def test_only_a_queue_that_takes_nothing_is_a_queue_that_is_down(error: Exception, is_down: bool) -> None:
    assert is_queue_down(error) is is_down


def _no_snapshot(key: str) -> Snapshot:
    return Snapshot(key, 1, b"", ())


async def test_a_put_that_fails_is_told_by_a_call(
    settings: CheckSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later than it could be stored."""
    monkeypatch.setattr(announcer, "PUT_SECONDS", 0.01)
    noted: list[Record] = []
    async with (
        deployment(*NAMES, origin="") as fake,
        aiohttp.ClientSession() as http,
        Producers({}, "/test") as producers,
    ):
        instances = Instances({"eu/eu-a": fake.addresses["eu/eu-a"]}, "nowhere", http)
        telling = Announcer("check", instances, producers, Random(1), noted.append, lambda: 7, _no_snapshot)
        told = await telling.announce(Told("put", (("k", 1),)))
        await telling.stop()
    assert (told.how, told.instance, len(told.failures)) == ("api", "eu/eu-a", 1)
    assert told.id.startswith("eu:")


async def test_what_was_never_accepted_is_noted_as_such(settings: CheckSettings) -> None:
    noted: list[Record] = []
    async with aiohttp.ClientSession() as http, Producers({}, "/test") as producers:
        nobody = Instances({"eu/eu-a": f"http://127.0.0.1:{settings.origin_port}"}, "check", http)
        telling = Announcer("check", nobody, producers, Random(1), noted.append, lambda: 7, _no_snapshot)
        announcing = telling.announce(Told("api", (("k", 1),)))
        while not telling.failed:  # noqa: ASYNC110  nobody but this test wants to know
            await asyncio.sleep(0)
        await telling.stop()
    assert announcing.cancelled()
    assert noted == [
        Announcement(
            "api", "", "", (("k", 1),), 7, 7, reached=False, failures=(7,) * telling.failed, failed_in=("eu",)
        )
    ]
    assert nobody.here() == []


def topology(namespace: Namespace | None) -> Topology:
    region = Region("redis://127.0.0.1:1/0", instances={"eu-a": "http://127.0.0.1:2"})
    return Topology(1, {"eu": region}, {}, {"check": namespace} if namespace else {})


def test_a_deployments_settings_come_from_its_topology() -> None:
    found = deployment_of(
        topology(Namespace("platform", origin=Origin("http://host:9200/check/{key}"))),
        "check",
        "0.0.0.0:9200",
    )
    assert (found.instances, found.queues) == (
        {"eu/eu-a": "http://127.0.0.1:2"},
        {"eu": "redis://127.0.0.1:1/0"},
    )
    assert (found.look_aside, found.origin_port, found.max_lag_us, found.delays.late_seconds) == (
        False,
        9200,
        2_000_000,
        5.5,
    )
    assert deployment_of(topology(Namespace("platform")), "check", "127.0.0.1:9200").look_aside


@pytest.mark.parametrize(
    ("namespace", "address", "why"),
    [
        (None, "127.0.0.1:9200", "Add and deploy"),
        (
            Namespace("x", origin=Origin("http://127.0.0.1:9100/docs/{key}")),
            "127.0.0.1:9200",
            "--origin-listen",
        ),
        (Namespace("x"), "9200", "write host:port"),
    ],
)
def test_a_namespace_that_cannot_be_checked_is_refused_with_what_to_do(
    namespace: Namespace | None, address: str, why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        deployment_of(topology(namespace), "check", address)


def test_the_namespace_that_is_asked_for_can_be_pasted() -> None:
    assert 'url: "http://127.0.0.1:9200/check/{key}"' in namespace_yaml("check", "127.0.0.1:9200")
