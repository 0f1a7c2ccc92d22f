"""An incident on real servers: `top` on 80 × 24 and `/readyz?verbose` say what is wrong in the same words."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from redis import Redis

from cachesvc.telemetry.troubles import silent_queue
from loadtests.fleet import Fleet

DOCUMENT = Path(__file__).parents[2] / "config" / "two-regions.yaml"
WIDTH, HEIGHT = 80, 24
SEEN_WITHIN_SECONDS = 60.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(DOCUMENT, tmp_path_factory.mktemp("fleet") / "run") as running:
        yield running


def on_a_terminal(*words: str) -> list[str]:
    """The lines that the command prints on a terminal of 80 columns and 24 lines."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(words, stdout=theirs, stderr=theirs, env={**environ, "TERM": "xterm"}) as process:
        os.close(theirs)
        printed = b""
        while block := _read(ours):
            printed += block
    os.close(ours)
    assert process.returncode in (0, 1)
    return re.sub(r"\x1b\[[0-9;]*m", "", printed.decode()).replace("\r", "").splitlines()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux says so when the other end is closed
        return b""


def told(url: str) -> Sequence[str]:
    with urllib.request.urlopen(f"{url}/readyz?verbose", timeout=5) as answer:
        found: Sequence[str] = json.load(answer)["troubles"]
    return found


def told_of(url: str, *beginnings: str) -> Sequence[str]:
    """The troubles of an instance, once there is one that begins with each text."""
    end = time.monotonic() + SEEN_WITHIN_SECONDS
    while True:
        found = told(url)
        if all(any(one.startswith(begin) for one in found) for begin in beginnings):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.2)


def test_what_is_wrong_is_said_in_words_that_fit_and_the_same_everywhere(fleet: Fleet) -> None:
    at = fleet.url("eu-a")
    end = time.monotonic() + SEEN_WITHIN_SECONDS
    while found := told(at):
        assert time.monotonic() < end, found
        time.sleep(0.2)
    cell, queue = fleet.topology.cells["eu-1"].url, fleet.topology.regions["eu"].queue
    with Redis.from_url(cell) as redis:
        redis.config_set("maxmemory", "100kb")
    with Redis.from_url(queue) as redis:
        redis.xadd("changes", {"event": "no event"})
    fleet.queues["us"].stop()
    try:
        found = told_of(
            at,
            "cell eu-1: it is full (",
            "queue eu: it has 1 dead letter: ",
            silent_queue("us"),
        )
        top = [sys.executable, "-m", "cachesvc", "top", "--once", "--topology", str(fleet.topology_path)]
        lines = on_a_terminal(*top)
        piped = subprocess.run(top, capture_output=True, text=True, timeout=60, check=False).stdout
        assert len(lines) < HEIGHT, lines
        assert max(map(len, lines)) <= WIDTH, lines
        shown = " ".join(" ".join(lines).split())
        for one in found:
            assert one in piped
        for begin in (
            "cell eu-1: it is full (",
            "queue eu: it has 1 dead letter: ",
            silent_queue("us"),
        ):
            (said,) = (one for one in found if one.startswith(begin))
            assert said in shown
        assert "cell eu-1 does not answer" not in shown, "the cell answers, and refuses"
        assert any(line.startswith("eu-a ") for line in lines), "there is room for the instances"
    finally:
        fleet.queues["us"].start()
    with Redis.from_url(cell) as redis:
        redis.config_set("maxmemory", "512mb")
    with Redis.from_url(queue) as redis:
        redis.delete("changes:dead")
    end = time.monotonic() + SEEN_WITHIN_SECONDS
    while told(at):
        assert time.monotonic() < end, told(at)
        time.sleep(0.2)
