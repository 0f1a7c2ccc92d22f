"""A picture of a run: latency, requests, answerers, and origin loads over time.

The times of faults are shaded. The picture is SVG without any dependency, readable by itself in a
browser or in Markdown, in light and dark. All panels share the time axis.
"""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise

from loadtests.load.judge_rows import Mark, Story
from loadtests.load.plot_axes import Scale, log_reaching, reaching
from loadtests.load.plot_columns import Line, Point, answered, latencies, origin_loads, requests, stale

WIDTH, LEFT, RIGHT = 1000, 70, 150
TITLE_HEIGHT, LANE, PANEL_GAP, FOOT = 30, 17, 34, 44
GAP_SECONDS = 2.5
"""Points that lie further apart are not joined, because nothing is known in between."""
LETTER = 6.3
"""The approximate width of a letter of a label, in pixels."""

COLOURS = {
    "paper": ("#ffffff", "#14181d"),
    "ink": ("#1b1f24", "#e6e9ee"),
    "soft": ("#667080", "#98a2b3"),
    "grid": ("#e4e7ec", "#2c333d"),
    "bar": ("#e4e7ec", "#2c333d"),
    "fault": ("#d92d20", "#f97066"),
    "p50": ("#2563eb", "#6ea0ff"),
    "p95": ("#0d9488", "#2dd4bf"),
    "p99": ("#d97706", "#fbbf24"),
    "good": ("#2563eb", "#6ea0ff"),
    "bad": ("#d92d20", "#f97066"),
    "near": ("#16a34a", "#4ade80"),
    "l1": ("#2563eb", "#6ea0ff"),
    "l2": ("#0d9488", "#2dd4bf"),
    "l3": ("#7c3aed", "#a78bfa"),
    "origin": ("#f59e0b", "#fbbf24"),
    "miss": ("#98a2b3", "#667080"),
    "error": ("#d92d20", "#f97066"),
    "stale": ("#1b1f24", "#e6e9ee"),
    "loads": ("#d97706", "#fbbf24"),
}
"""Class in the picture → its colour on white and on black."""
STYLE = """
text,.ink{fill:currentColor}.title{font-size:15px;font-weight:600}.head{font-weight:600}.small{font-size:11px}
.grid,.edge{stroke:currentColor}.edge{stroke-dasharray:3 3;stroke-opacity:.6}
.line{fill:none;stroke:currentColor;stroke-width:1.8;stroke-linejoin:round}
.area{fill:currentColor;fill-opacity:.85}
.area.shade{fill-opacity:.1}.area.paper{fill-opacity:1}
.line.stale{stroke-dasharray:4 3}
"""


def svg_of(story: Story) -> str:
    """The whole picture. A run without a sample gives a picture with a note instead of curves."""
    picture = _Picture(story)
    parts = "\n".join(picture.parts())
    size = f'viewBox="0 0 {WIDTH} {picture.height:g}" width="{WIDTH}" height="{picture.height:g}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}'
        f' role="img" aria-label="{escape(story.scenario)}: latency, requests, who answered'
        ' and origin loads over time">\n'
        f"<style>{_style()}</style>\n"
        f'<rect class="area paper" width="{WIDTH}" height="{picture.height:g}"/>\n{parts}\n</svg>\n'
    )


def _style() -> str:
    """The style sheet of the picture.

    Colours are set as `color` and drawn as `currentColor`, because SVG viewers that are no browsers
    know no CSS variables.
    """
    light = "".join(f".{name}{{color:{colour}}}" for name, (colour, _) in COLOURS.items())
    dark = "".join(f".{name}{{color:{colour}}}" for name, (_, colour) in COLOURS.items())
    return f"svg{{font:12px system-ui,sans-serif}}{light}@media(prefers-color-scheme:dark){{{dark}}}{STYLE}"


