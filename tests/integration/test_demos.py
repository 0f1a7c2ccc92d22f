"""The two tours of `make demo` and `make demo-break` end well, and leave nothing behind."""

import re
import socket
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def toured(module: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", module], capture_output=True, text=True, timeout=170, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "NOT " not in ended.stdout
    return ended.stdout


def test_the_tour_of_the_tiers() -> None:
    assert "every step held" in toured("loadtests.demo")


def test_a_memcached_a_cell_and_a_queue_are_broken_and_all_of_it_heals() -> None:
    told = toured("loadtests.demo_break")
    assert re.findall(r"kill -(\w+) \d+  \((\w+)-", told) == [
        ("STOP", "memcached"),
        ("KILL", "cell"),
        ("KILL", "queue"),
    ]
    assert told.count("all is well again") == 3
    assert "its copy: refused" in told
    ports = [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", told)]
    assert len(ports) >= 14
    for port in ports:
        with socket.socket() as link:
            assert link.connect_ex(("127.0.0.1", port)) != 0, f"something still listens on {port}"
