"""The watch: what a canary round measures, and that what it remembers is bounded."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from msgspec.structs import replace

from cachesvc.commands.check.history import Fenced, Merged, Read, Run, Write
from cachesvc.commands.check.load.producers import Producers
from cachesvc.commands.check.settings import AT_ONCE, CheckSettings
from cachesvc.commands.check.watch.metrics import WatchMetrics
from cachesvc.commands.check.watch.rolling_history import RollingHistory
from cachesvc.commands.check.watch.watch import Canaries
from tests.doubles.deployment import FakeDeployment, deployment

NAMES = ("eu/eu-a", "us/us-a")


class Watched:
    def __init__(self, canaries: Canaries, metrics: WatchMetrics, fake: FakeDeployment) -> None:
        self.canaries = canaries
        self.metrics = metrics
        self.fake = fake

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"cachesvc_check_{name}", labels) or 0.0


@asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    settings = CheckSettings(
        instances={}, delays=AT_ONCE, max_lag_us=1, heartbeat_us=1, skew_us=1, deadline_seconds=0.2
    )
    metrics = WatchMetrics()
    async with (
        aiohttp.ClientSession() as http,
        Producers({}, "/test") as producers,
        deployment(*NAMES, origin="") as fake,
    ):
        canaries = Canaries(
            replace(settings, instances=fake.addresses), metrics, http, producers, pause_seconds=1
        )
        await canaries.origin.start("127.0.0.1", 0)
        for instance in fake.instances.values():
            instance.load_from(canaries.origin.url)
        try:
            yield Watched(canaries, metrics, fake)
        finally:
            await canaries.announcer.stop()
            await canaries.origin.stop()


async def test_a_round_measures_every_instance_once() -> None:
    async with watched() as watch:
        verdict = await watch.canaries.round(watch.canaries.keys[0])
        assert verdict.broken == ()
        for region in ("eu", "us"):
            counts = [
                watch.value("staleness_seconds_count", region=region, tier=tier) for tier in ("l1", "origin")
            ]
            assert sum(counts) == 1, region
        assert watch.value("rounds_total") == 1
        assert watch.value("announcements_total", outcome="accepted") == 1
        assert watch.value("instances", state="here") == 2


async def test_an_instance_that_keeps_the_old_value_is_counted_and_judged() -> None:
    async with watched() as watch:
        watch.fake.instances["us/us-a"].is_deaf = True
        verdict = await watch.canaries.round(watch.canaries.keys[0])
        assert "C2" in verdict.broken
        assert watch.value("violations_total", check="C2") > 0
        assert watch.value("stale_reads_total", region="us", tier="l1") > 0
        assert watch.value("staleness_seconds_sum", region="us", tier="l1") >= 0.2


async def test_the_next_round_of_a_key_builds_on_its_last() -> None:
    async with watched() as watch:
        key = watch.canaries.keys[0]
        assert [(await watch.canaries.round(key)).broken for _ in range(3)] == [(), (), ()]


@pytest.fixture
def now() -> list[int]:
    return [0]


def test_what_it_remembers_is_bounded_and_reads_are_given_once(now: list[int]) -> None:
    run = Run(1, NAMES, 1, 1, 1)
    history = RollingHistory(run, keep_seconds=60, now=lambda: now[0])
    for second in range(1000):
        now[0] = second * 1_000_000
        history.add(Write("k", second, now[0]))
        history.add(Fenced(f"eu:{second}-0", "eu", f"{second}-0"))
        history.add(Merged("eu/eu-a", "eu", f"{second}-0", now[0]))
    history.add(Read("eu/eu-a", "k", now[0], now[0], "hit", 999))
    assert len(history) == 2 * 61 + 31 + 1
    first, second_time = history.take(), history.take()
    assert first[0] == run
    assert [record for record in first if record not in second_time] == [
        Read("eu/eu-a", "k", now[0], now[0], "hit", 999)
    ]
