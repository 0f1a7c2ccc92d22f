"""`cachesvc check` as it is used: against two regions of real servers, from its own process, judged to hold."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cachesvc.commands.check.history import Fenced, Merged, Read, read_history
from loadtests.fleet import Fleet
from loadtests.fleet_topology import free_ports

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

DOCUMENT = Path(__file__).parents[2] / "config" / "two-regions.yaml"
READ_THROUGH, LOOK_ASIDE = "check", "aside"


@pytest.fixture(scope="module")
def origin() -> str:
    (port,) = free_ports(1)
    return f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, origin: str) -> Iterator[Fleet]:
    namespaces = {
        READ_THROUGH: {"owner": "platform", "ttl": "1m", "origin": {"url": f"http://{origin}/check/{{key}}"}},
        LOOK_ASIDE: {"owner": "platform", "ttl": "1m"},
    }
    with Fleet(DOCUMENT, tmp_path_factory.mktemp("fleet") / "run", namespaces=namespaces) as running:
        yield running


def command(fleet: Fleet, origin: str, *more: str) -> list[str]:
    topology = ["--topology", str(fleet.topology_path), "--origin-listen", origin]
    return [sys.executable, "-m", "cachesvc", "check", *topology, *more]


@pytest.mark.parametrize("namespace", [READ_THROUGH, LOOK_ASIDE])
def test_every_check_holds_on_a_healthy_deployment(
    fleet: Fleet, origin: str, tmp_path: Path, namespace: str
) -> None:
    history, verdict = tmp_path / "history.jsonl", tmp_path / "verdict.json"
    files = ["--history", str(history), "--json", str(verdict)]
    done = subprocess.run(
        command(fleet, origin, "--namespace", namespace, "--duration", "10s", *files),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(verdict.read_bytes())["broken"] == []
    recorded = read_history(history)
    assert not recorded.cut_short
    reads = [record for record in recorded.records if isinstance(record, Read)]
    assert {read.instance for read in reads} == {"eu/eu-a", "eu/eu-b", "us/us-a", "us/us-b"}
    assert {"l1", "l2", "l3"} <= {read.tier for read in reads}
    assert sum(read.outcome == "error" for read in reads) <= len(reads) / 100
    merged = {(record.instance, record.region) for record in recorded.records if isinstance(record, Merged)}
    assert len(merged) == 8, "every instance told of both regions"
    assert any(isinstance(record, Fenced) for record in recorded.records)


def test_ctrl_c_ends_the_load_and_judges_what_there_is(fleet: Fleet, origin: str, tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    check = subprocess.Popen(
        command(fleet, origin, "--duration", "10m", "--history", str(history)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: history.exists() and b'"read"' in history.read_bytes())
    check.send_signal(signal.SIGINT)
    out, err = check.communicate(timeout=30)
    assert "interrupted" in err
    assert "Traceback" not in err
    assert "C0" in out


def test_the_watch_exports_what_it_measures_until_it_is_stopped(fleet: Fleet, origin: str) -> None:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    more = ["--watch", "--metrics-listen", address, "--canary-every", "100ms", "--sample", "1"]
    watch = subprocess.Popen(command(fleet, origin, *more), stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: metrics(address).get("cachesvc_check_rounds_total", 0) >= 6)
        found = metrics(address)
    finally:
        watch.send_signal(signal.SIGTERM)
        _, err = watch.communicate(timeout=30)
    assert watch.returncode == 0, err
    assert not any(
        value for name, value in found.items() if name.startswith("cachesvc_check_violations_total")
    ), err
    lags = [
        value for name, value in found.items() if name.startswith("cachesvc_check_merge_lag_seconds_count")
    ]
    assert len(lags) >= 4
    assert (
        sum(
            value
            for name, value in found.items()
            if name.startswith("cachesvc_check_staleness_seconds_count")
        )
        >= 20
    )


def test_an_undeclared_namespace_is_answered_with_what_to_add(fleet: Fleet, origin: str) -> None:
    done = subprocess.run(
        command(fleet, origin, "--namespace", "nobody"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f'origin: {{url: "http://{origin}/check/{{key}}"}}' in done.stderr


def test_an_instance_out_of_reach_is_named(fleet: Fleet, origin: str) -> None:
    os.kill(fleet.instances["us-b"].pid, signal.SIGSTOP)
    try:
        done = subprocess.run(command(fleet, origin), capture_output=True, text=True, check=False)
    finally:
        os.kill(fleet.instances["us-b"].pid, signal.SIGCONT)
    assert done.returncode == 1
    assert "us/us-b" in done.stderr


def metrics(address: str) -> dict[str, float]:
    """Name with labels → value; empty if nobody answers."""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return {}
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
    }


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it took too long"
        time.sleep(0.1)
