"""A service whose cell and queue are behind a sentinel: what it serves, and what it says of them."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from loadtests.fleet_topology import free_ports
from tests.doubles.sentinels import watched
from tests.integration.test_serve import call, read_banner, served, wait_settled


class Watching(NamedTuple):
    url: str
    document: Path
    master: str
    """`host:port` of the one server that has the cell and the queue."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watching]:
    root = tmp_path_factory.mktemp("watched")
    (port,) = free_ports(1)
    with watched(0) as group:
        url = f"http://127.0.0.1:{port}"
        topology = {
            "version": 1,
            "regions": {"eu": {"queue": group.url(0), "instances": {"a": url}}},
            "cells": {"c1": {"region": "eu", "url": group.url(1)}},
            "namespaces": {"pages": {"owner": "tests"}},
        }
        document = root / "topology.yaml"
        document.write_text(yaml.safe_dump(topology))
        process = served(
            root, port, CACHESVC_TOPOLOGY=str(document), CACHESVC_REGION="eu", CACHESVC_INSTANCE="a"
        )
        try:
            read_banner(process)
            wait_settled(url)
            yield Watching(url, document, group.master().address)
        finally:
            process.terminate()
            process.communicate(timeout=30)


def command(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "cachesvc", *words], capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout + done.stderr


def test_what_is_put_is_read_and_what_is_published_is_applied(service: Watching) -> None:
    assert call(f"{service.url}/v1/pages/a", "PUT", b"1")[0] < 300
    assert call(f"{service.url}/v1/pages/a") == (200, b"1")
    words = ("--topology", str(service.document), "--region", "eu")
    assert command("publish", "pages", "--key", "a", *words).startswith("eu:")
    give_up_at = time.monotonic() + 10
    while call(f"{service.url}/v1/pages/a")[0] != 404:
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_everybody_says_where_the_master_is(service: Watching) -> None:
    _, ready = call(f"{service.url}/readyz?verbose")
    masters = {"cell c1": service.master, "queue eu": service.master}
    assert json.loads(ready)["masters"] == masters
    where = ("--topology", str(service.document))
    _, shown = call(f"{service.url}/v1/topology")
    assert json.loads(shown)["masters"] == masters
    assert f"c1 at {service.master}" in (said := command("top", "--once", *where))
    assert f"eu at {service.master}" in said
    assert f"c1 in eu at {service.master}" in command("explain", "pages", "a", *where)


def test_a_master_that_may_be_replaced_and_would_go_on_is_named(service: Watching) -> None:
    _, ready = call(f"{service.url}/readyz?verbose")
    why = {one["server"]: one["why"] for one in json.loads(ready)["settings"] if one["need"] == "failover"}
    assert set(why) == {"cell c1", "queue eu"}
    assert why["cell c1"].startswith(
        "it has 0 replicas, and sentinels, and min-replicas-to-write or min-replicas-max-lag is 0: a master"
    )
