"""The table of the drills, with a row for each.

Rows are kept as files, so that drills can be run one by one; the table is printed at the end.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from cachesvc.commands.check.history import Record, encode
from cachesvc.commands.check.verdicts import Finding, Verdict

DIRECTORY = Path(__file__).parents[2] / ".run" / "faults"
"""The folder of rows (`*.json`), the table (`results.md`) and all histories (`*.jsonl`)."""

ROWS: list["Row"] = []
"""The rows of this run's drills, in order."""


class Row(Struct, frozen=True):
    """The result of one drill."""

    drill: str
    reads: int
    failed_reads: int
    writes: int
    violations: int
    """Reads and loads that broke a check of coherence.

    C9 does not count here: it asks how good the cache is, and under such a load it is a bad one.
    """
    longest_stale_ms: float
    """The longest time from a commit to the last read that missed it.

    Reads count whether or not the rules allowed them to miss it (the announcement was on its way).
    """
    recovery_ms: float
    """ms from the end of the last fault until the service has recovered.

    It has recovered when what the fault broke works again and every instance knows that it is
    current; or, if that is later, at the last read that failed or missed what had been committed by
    then.
    """
    broken: tuple[str, ...] = ()
    switched_off: str = ""
    """The protection that the instances of a mutation run lacked; `drill` describes it."""
    says: str = ""
    """The first violation, in words."""
    seconds: float = 0.0


def row_of(
    drill: str, verdict: Verdict, *, recovery_us: int = 0, seconds: float = 0.0, switched_off: str = ""
) -> Row:
    """The row for a verdict."""
    figures = verdict.figures
    return Row(
        drill,
        reads=figures.reads,
        failed_reads=figures.errors,
        writes=figures.writes,
        violations=sum(finding.broken for finding in _broken(verdict)),
        longest_stale_ms=figures.longest_stale / 1000,
        recovery_ms=max([recovery_us, *(recovery.took for recovery in figures.recoveries[-1:])]) / 1000,
        broken=tuple(finding.check for finding in _broken(verdict)),
        switched_off=switched_off,
        says=next((finding.examples[0].says for finding in _broken(verdict) if finding.examples), ""),
        seconds=seconds,
    )


def _broken(verdict: Verdict) -> list[Finding]:
    return [finding for finding in verdict.findings if finding.broken and finding.check != "C9"]


def keep(row: Row, records: Iterable[Record]) -> Path:
    """Writes the row and its history to files; returns the path of the history."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    name = "-".join(re.findall(r"[\w.]+", f"{row.switched_off} {row.drill}"))
    (DIRECTORY / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(row)))
    history = DIRECTORY / f"{name}.jsonl"
    history.write_bytes(b"".join(encode(record) + b"\n" for record in records))
    return history


def report(rows: Sequence[Row]) -> str:
    """The tables in Markdown: the drills, and the reports without single protections."""
    drills = _table(
        ("drill", "reads", "failed", "writes", "violations", "longest stale", "recovery"),
        (
            (
                row.drill,
                row.reads,
                row.failed_reads,
                row.writes,
                row.violations,
                _ms(row.longest_stale_ms),
                _ms(row.recovery_ms),
            )
            for row in rows
            if not row.switched_off
        ),
    )
    mutations = _table(
        ("switched off", "that is", "reported", "violations", "reads", "within"),
        (
            (
                row.switched_off,
                row.drill,
                " ".join(row.broken),
                row.violations,
                row.reads,
                f"{row.seconds:.1f} s",
            )
            for row in rows
            if row.switched_off
        ),
    )
    reports = "\n".join(f"- `{row.switched_off}`: {row.says}" for row in rows if row.says)
    return "\n\n".join(part for part in (drills, mutations, reports) if part)


def _table(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    cells = [[str(cell) for cell in line] for line in lines]
    if not cells:
        return ""
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (list(heads), rule, *cells)
    )


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms"
