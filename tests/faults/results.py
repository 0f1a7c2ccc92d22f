"""The table of the drills: a row for each, kept as files so that single drills can be run, and printed at the end."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from cachesvc.commands.check.history import Record, encode
from cachesvc.commands.check.verdicts import Finding, Verdict

DIRECTORY = Path(__file__).parents[2] / ".run" / "faults"
"""Of rows (`*.json`), the table (`results.md`) and the histories of drills that failed (`*.jsonl`)."""

ROWS: list["Row"] = []
"""Of the drills of this run, in their order."""


class Row(Struct, frozen=True):
    drill: str
    reads: int
    failed_reads: int
    writes: int
    violations: int
    """Reads and loads that broke a check of coherence (C9 asks how good a cache it is: under such a load, a bad one)."""
    longest_stale_ms: float
    """From a commit to the last read that missed it, lawfully (the announcement was on its way) or not."""
    recovery_ms: float
    """After the last fault's end, until what it broke works again and every instance knows that it is current; or, if that is
    later, until the last read that failed or missed what had been committed by then."""
    broken: tuple[str, ...] = ()
    switched_off: str = ""
    """The protection that the instances of a mutation run lacked; `drill` says what it is."""
    says: str = ""
    """The first accusation."""
    seconds: float = 0.0


def row_of(
    drill: str, verdict: Verdict, *, recovery_us: int = 0, seconds: float = 0.0, switched_off: str = ""
) -> Row:
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
    """Keep the row and its history; the file that holds the history."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    name = "-".join(re.findall(r"[\w.]+", f"{row.switched_off} {row.drill}"))
    (DIRECTORY / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(row)))
    history = DIRECTORY / f"{name}.jsonl"
    history.write_bytes(b"".join(encode(record) + b"\n" for record in records))
    return history


def report(rows: Sequence[Row]) -> str:
    """In Markdown: the drills, then what was reported of each protection that was switched off."""
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
