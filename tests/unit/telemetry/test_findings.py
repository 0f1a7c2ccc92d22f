"""A need that a server does not meet is told when it begins and when it ends, and not in between."""

import logging
from collections.abc import Mapping, Sequence

import pytest

from cachesvc.telemetry.findings import Check, Effect, Findings

WRONG = "maxmemory-policy is allkeys-lru: a fence may be evicted"


def check(*, is_met: bool | None, need: str = "eviction", effect: Effect = "stale") -> Check:
    if is_met is not False:
        return Check(need, effect, is_met)
    return Check(need, effect, is_met, WRONG, "set volatile-lru")


def looked(findings: Findings, *looks: bool | None) -> None:
    for is_met in looks:
        findings.saw("cell", "c1", [check(is_met=is_met)])


@pytest.mark.parametrize(
    ("looks", "lines"),
    [
        ((True, True), []),
        ((True, False, False, False, True, True), ["begins", "ends"]),
        ((False, False), ["begins"]),
        ((False, True, False, True), ["begins", "ends", "begins", "ends"]),
        ((False, None, None, True), ["begins"]),  # that it is met again was not seen after the wrong one
        ((None, None, True), ["unknown"]),
        ((None, False), ["unknown", "begins"]),
        ((True, None, None), []),  # what has been told once is not unknown for the server
    ],
)
def test_the_log_has_a_line_for_each_change(
    looks: Sequence[bool | None], lines: Sequence[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    looked(Findings(), *looks)
    texts = {
        "begins": f"cell c1, eviction: {WRONG}; set volatile-lru",
        "ends": "cell c1, eviction: as it must be again",
        "unknown": "cell c1 does not tell whether it has: eviction",
    }
    assert [record.getMessage() for record in caplog.records] == [texts[line] for line in lines]


@pytest.mark.parametrize(
    ("is_met", "unmet", "untold", "statistics"),
    [
        (True, [], {}, {("cell", "c1", "eviction", "stale"): 0}),
        (None, [], {"cell c1": ["eviction"]}, {}),
        (
            False,
            [
                {
                    "server": "cell c1",
                    "need": "eviction",
                    "effect": "stale",
                    "why": WRONG,
                    "remedy": "set volatile-lru",
                }
            ],
            {},
            {("cell", "c1", "eviction", "stale"): 1},
        ),
    ],
)
def test_the_last_look_counts(
    *,
    is_met: bool | None,
    unmet: Sequence[Mapping[str, str]],
    untold: Mapping[str, Sequence[str]],
    statistics: Mapping[tuple[str, ...], int],
) -> None:
    findings = Findings()
    looked(findings, False, True, None, is_met)
    assert (findings.unmet(), findings.untold(), findings.statistics()) == (unmet, untold, statistics)


def test_what_may_bring_old_values_comes_first() -> None:
    findings = Findings()
    findings.saw("cell", "c1", [check(is_met=False, need="room", effect="cost")])
    findings.saw("queue", "eu", [check(is_met=False)])
    assert [one["need"] for one in findings.unmet()] == ["eviction", "room"]
    assert repr(findings) == "<Findings [2 servers, 2 needs not met]>"
