"""States of a server that need a person: no room, and dead letters that stand."""

from collections.abc import Mapping

import pytest

from cachesvc.tiers.redis_report import RedisReport
from cachesvc.tiers.server_conditions import conditions_of_cell, conditions_of_queue

MIB = 1 << 20


def said(info: Mapping[str, str], dead_letters: int | None = 0) -> dict[str, str]:
    """What is wrong with a queue, by the name of the need."""
    report = RedisReport(info, None, 0, 0, dead_letters)
    checks = [need.check(report) for need in conditions_of_queue()]
    return {check.need: check.why for check in checks if not check.is_met}


def info(used: int, limit: int, policy: str = "volatile-lru", **keyspace: str) -> dict[str, str]:
    return {"used_memory": str(used), "maxmemory": str(limit), "maxmemory_policy": policy, **keyspace}


@pytest.mark.parametrize(
    ("info", "is_full"),
    [
        (info(9 * MIB, 10 * MIB), False),
        (info(10 * MIB, 10 * MIB), True),
        (info(11 * MIB, 10 * MIB, db0="keys=5,expires=0,avg_ttl=0"), True),
        (info(11 * MIB, 10 * MIB, db0="keys=5,expires=0", db1="keys=9,expires=2"), False),
        (info(11 * MIB, 10 * MIB, "noeviction", db0="keys=5,expires=5"), True),
        (info(11 * MIB, 0), False),
        ({"used_memory": "5"}, False),
        ({"maxmemory": "5"}, False),
        ({"used_memory": "much", "maxmemory": "5"}, False),
        ({}, False),
    ],
)
def test_a_server_is_full_if_it_has_no_room_and_nothing_to_evict(
    info: Mapping[str, str], *, is_full: bool
) -> None:
    assert ("full" in said(info)) is is_full


def test_how_full_it_is_and_what_that_does_is_said() -> None:
    assert said(info(11 * MIB, 10 * MIB)) == {
        "full": "it is full (11.0 of 10.0 MiB): it refuses changes and fences, and invalidations get 503"
    }
    (cell,) = conditions_of_cell()
    why = cell.check(RedisReport(info(11 * MIB, 10 * MIB), None, 0, 0)).why
    assert (
        why
        == "it is full (11.0 of 10.0 MiB): it refuses fences and copies, and writes and invalidations get 503"
    )


@pytest.mark.parametrize(
    ("dead", "why"),
    [
        (0, None),
        (None, None),
        (
            1,
            "it has 1 dead letter: an event that breaks the rules was not applied, so old values may be answered",
        ),
        (
            3,
            "it has 3 dead letters: an event that breaks the rules was not applied, so old values may be answered",
        ),
    ],
)
def test_dead_letters_are_said_as_long_as_they_stand(dead: int | None, why: str | None) -> None:
    assert said({}, dead).get("dead-letters") == why