class _Panel:
    """One of the diagrams below each other."""

    def __init__(self, title: str, unit: str, top: float, height: float, time: Scale) -> None:
        self.title, self.unit, self.top, self.bottom, self.time = title, unit, top, top + height, time

    def frame(self, values: Scale) -> Iterator[str]:
        """Yields the head, the grid and the values at its left."""
        unit = f'<tspan class="soft"> {self.unit}</tspan>'
        yield f'<text class="head ink" x="{LEFT}" y="{self.top - 8:g}">{self.title}{unit}</text>'
        for tick in values.ticks(4):
            y = values.place(tick)
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
            yield f'<text class="soft" x="{LEFT - 8}" y="{y + 4:g}" text-anchor="end">{tick:,g}</text>'
        for tick in self.time.ticks(8):
            x = self.time.place(tick)
            yield f'<line class="grid" x1="{x}" x2="{x}" y1="{self.top:g}" y2="{self.bottom:g}"/>'

    def curve(self, line: Line, values: Scale) -> str:
        """One line of the diagram."""
        return f'<path class="line {line.style}" d="{_path(line.points, self.time, values)}"/>'

    def stacked(self, lines: Sequence[Line], values: Scale) -> Iterator[str]:
        """Yields areas on top of one another. All lines must have points at the same moments."""
        floor = [0.0] * max((len(line.points) for line in lines), default=0)
        for line in lines:
            ceiling = [below + point.value for below, point in zip(floor, line.points, strict=True)]
            there = [
                f"{self.time.place(p.at)},{values.place(y)}"
                for p, y in zip(line.points, ceiling, strict=True)
            ]
            back = [
                f"{self.time.place(p.at)},{values.place(y)}" for p, y in zip(line.points, floor, strict=True)
            ][::-1]
            if there:
                yield f'<path class="area {line.style}" d="M{" L".join([*there, *back])}Z"/>'
            floor = ceiling

    def legend(self, lines: Sequence[Line], *, filled: bool = False) -> Iterator[str]:
        """Yields the names of the lines, to the right of the diagram."""
        x = WIDTH - RIGHT + 14
        for number, line in enumerate(lines):
            y = self.top + 8 + number * 16
            if filled and line.style != "stale":
                yield f'<rect class="area {line.style}" x="{x}" y="{y - 5:g}" width="14" height="10" rx="2"/>'
            else:
                yield f'<line class="line {line.style}" x1="{x}" x2="{x + 14}" y1="{y:g}" y2="{y:g}"/>'
            yield f'<text class="ink" x="{x + 20}" y="{y + 4:g}">{escape(line.name)}</text>'


