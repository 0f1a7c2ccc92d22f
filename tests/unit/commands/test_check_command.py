"""The command line of the checker: what it makes of options and verdicts, and what it says when it cannot run."""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from cachesvc.commands.check import command
from cachesvc.commands.check.history import Read, Record, Run, Write
from cachesvc.commands.check.judge import judge
from cachesvc.commands.check.progress import Progress
from cachesvc.commands.check.verdicts import Finding, Verdict

ORIGIN = "http://127.0.0.1:9200/check/{key}"


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    document = yaml.safe_load(Path("config/two-regions.yaml").read_text())
    document["namespaces"]["check"] = {"owner": "platform", "max_lag": "3s", "origin": {"url": ORIGIN}}
    path = tmp_path / "topology.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser, {})
    return parser.parse_args(words)


def test_options_and_document_make_the_settings(topology: Path) -> None:
    words = (
        "--topology",
        str(topology),
        "--duration",
        "5m",
        "--seed",
        "7",
        "--rate",
        "10",
        "--skew",
        "50ms",
        "--no-events",
    )
    settings = command.settings_of(options(*words))
    assert sorted(settings.instances) == ["eu/eu-a", "eu/eu-b", "us/us-a", "us/us-b"]
    assert (settings.duration_seconds, settings.seed, settings.rate, settings.queues) == (300, 7, 10, {})
    assert (settings.max_lag_us, settings.heartbeat_us, settings.skew_us) == (3_000_000, 500_000, 50_000)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "--topology: is not given"),
        (("--topology", "nowhere.yaml"), "cannot be read"),
        (("--topology", "config/two-regions.yaml", "--namespace", "nobody"), "no namespace 'nobody'"),
        (("--topology", "config/two-regions.yaml", "--clients", "0"), "--clients: must be above 0"),
        (("--topology", "config/two-regions.yaml", "--read-share", "7"), "--read-share: is a share"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_the_reason(
    words: Sequence[str], why: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CACHESVC_TOPOLOGY", raising=False)
    assert command.run(options(*words)) == 2
    assert why in capsys.readouterr().err


def test_a_history_that_cannot_be_written_ends_with_1(
    topology: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(options("--topology", str(topology), "--history", "/nowhere/history")) == 1
    assert "/nowhere/history: No such file" in capsys.readouterr().err


def verdict_with(check: str, **changed: object) -> Verdict:
    """One in which all that must be seen holds, but for this check."""
    clean = judge([Run(1, ("eu/eu-a",), 1, 1, 1)])
    holding = [Finding(name, "", judged=1) for name in ("C0", "C1", "C2", "C3", "C4", "C5", "C7")]
    findings = tuple(Finding(check, "", **changed) if each.check == check else each for each in holding)  # type: ignore[arg-type]  # a test names them
    return Verdict(run=clean.run, findings=findings, figures=clean.figures)


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (verdict_with("C4", judged=1), 0),
        (verdict_with("C4", judged=9, broken=1), 1),
        (verdict_with("C4", unobserved="no tokens"), 0),
        (verdict_with("C3", unobserved="no merges"), 1),
    ],
)
def test_only_what_was_seen_to_hold_ends_with_0(verdict: Verdict, code: int) -> None:
    assert command.exit_code(verdict) == code


def test_progress_counts_what_is_new() -> None:
    records: list[Record] = [Write("k", 1, 1), Read("eu/eu-a", "k", 1, 2, "hit", 1)]
    progress = Progress(records, 60, io.StringIO())
    assert progress.line(3) == "check: 3 s of 60 s, 1 reads, 1 writes, 0 errors"
    records.append(Read("eu/eu-a", "k", 1, 2, "error", reason="deadline"))
    assert progress.line(61) == "check: settling, 1 reads, 1 writes, 1 errors"
