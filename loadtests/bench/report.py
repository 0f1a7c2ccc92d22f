"""The output of a run: the machine, the table as it grows, and the JSON rows."""

import json
import math
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from loadtests.bench.cores import Cores
from loadtests.bench.drivers import CONNECTIONS
from loadtests.bench.figures import Result, Sample
from loadtests.bench.keyspace import KEYS, VALUE_BYTES

_PACKAGES = (
    "aiohttp",
    "uvloop",
    "pymemcache",
    "aiomcache",
    "redis",
    "hiredis",
    "msgspec",
    "cachetools",
    "xxhash",
    "cashews",
    "aiocache",
)
_LAYOUT = "{:<18} {:>12} {:>12} {:<11} {:>6} {:>13} {:>7} {:>7} {:<4} {}"
_BUSY = "busy: process/its core/load core, ours | theirs"


@dataclass(frozen=True)
class Failed:
    """A comparison without a number."""

    name: str
    why: str

    def as_json(self) -> dict[str, object]:
        """The row as it stands in the JSON file."""
        return {
            "name": self.name,
            "ours": None,
            "theirs": None,
            "ratio": None,
            "reach": None,
            "ok": False,
            "error": self.why,
        }


def machine_lines(cores: Cores, driver_name: str, pairs: int, seconds: float) -> list[str]:
    """The lines that describe the machine, the versions and the sizes."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    servers = ", ".join(
        filter(None, [_first_line("memcached", "-V"), _first_line("redis-server", "--version")])
    )
    return [
        f"machine   {_processor()}, {platform.system()} {platform.release()}",
        f"          server on core {cores.server}, load on core {cores.load}",
        f"versions  Python {sys.version.split()[0]}, {packages}",
        f"          {servers}; load by {driver_name}",
        f"sizes     {VALUE_BYTES}-byte values, {KEYS} keys, {CONNECTIONS} connections,"
        f" {pairs} pairs of {seconds:g} s a side",
    ]


def header_lines() -> list[str]:
    """The head of the table."""
    head = _LAYOUT.format(
        "row", "ours", "theirs", "unit", "ratio", "(range)", "per CPU", "reach", "ok", _BUSY
    )
    return [head, "-" * len(head)]


def result_line(row: Result | Failed) -> str:
    """A row of the table."""
    if isinstance(row, Failed):
        return f"{row.name:<18} NO NUMBER: {row.why}"
    spread = f"({min(row.ratios):.2f}–{max(row.ratios):.2f})"
    remarks = [_busy([ours for ours, _ in row.pairs]) + " | " + _busy([theirs for _, theirs in row.pairs])]
    remarks += [
        mark for mark, applies in (("LOAD-BOUND", row.load_bound), ("CONTENDED", row.contended)) if applies
    ]
    if row.note:
        remarks.append(row.note)
    ok = "ok" if row.ok else "MISS"
    figures = (f"{row.ours:,.{_digits(row.ours)}f}", f"{row.theirs:,.{_digits(row.theirs)}f}")
    per_cpu = "–" if math.isnan(row.ratio_per_cpu) else f"{row.ratio_per_cpu:.2f}"
    shown = (row.unit, f"{row.ratio:.2f}", spread, per_cpu, str(row.goal), ok, "; ".join(remarks))
    return _LAYOUT.format(row.name, *figures, *shown)


def write_json(path: Path, rows: Sequence[Result | Failed]) -> None:
    """Writes the rows to a file."""
    path.write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n")


def _digits(figure: float) -> int:
    return 0 if figure >= 1000 else 2


def _busy(samples: Sequence[Sample]) -> str:
    return "/".join(
        _mean_percent([getattr(sample, name) for sample in samples])
        for name in ("process_share", "server_busy", "load_busy")
    )


def _mean_percent(shares: Sequence[float]) -> str:
    mean = sum(shares) / len(shares)
    return "–" if math.isnan(mean) else f"{mean:.0%}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} × {models[0]}" if models else platform.machine()


def _first_line(program: str, flag: str) -> str:
    path = shutil.which(program)
    if path is None:
        return ""
    return (
        subprocess.run([path, flag], capture_output=True, text=True, check=False)
        .stdout.strip()
        .split(" sha=")[0]
    )
