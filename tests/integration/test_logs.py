"""The log of a real process whose queue, cell and memcached die and come back: JSON, a bounded number of lines, no secrets."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.fleet_topology import free_ports
from tests.doubles.servers import RealServer, memcached_server, redis_server
from tests.integration.test_serve import call, wait_ready

pytestmark = pytest.mark.slow

PASSWORD = "hunter2hunter2"
TRACE = f"{0xABC:032x}"
OUTAGE_SECONDS = 4.0
"""Twenty tries of each loop, and of each request below."""


@pytest.fixture
def redis() -> Iterator[RealServer]:
    with redis_server("--user", "cachesvc", "on", f">{PASSWORD}", "~*", "&*", "+@all", tcp=True) as running:
        yield running


@pytest.fixture
def memcached() -> Iterator[RealServer]:
    with memcached_server() as running:
        yield running


def topology_on(redis: RealServer, memcached: RealServer, path: Path) -> Path:
    url = f"redis://cachesvc:{PASSWORD}@{redis.address}"
    document = {
        "version": 1,
        "regions": {"local": {"queue": f"{url}/1", "pool": {"m1": {"address": memcached.address}}}},
        "cells": {"c1": {"region": "local", "url": f"{url}/0"}},
        "namespaces": {"pages": {"owner": "web", "ttl": "5m"}},
    }
    path.write_text(json.dumps(document))
    return path


class Service:
    def __init__(self, topology: Path, errors: Path) -> None:
        (self.port,) = free_ports(1)
        self.errors = errors
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "cachesvc", "serve", "--topology", str(topology)]
        environ = {**os.environ, "CACHESVC_SERVER_PORT": str(self.port), "CACHESVC_INSTANCE": "local-a"}
        with errors.open("w") as stderr:
            self.process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=stderr)

    def lines(self) -> list[dict[str, Any]]:
        """Raises `ValueError` if one is no JSON."""
        return [json.loads(line) for line in self.errors.read_text().splitlines()]

    def said(self, part: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if part in line["event"]]

    def until(self, part: str, count: int) -> None:
        """Reads go on meanwhile: a cell that nobody asks for anything does not say that it is back."""
        give_up_at = time.monotonic() + 30
        while len(self.said(part)) < count:
            assert time.monotonic() < give_up_at, self.errors.read_text()
            self.ask("meanwhile")
            time.sleep(0.2)

    def ask(self, key: str) -> None:
        request = urllib.request.Request(
            f"{self.url}/v1/pages/{key}", headers={"traceparent": f"00-{TRACE}-{0xDEF:016x}-01"}
        )
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except urllib.error.HTTPError as answer:
            answer.close()


@pytest.fixture
def service(redis: RealServer, memcached: RealServer, tmp_path: Path) -> Iterator[Service]:
    running = Service(topology_on(redis, memcached, tmp_path / "topology.yaml"), tmp_path / "errors")
    try:
        while not is_up(running.url):
            assert running.process.poll() is None, running.errors.read_text()
            time.sleep(0.1)
        wait_ready(running.url)
        yield running
    finally:
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(timeout=30)


def is_up(url: str) -> bool:
    try:
        return call(f"{url}/livez")[0] == 200
    except OSError:
        return False


def test_an_outage_is_two_lines_for_each_thing_that_fails(
    service: Service, redis: RealServer, memcached: RealServer
) -> None:
    redis.kill()
    memcached.kill()
    until = time.monotonic() + OUTAGE_SECONDS
    while time.monotonic() < until:
        service.ask("a-key-of-a-user")
        time.sleep(OUTAGE_SECONDS / 20)
    redis.restart()
    memcached.restart()
    service.until(" works again, after ", 4)
    began = service.said(" fails: ")
    assert sorted(line["event"].partition(" fails")[0] for line in began) == [
        "cell c1",
        "m1",
        "the feed of region local",
        "the queue of changes",
    ]
    assert all(
        line["level"] == "warning" and (line["region"], line["instance"]) == ("local", "local-a")
        for line in began
    )
    written = service.errors.read_text()
    assert PASSWORD not in written
    assert "a-key-of-a-user" not in written
    # Besides these eight: that the queue's stream is a new one, at the start and after the loss, that
    # fences were lost, that the queue keeps nothing on disk, and that the cell is another server.
    assert len(service.lines()) <= 13, written
