"""Progress while a scenario runs.

On a terminal it is a live table of the last seconds; in a log, a line every ten seconds.
"""

import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtests.load.judge_figures import figures_of
from loadtests.load.judge_rows import Sample, Story
from loadtests.load.report_words import shown

SECONDS_SHOWN = 12
LOG_SECONDS = 10.0
COLUMNS = ("rate", "failed_share", "p50_ms", "p99_ms", "hit_share", "stale_share", "origin_loads_per_s")
HEADS = ("req/s", "failed", "p50", "p99", "hits", "stale", "origin loads/s")


class Progress:
    """A context manager; `show` is called about twice a second while it is open."""

    def __init__(self, story: Callable[[], Story], console: Console | None = None) -> None:
        self._story = story
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._logged_at = 0.0

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self) -> None:
        """Updates the table, or writes a line if the last one is old enough."""
        if self._console.is_terminal:
            self._live.update(screen(self._story()), refresh=True)
        elif time.monotonic() - self._logged_at > LOG_SECONDS:
            self._logged_at = time.monotonic()
            self._console.print(line(self._story()), soft_wrap=True)


def screen(story: Story) -> Group:
    """The table of the last seconds, and a bar of the time that has passed."""
    table = Table(title=f"{story.scenario}: {phase(story)}", title_justify="left")
    for head in ("second", *HEADS, "broken"):
        table.add_column(head, justify="left" if head == "broken" else "right")
    for sample in story.samples[-SECONDS_SHOWN:]:
        table.add_row(
            f"{sample.t - story.began:.0f}",
            *cells(story, sample),
            Text(broken_at(story, sample.t), style="red"),
        )
    return Group(
        table, ProgressBar(total=story.seconds, completed=min(story.seconds, _passed(story)), width=60)
    )


def line(story: Story) -> str:
    """The last second in one line."""
    if not story.samples:
        return f"{story.scenario}: starting"
    last = story.samples[-1]
    told = ", ".join(f"{head} {cell}" for head, cell in zip(HEADS, cells(story, last), strict=True))
    broken = f"; {what}" if (what := broken_at(story, last.t)) else ""
    return f"{story.scenario}: {_passed(story):.0f} of {story.seconds:.0f} s ({phase(story)}): {told}{broken}"


def phase(story: Story) -> str:
    """The stretches that the last second lies in."""
    now = story.samples[-1].t if story.samples else 0.0
    return (
        ", ".join(name for name, (begins, ends) in story.stretches.items() if begins <= now < ends)
        or "between stretches"
    )


def broken_at(story: Story, at: float) -> str:
    """The faults that were on during the second that begins at `at`."""
    return ", ".join(
        mark.what for mark in story.marks if mark.began < at + 1 and (mark.ended is None or mark.ended > at)
    )


def cells(story: Story, sample: Sample) -> list[str]:
    """The figures of one second, in the order of `COLUMNS`."""
    # Two rows of the origin make a rate; they may lie half a second away from the callers' second.
    figures = figures_of([sample], story.servers, sample.t, sample.t + 1)
    loads = figures_of([], story.servers, sample.t - 1.5, sample.t + 1.5)
    return [shown(name, {**loads, **figures}.get(name)) for name in COLUMNS]


def _passed(story: Story) -> float:
    return story.samples[-1].t + 1 - story.began if story.samples else 0.0
