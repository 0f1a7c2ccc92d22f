"""Each need is judged by what a server tells of itself; what it does not tell is unknown."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from cachesvc.tiers.redis_report import RedisReport, version_of
from cachesvc.tiers.server_settings import (
    need_of_seal,
    needs_of_cell,
    needs_of_memcached,
    needs_of_queue,
)

S = 100_000
WELL = {
    "redis_version": "7.2.4",
    "role": "master",
    "connected_slaves": "0",
    "maxmemory": "1000",
    "maxmemory_policy": "volatile-lru",
    "cluster_enabled": "0",
    "aof_enabled": "1",
}
SETTINGS = {"save": "", "min-replicas-to-write": "0", "min-replicas-max-lag": "10"}


def judged(
    info: Mapping[str, str],
    settings: Mapping[str, str] | None = SETTINGS,
    *,
    offset_us: int = 0,
    within_us: int = 0,
) -> dict[str, bool | None]:
    """Whether each need of a cell and of a queue is met."""
    report = RedisReport({**WELL, **info}, settings, offset_us, within_us)
    needs = {need.name: need for need in (*needs_of_queue(S, on_disk=True), *needs_of_cell(S))}
    return {name: need.check(report).is_met for name, need in needs.items()}


def test_a_server_that_sentinels_watch_must_stop_when_cut_off_also_without_replicas_now() -> None:
    """Its replicas may be the ones that are cut off."""
    needs = (*needs_of_queue(S, on_disk=True, is_watched=True), *needs_of_cell(S, is_watched=True))
    for info, is_met in (({}, False), ({"min_slaves_good_slaves": "0"}, True)):
        report = RedisReport({**WELL, **info}, SETTINGS, 0, 0)
        assert {one.check(report).is_met for one in needs if one.name == "failover"} == {is_met}


def test_a_server_as_it_must_be_meets_all() -> None:
    assert set(judged({}).values()) == {True}


@pytest.mark.parametrize(
    ("info", "settings", "need", "is_met"),
    [
        *(
            ({"maxmemory_policy": policy}, SETTINGS, "eviction", False)
            for policy in ("allkeys-lru", "allkeys-lfu")
        ),
        ({"maxmemory_policy": "eviction"}, SETTINGS, "eviction", False),  # of a server that is like Redis
        ({"maxmemory_policy": "noeviction"}, SETTINGS, "eviction", True),
        ({"maxmemory_policy": "noeviction"}, SETTINGS, "room", False),
        ({"maxmemory_policy": "noeviction", "maxmemory": "0"}, SETTINGS, "room", True),
        ({"connected_slaves": "2"}, SETTINGS, "failover", False),
        ({"connected_slaves": "2"}, None, "failover", False),
        ({"connected_slaves": "2", "min_slaves_good_slaves": "2"}, None, "failover", True),
        ({"connected_slaves": "2", "min_slaves_good_slaves": "2"}, SETTINGS, "failover", True),
        (
            {"connected_slaves": "2", "min_slaves_good_slaves": "2"},
            {**SETTINGS, "min-replicas-max-lag": "11"},
            "failover",
            False,
        ),
        ({"role": "slave"}, SETTINGS, "master", False),
        ({"role": "active-replica"}, SETTINGS, "master", False),
        ({"cluster_enabled": "1"}, SETTINGS, "single", False),
        ({"aof_enabled": "0"}, SETTINGS, "persistence", False),
        ({"aof_enabled": "0"}, {**SETTINGS, "save": "3600 1"}, "persistence", True),
        ({"aof_enabled": "0"}, None, "persistence", None),
        ({"aof_enabled": "0"}, {}, "persistence", None),
        ({"aof_enabled": "1"}, None, "persistence", True),
        ({"redis_version": "6.2.14"}, SETTINGS, "version", False),
        ({"redis_version": "7.0.0"}, SETTINGS, "version", True),
        ({"redis_version": "10.0.0"}, SETTINGS, "version", True),
        ({"redis_version": "unstable"}, SETTINGS, "version", None),
    ],
)
def test_a_need_is_judged(
    *, info: Mapping[str, str], settings: Mapping[str, str] | None, need: str, is_met: bool | None
) -> None:
    assert judged(info, settings)[need] is is_met


@pytest.mark.parametrize(
    ("offset_us", "within_us", "is_met"),
    [
        (50_000, 0, True),
        (50_001, 0, False),
        (-50_001, 0, False),
        (80_000, 40_000, True),  # a cell 80 ms away: the offset is not known better
        (-80_000, 20_000, False),
    ],
)
def test_a_clock_is_judged_by_what_the_exchange_cannot_account_for(
    *, offset_us: int, within_us: int, is_met: bool
) -> None:
    assert judged({}, offset_us=offset_us, within_us=within_us)["clock"] is is_met


@pytest.mark.parametrize("lost", sorted(WELL))
def test_a_field_that_info_lacks_is_unknown_and_no_other_need_with_it(lost: str) -> None:
    report = RedisReport({name: value for name, value in WELL.items() if name != lost}, None, 0, 0)
    needs = {need.name: need for need in (*needs_of_queue(S, on_disk=True), *needs_of_cell(S))}
    unknown = {name for name, need in needs.items() if need.check(report).is_met is None}
    assert (
        unknown
        == {
            "redis_version": {"version"},
            "role": {"master"},
            "connected_slaves": {"failover"},
            "maxmemory": {"room"},
            "maxmemory_policy": {"eviction", "room"},
            "cluster_enabled": {"single"},
            "aof_enabled": {"persistence"},
        }[lost]
    )


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("7.0.15", (7, 0)),
        ("1.6.18_4_gabc", (1, 6)),
        ("10.1", (10, 1)),
        ("7", None),
        ("", None),
        ("v7.0", None),
    ],
)
def test_a_version_is_its_first_two_numbers(text: str, version: tuple[int, int] | None) -> None:
    assert version_of(text) == version


def test_the_operators_guide_has_a_row_for_each_need_with_its_effect() -> None:
    page = (Path(__file__).parents[3] / "docs" / "operate.md").read_text()
    rows = re.findall(r"^\| ([a-z, ]+) \| `([a-z-]+)` \|.*\| (stale|cost) \|$", page, re.MULTILINE)
    listed = [
        *(("cell", need.name, need.effect) for need in needs_of_cell(S)),
        *(("queue", need.name, need.effect) for need in needs_of_queue(S, on_disk=True)),
        *(("memcached", need.name, need.effect) for need in needs_of_memcached()),
        ("memcached", need_of_seal().name, need_of_seal().effect),
    ]
    assert sorted(
        (kind, name, effect) for kinds, name, effect in rows for kind in kinds.split(", ")
    ) == sorted(listed)
