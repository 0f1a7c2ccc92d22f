"""docs/operate.md names every metric that the code has, and no other."""

from pathlib import Path

from cachesvc.telemetry.dashboard.panels import exposed_name
from cachesvc.telemetry.metrics.table import TABLE

DOCS = Path(__file__).parents[3] / "docs"


def test_every_metric_stands_in_the_operators_guide_and_no_other_does() -> None:
    rows = {
        f"| `{exposed_name(metric)}` | {metric.kind} | {', '.join(metric.labels) or '–'} | {metric.help} |"
        for metric in TABLE
    }
    lines = (DOCS / "operate.md").read_text().splitlines()
    assert {
        line
        for line in lines
        if line.startswith("| `cachesvc_") and line.count("|") == 5 and "lookups_total{" not in line
    } == rows
