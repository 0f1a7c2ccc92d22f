"""The report of scenarios: one in full, all of them in a table, and the files that stay."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtests.load.judge import Finding
from loadtests.load.judge_rows import Story
from loadtests.load.plot import svg_of
from loadtests.load.plot_page import Kept, index_of, page_of
from loadtests.load.report_words import shown
from loadtests.scenarios.scenario import Scenario

COLUMNS = {
    "rate": "req/s",
    "goodput": "good/s",
    "failed_share": "failed",
    "p50_ms": "p50",
    "p99_ms": "p99",
    "hit_share": "hits",
    "stale_share": "stale",
    "too_stale": "too stale",
    "origin_loads_per_s": "loads/s",
    "origin_peak": "peak",
}
"""The columns of the summary: figure → head.

The figures are those of the stretch that the scenario is about.
"""
BUSY = 0.9
"""Share of a core. Above it, the load generator may have been the slow part."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one scenario."""

    scenario: Scenario
    folder: Path
    figures: dict[str, dict[str, float]]
    """Stretch → figure → value."""
    findings: list[Finding]
    failure: str = ""
    """Why the scenario could not run to its end; empty if it did."""
    doubt: str = ""
    """Why the run shows nothing about the service although it ended; empty if it does."""

    @property
    def ok(self) -> bool:
        """True if the scenario ran, can be judged, and kept every limit."""
        return not self.failure and not self.doubt and all(finding.ok for finding in self.findings)

    @property
    def verdict(self) -> str:
        """The outcome in a few words."""
        if self.failure:
            return "NOT RUN"
        if self.doubt:
            return "NOT JUDGED"
        missed = sum(not finding.ok for finding in self.findings)
        return f"{missed} of {len(self.findings)} MISSED" if missed else f"ok ({len(self.findings)} limits)"

    @property
    def cells(self) -> list[str]:
        """The scenario's figures for the summary, in the order of `COLUMNS`."""
        figures = self.figures.get(self.scenario.shown, {})
        return [shown(figure, figures.get(figure)) for figure in COLUMNS]

    def reasons(self) -> list[str]:
        """Why the outcome is not ok."""
        if self.failure:
            return [f"it could not run to its end: {self.failure}"]
        if self.doubt:
            return [f"it says nothing of the service: {self.doubt}"]
        return [finding.reason() for finding in self.findings if not finding.ok]

    def remarks(self) -> list[str]:
        """Warnings for readers of the figures."""
        busy = [stretch for stretch, figures in self.figures.items() if figures.get("driver_cpu", 0.0) > BUSY]
        return (
            [f"the load generator itself was busy in {', '.join(busy)}: its latencies are in the figures"]
            if busy
            else []
        )


def keep(outcome: Outcome, story: Story) -> None:
    """Writes the verdict, the marks and the plot into the scenario's folder."""
    folder = outcome.folder
    (folder / "marks.json").write_bytes(msgspec.json.format(msgspec.json.encode(story.marks)))
    (folder / "verdict.json").write_bytes(msgspec.json.format(msgspec.json.encode(as_json(outcome))))
    drawn = svg_of(story)
    (folder / "plot.svg").write_text(drawn)
    (folder / "plot.html").write_text(
        page_of(outcome.scenario.name, outcome.scenario.about, outcome.verdict, _table(outcome), drawn)
    )


def as_json(outcome: Outcome) -> dict[str, object]:
    """The outcome as it stands in `verdict.json`."""
    return {
        "scenario": outcome.scenario.name,
        "about": outcome.scenario.about,
        "stretch": outcome.scenario.shown,
        "ok": outcome.ok,
        "verdict": outcome.verdict,
        "shown": outcome.cells,
        "failure": outcome.failure,
        "missed": outcome.reasons(),
        "limits": [
            {
                "stretch": each.stretch,
                "figure": each.figure,
                "value": each.value,
                "bound": each.bound,
                "ok": each.ok,
            }
            for each in outcome.findings
        ],
        "figures": outcome.figures,
    }


def print_outcome(out: Console, outcome: Outcome) -> None:
    """Prints one outcome with its reasons."""
    style = "green" if outcome.ok else "bold red"
    out.print(f"[{style}]{outcome.scenario.name}: {outcome.verdict}[/]", highlight=False)
    for reason in outcome.reasons():
        out.print(f"  {escape(reason)}", highlight=False, soft_wrap=True)
    for remark in outcome.remarks():
        out.print(f"  note: {escape(remark)}", highlight=False, soft_wrap=True)
    out.print(
        f"  in {outcome.folder}/: plot.html, locust.html, *.csv, samples.jsonl",
        highlight=False,
        soft_wrap=True,
    )


def print_summary(out: Console, outcomes: Sequence[Outcome]) -> None:
    """Prints a table with a row for each scenario."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("scenario", "stretch", *COLUMNS.values(), "verdict"):
        table.add_column(
            head, justify="left" if head in ("scenario", "stretch", "verdict") else "right", no_wrap=True
        )
    for outcome in outcomes:
        style = "green" if outcome.ok else "bold red"
        table.add_row(
            outcome.scenario.name, outcome.scenario.shown, *outcome.cells, f"[{style}]{outcome.verdict}[/]"
        )
    out.print()
    out.print(table)


def write_index(folder: Path, names: Iterable[str]) -> Path:
    """Writes a page of the latest run of each scenario, and returns the page's path.

    Scenarios that have never run are left out.
    """
    verdicts = [folder / name / "verdict.json" for name in names]
    kept = [msgspec.json.decode(path.read_bytes(), type=Kept) for path in verdicts if path.exists()]
    path = folder / "index.html"
    path.write_text(index_of(("scenario", "stretch", *COLUMNS.values(), "verdict"), kept))
    return path


def _table(outcome: Outcome) -> list[tuple[str, str, str, str, bool]]:
    """Stretch, figure, value, what is allowed, and whether the limit is kept."""
    return [
        (each.stretch, each.figure, shown(each.figure, each.value), each.allowed, each.ok)
        for each in outcome.findings
    ]
