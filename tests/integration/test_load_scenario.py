"""One scenario, much shorter, with real servers, locust and a real fault: it runs, is judged, and leaves what it should."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

KEPT = (
    "plot.svg",
    "plot.html",
    "verdict.json",
    "marks.json",
    "servers.jsonl",
    "load/samples.jsonl",
    "load/locust.html",
)


def run(out: Path, thresholds: str) -> subprocess.CompletedProcess[str]:
    limits = out.with_suffix(".yaml")
    shipped = Path("loadtests/load/thresholds.yaml").read_text()
    limits.write_text(
        shipped[: shipped.index("lost_memcached:")] + thresholds + shipped[shipped.index("lost_cell:") :]
    )
    words = ["lost_memcached", "--duration", "0.2", "--out", str(out), "--thresholds", str(limits)]
    command = [sys.executable, "-m", "loadtests.load.runner", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_scenario_runs_breaks_what_it_says_and_is_judged(tmp_path: Path) -> None:
    # Limits of its own: a run this short, on a machine that does other things, shows that it is judged and not how fast it is.
    never, always = "hit_share: {at_least: 1.01}", "rate: {at_least: 10}"
    ended = run(
        tmp_path / "load",
        f"lost_memcached:\n  lost:\n    {never}\n    {always}\n    too_stale: {{at_most: 0}}\n",
    )
    told = ended.stdout + ended.stderr
    assert ended.returncode == 1, told
    assert "lost_memcached: 1 of 3 MISSED" in ended.stdout, told
    assert "lost: hit_share is" in ended.stdout
    folder = tmp_path / "load" / "lost_memcached"
    assert all((folder / name).stat().st_size for name in KEPT)
    (mark,) = json.loads((folder / "marks.json").read_text())
    assert mark["what"] == "memcached-eu-m1 killed"
    assert mark["ended"] - mark["began"] >= 4
    pids = list((folder / "fleet").glob("*.pid"))
    assert pids == [], "every server was stopped"


def test_a_wrong_name_is_refused_before_anything_starts(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "loadtests.load.runner", "stedy", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "there is no 'stedy'; there are steady, stampede" in ended.stderr