class _Picture:
    def __init__(self, story: Story) -> None:
        self._story = story
        last = story.samples[-1].t + 1 - story.began if story.samples else story.seconds
        self._time = Scale(0.0, max(1.0, last), LEFT, WIDTH - RIGHT)
        self._lanes = _in_lanes(story.marks, story.began, self._time)
        lanes = 1 + max((lane for _, lane in self._lanes), default=-1)
        self._bottom: float = TITLE_HEIGHT + LANE * (1 + lanes) + PANEL_GAP
        self._panels = [
            self._panel(*each) for each in (("Latency", "ms, log scale", 150), ("Requests", "per second", 90))
        ]
        self._panels += [
            self._panel(*each)
            for each in (("Who answered", "% of reads", 130), ("Origin", "loads per second", 90))
        ]
        self.height = self._bottom - PANEL_GAP + FOOT

    def _panel(self, title: str, unit: str, height: float) -> _Panel:
        panel = _Panel(title, unit, self._bottom, height, self._time)
        self._bottom = panel.bottom + PANEL_GAP
        return panel

    def parts(self) -> Iterator[str]:
        """Yields the elements of the picture from back to front."""
        yield f'<text class="title ink" x="{LEFT}" y="20">{escape(self._story.scenario)}</text>'
        if not self._story.samples:
            yield f'<text class="soft" x="{LEFT}" y="60">Nothing was recorded.</text>'
            return
        yield from self._stretches()
        yield from self._faults()
        latency, rate, shares, origin = self._panels
        yield from _latency(latency, latencies(self._story))
        yield from _counts(rate, requests(self._story))
        yield from _answered(shares, answered(self._story), stale(self._story))
        yield from _counts(origin, origin_loads(self._story))
        yield from self._seconds(origin)

    def _seconds(self, lowest: _Panel) -> Iterator[str]:
        for tick in self._time.ticks(8):
            x, y = self._time.place(tick), lowest.bottom + 16
            yield f'<text class="soft" x="{x}" y="{y:g}" text-anchor="middle">{tick:g}</text>'
        middle = (LEFT + WIDTH - RIGHT) / 2
        place = f'x="{middle:g}" y="{lowest.bottom + 34:g}" text-anchor="middle"'
        yield f'<text class="soft" {place}>seconds of load</text>'

    def _stretches(self) -> Iterator[str]:
        """Yields a bar over the time of each judged stretch.

        Overlapping stretches share the lane, so there only their names tell them apart.
        """
        for name, (begins, ends) in self._story.stretches.items():
            x, end = self._time.place(begins - self._story.began), self._time.place(ends - self._story.began)
            size = f'width="{max(2.0, end - x):.1f}" height="13" rx="3"'
            yield f'<rect class="area bar" x="{x}" y="{TITLE_HEIGHT:g}" {size}/>'
            yield f'<text class="soft small" x="{x + 5:g}" y="{TITLE_HEIGHT + 10.5:g}">{escape(name)}</text>'

    def _faults(self) -> Iterator[str]:
        bottom = self._panels[-1].bottom
        for mark, lane in self._lanes:
            y = TITLE_HEIGHT + LANE * (lane + 1)
            x, end = _span(mark, self._story.began, self._time)
            size = f'width="{max(1.5, end - x):.1f}" height="{bottom - y:g}"'
            yield f'<rect class="area fault shade" x="{x}" y="{y:g}" {size}/>'
            yield from (
                f'<line class="edge fault" x1="{at}" x2="{at}" y1="{y:g}" y2="{bottom:g}"/>'
                for at in (x, end)
            )
            yield f'<text class="fault small" x="{x + 4:g}" y="{y + 12:g}">{escape(mark.what)}</text>'


def _latency(panel: _Panel, lines: list[Line]) -> Iterator[str]:
    known = [point.value for line in lines for point in line.points if point.value > 0] or [1.0]
    values = log_reaching(min(known), max(known), panel.bottom, panel.top)
    yield from panel.frame(values)
    yield from (panel.curve(line, values) for line in lines)
    yield from panel.legend(lines[::-1])


def _counts(panel: _Panel, lines: list[Line]) -> Iterator[str]:
    values = reaching(
        max((point.value for line in lines for point in line.points), default=1.0), panel.bottom, panel.top
    )
    yield from panel.frame(values)
    yield from (panel.curve(line, values) for line in lines)
    yield from panel.legend(lines)


def _answered(panel: _Panel, lines: list[Line], over: list[Line]) -> Iterator[str]:
    values = Scale(0.0, 100.0, panel.bottom, panel.top)
    yield from panel.frame(values)
    yield from panel.stacked(lines, values)
    yield from (panel.curve(line, values) for line in over)
    yield from panel.legend([*lines[::-1], *over], filled=True)


def _path(points: Sequence[Point], time: Scale, values: Scale) -> str:
    if not points:
        return ""
    words = [f"M{time.place(points[0].at)},{values.place(points[0].value)}"]
    for before, point in pairwise(points):
        pen = "M" if point.at - before.at > GAP_SECONDS else "L"
        words.append(f"{pen}{time.place(point.at)},{values.place(point.value)}")
    return " ".join(words)


def _span(mark: Mark, began: float, time: Scale) -> tuple[float, float]:
    ended = time.high if mark.ended is None else mark.ended - began
    return time.place(mark.began - began), time.place(ended)


def _in_lanes(marks: Sequence[Mark], began: float, time: Scale) -> list[tuple[Mark, int]]:
    """Each mark with the first lane in which its label covers no other label."""
    free_from: list[float] = []
    placed = []
    for mark in sorted(marks, key=lambda mark: mark.began):
        x, end = _span(mark, began, time)
        lane = next((number for number, free in enumerate(free_from) if free <= x), len(free_from))
        free_from[lane : lane + 1] = [max(end, x + 10 + LETTER * len(mark.what))]
        placed.append((mark, lane))
    return placed
