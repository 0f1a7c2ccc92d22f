"""The rules that are shipped: `promtool` accepts them and runs their tests, and nobody is woken without a page to read."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cachesvc.telemetry.dashboard.panels import exposed_name
from cachesvc.telemetry.metrics.table import TABLE

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "config" / "prometheus"
PLACE = re.compile(r"docs/operate\.md#([a-z0-9-]+)")


def promtool(*words: str) -> str:
    """Returns what promtool prints; a failure is told in promtool's words.

    If promtool is not installed the test fails too (`make servers` installs it).
    """
    done = subprocess.run(["promtool", *words], cwd=PROMETHEUS, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]:
        yield from group["rules"]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def names() -> list[str]:
    return sorted({rule["alert"] for rule in alerts()})


def sections() -> dict[str, str]:
    """Returns the sections of the runbook: anchor → text."""
    parts = re.split(r"^#+ (.+)$", (ROOT / "docs" / "operate.md").read_text(), flags=re.MULTILINE)
    return {anchor(title): text for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def anchor(title: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_promtool_accepts_the_rules_and_the_example() -> None:
    assert "SUCCESS" in promtool("check", "rules", "rules.yaml")
    assert "SUCCESS" in promtool("check", "config", "prometheus.yaml")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_alert_fires_when_it_should_and_is_silent_while_all_is_well() -> None:
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yaml")


def test_the_tests_name_every_group_in_its_order() -> None:
    """Left out, a group is evaluated before or after the others as it happens, and one test in four fails."""
    shipped = [group["name"] for group in yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]]
    assert yaml.safe_load((PROMETHEUS / "rules_test.yaml").read_text())["group_eval_order"] == shipped


@pytest.mark.parametrize("name", names())
def test_an_alert_has_a_test_of_either_kind(name: str) -> None:
    tests = [
        one
        for group in yaml.safe_load((PROMETHEUS / "rules_test.yaml").read_text())["tests"]
        for one in group["alert_rule_test"]
    ]
    assert {bool(one.get("exp_alerts")) for one in tests if one["alertname"] == name} == {True, False}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_leads_to_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith(".")
    place = PLACE.fullmatch(rule["annotations"]["runbook"])
    assert place is not None
    assert place[1] == anchor(rule["alert"])
    section = sections()[place[1]]
    missing = [word for word in ("**Means**", "**Look**", "**Do**", "**Do not**") if word not in section]
    assert not missing


def test_no_section_of_the_runbook_is_left_of_an_alert_that_is_gone() -> None:
    found = {title for title in sections() if title.startswith("cachesvc") and title != "cachesvc"}
    assert found == {anchor(name) for name in names()}


def test_links_within_the_runbook_lead_somewhere() -> None:
    linked = set(re.findall(r"\]\(#([^)]+)\)", (ROOT / "docs" / "operate.md").read_text()))
    assert linked <= sections().keys()


def test_rules_are_about_metrics_that_there_are() -> None:
    known = {exposed_name(metric) for metric in TABLE}
    histograms = {exposed_name(metric) for metric in TABLE if metric.kind == "histogram"}
    known |= {f"{name}_{part}" for name in histograms for part in ("bucket", "count", "sum")}
    named = {name for rule in rules() for name in re.findall(r"(?<![\w:])cachesvc_\w+", rule["expr"])}
    assert named <= known
