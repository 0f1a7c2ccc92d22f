"""A verdict as text for people, and as JSON for programs."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from cachesvc.commands.check.history import encode
from cachesvc.commands.check.verdicts import Figures, Finding, Verdict, Violation, spoken

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def plain(verdict: Verdict, *, cut_short: bool = False) -> str:
    """The verdict as text: each check with its result, the proof of violations, and the
    figures.

    `cut_short`: the history's last line was incomplete and was left out.
    """
    return "\n".join(_lines(verdict, cut_short)) + "\n"


def as_json(verdict: Verdict) -> bytes:
    """The verdict as one JSON object, whose `broken` is empty if no check was violated."""
    return msgspec.json.encode(
        {
            "broken": verdict.broken,
            "unobserved": verdict.unobserved,
            "run": verdict.run,
            "findings": [_with_state(finding) for finding in verdict.findings],
            "figures": verdict.figures,
        }
    )


def _with_state(finding: Finding) -> dict[str, Any]:
    return {"state": finding.state, **msgspec.to_builtins(finding)}


def _lines(verdict: Verdict, cut_short: bool) -> Iterator[str]:
    run = verdict.run
    yield (
        f"cachesvc check: seed {run.seed}, {len(run.instances)} instances,"
        f" max_lag {spoken(run.max_lag_us)}, heartbeat {spoken(run.heartbeat_us)}, skew {spoken(run.skew_us)}"
    )
    if cut_short:
        yield "The history's last line was cut short and is left out."
    yield ""
    yield from _table([_row(finding) for finding in verdict.findings])
    for finding in verdict.findings:
        if finding.broken:
            yield from _violations(finding)
    yield ""
    yield from _figures(verdict.figures)


def _row(finding: Finding) -> Sequence[str]:
    return finding.check, finding.state, f"{_count(finding)}: {finding.rule}"


def _count(finding: Finding) -> str:
    if finding.broken:
        return f"{finding.broken:,} of {finding.judged:,} {finding.of}"
    count = f"{finding.judged:,} {finding.of} judged" if finding.judged or not finding.unobserved else ""
    return "; ".join(part for part in (count, finding.note, finding.unobserved) if part)


def _violations(finding: Finding) -> Iterator[str]:
    yield ""
    yield f"{finding.check} VIOLATED: {finding.rule}"
    if finding.note:
        yield f"  {finding.note}"
    for violation in finding.examples:
        yield f"  {violation.says}"
        if violation.instance:
            yield f"    {_details(violation)}"
        for record in violation.proof:
            yield f"    {encode(record).decode()}"
    unshown = finding.broken - len(finding.examples)
    if finding.examples and unshown:
        yield f"  and {unshown:,} more"


def _details(violation: Violation) -> str:
    told = {
        "key": violation.key,
        "tier": violation.tier,
        "instance": violation.instance,
        "as_of": _moment(violation.as_of),
        "owed": "" if violation.owed is None else f"version {violation.owed}",
        "fence": violation.fence,
        "at": _moment(violation.fence_at),
    }
    return ", ".join(f"{name} {value}" for name, value in told.items() if value)


def _moment(us: int) -> str:
    """A time of the service, with µs, because it is compared with other times. Empty for 0."""
    return (_EPOCH + timedelta(microseconds=us)).isoformat(timespec="microseconds") if us else ""


def _figures(figures: Figures) -> Iterator[str]:
    failed = f"{figures.errors:,} failed"
    yield (
        f"{figures.reads:,} reads ({failed}), {figures.writes:,} writes,"
        f" {figures.announcements:,} announcements"
    )
    yield f"reads took p50 {spoken(figures.read_p50)}, p99 {spoken(figures.read_p99)}"
    yield (
        f"{figures.stale_reads:,} reads missed a write committed before they began,"
        f" the latest {spoken(figures.longest_stale)} after its commit"
    )
    yield (
        f"{figures.loads:,} loads of the origin,"
        f" {figures.overlapping_loads:,} of them while another load of the key ran"
    )
    yield from _titled(
        "From commit to the last read that missed it",
        ("tier", "region", "writes missed", "p50", "p99", "p99.99", "longest"),
        (
            (
                lag.tier,
                lag.region,
                f"{lag.writes:,}",
                *map(spoken, (lag.p50, lag.p99, lag.p9999, lag.longest)),
            )
            for lag in figures.lags
        ),
    )
    yield from _titled(
        "Keys loaded most",
        ("key", "loads", "announcements", "most at once", "at µs"),
        (
            (
                crowd.key,
                f"{crowd.loads:,}",
                f"{crowd.announcements:,}",
                str(crowd.most_at_once),
                str(crowd.at),
            )
            for crowd in figures.crowds
        ),
    )
    yield from _titled(
        "Recovery",
        ("fault", "ended at µs", "reads that suffered later", "for"),
        (
            (each.what, str(each.ended), f"{each.suffered:,}", spoken(each.took))
            for each in figures.recoveries
        ),
    )


def _titled(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    filled = list(rows)
    if filled:
        yield ""
        yield title
        yield from _table([heads, *filled])


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
