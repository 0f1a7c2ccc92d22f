"""`cachesvc serve --workers 2`: the host answers for both; one is killed, both end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from cachesvc_client import Cache, Hit, PartialError

from cachesvc.commands.top.exposition import Exposition
from loadtests.fleet_topology import free_ports
from tests.doubles.waiting import until
from tests.integration.test_serve import call, read_banner, wait_ready


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def is_running(pid: int) -> bool:
    """True if the process runs: one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Host:
    """A supervisor with two workers, on embedded servers."""

    def __init__(self, process: subprocess.Popen[str], url: str, said: list[str]) -> None:
        self.process = process
        self.url = url
        self.said = said
        self.own = [line.rpartition(" ")[2] for line in said if line.startswith("  worker ")]
        """The URLs of the workers' own ports."""

    def workers(self) -> set[int]:
        """The process ids of the workers; the servers are children of the supervisor, too."""
        family = children(self.process.pid)
        return {pid for pid in family if b"--workers" in Path(f"/proc/{pid}/cmdline").read_bytes()}

    def here(self, url: str) -> str:
        """The name of the instance that answers."""
        return str(json.loads(call(f"{url}/v1/topology")[1])["here"]["instance"])

    def metrics(self) -> Exposition:
        return Exposition.parse(call(f"{self.url}/metrics")[1].decode())

    def readiness(self) -> Any:
        return json.loads(call(f"{self.url}/readyz?verbose")[1])


@contextmanager
def host(root: Path, drain: str = "0s") -> Iterator[Host]:
    (port,) = free_ports(1)
    environ = {
        **os.environ,
        "CACHESVC_RUN_DIR": str(root),
        "CACHESVC_SERVER_PORT": str(port),
        "CACHESVC_INSTANCE": "eu-a",
        "CACHESVC_COHERENCE_SKETCH_SLOTS": "65536",
        "CACHESVC_SERVER_WORKER_HUNG_AFTER": "4s",
        "CACHESVC_SERVER_DRAIN": drain,
        "CACHESVC_TELEMETRY_LOG_FORMAT": "json",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "cachesvc", "serve", "--workers", "2"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        running = Host(process, f"http://127.0.0.1:{port}", read_banner(process))
        for url in running.own:
            wait_ready(url)
        yield running
    finally:
        process.kill()  # its workers and servers end with it
        process.communicate()


def are_ready(running: Host) -> bool:
    """True if both workers are."""
    try:
        workers = running.readiness()["workers"].values()
    except OSError:  # the kernel gave the connection to a worker that was killed
        return False
    return all(one is not None and one["ready"] for one in workers)


@pytest.fixture(scope="module")
def running() -> Iterator[Host]:
    """A host for all tests; the last one kills it."""
    with TemporaryDirectory(prefix="csvc-", dir="/tmp") as path, host(Path(path)) as running:
        yield running


def test_the_host_answers_for_all_its_workers(running: Host) -> None:
    assert [running.here(url) for url in running.own] == ["eu-a-0", "eu-a-1"]
    assert {running.here(running.url) for _ in range(40)} == {"eu-a-0", "eu-a-1"}
    found = running.metrics()
    assert found.by("ready", "worker") == {"0": 1.0, "1": 1.0}
    assert found.by("l1_budget_bytes", "worker") == {"0": 128.0 * 2**20, "1": 128.0 * 2**20}
    assert found.by("process_open_fds", "worker").keys() == {"0", "1"}
    assert found.by("workers", "host", worker="0") == {"eu-a": 2.0}
    assert b"worker=" not in call(f"{running.own[1]}/metrics")[1]
    told = running.readiness()
    assert told["ready"] is True
    assert {name: one["instance"] for name, one in told["workers"].items()} == {
        "eu-a-0": "eu-a-0",
        "eu-a-1": "eu-a-1",
    }
    assert json.loads(call(f"{running.own[0]}/readyz?verbose")[1])["instance"] == "eu-a-0"


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_port_in_use_ends_the_start_of_all_workers(
    running: Host, tmp_path: Path, *, is_shared: bool
) -> None:
    document, (shared, own) = tmp_path / "topology.yaml", free_ports(2)
    document.write_text(
        "{version: 1, namespaces: {}, cells: {c1: {region: local, url: 'redis://127.0.0.1:2/0'}}, regions:"
        " {local: {queue: 'redis://127.0.0.1:1/0', instances: {"
        f"b-0: 'http://127.0.0.1:{own}', b-1: '{running.own[0]}'"
        "}}}}"
    )
    taken = running.url if is_shared else running.own[0]
    environ = {
        **os.environ,
        "CACHESVC_INSTANCE": "b",
        "CACHESVC_SERVER_PORT": running.url[-5:] if is_shared else str(shared),
        "CACHESVC_TOPOLOGY": str(document),
    }
    command = [sys.executable, "-m", "cachesvc", "serve", "--workers", "2"]
    second = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == 1
    (said,) = [line for line in second.stderr.splitlines() if line.startswith("cachesvc: ")]
    which = "" if is_shared else ", the port of worker b-1 in the topology,"
    assert said.startswith(f"cachesvc: {taken.removeprefix('http://')}{which} is in use")
    assert second.stdout == ""


async def test_a_worker_that_is_killed_comes_back_and_the_other_is_untouched(running: Host) -> None:
    keys = {f"k{nth}": f"v{nth}".encode() for nth in range(100)}
    before = running.workers()
    wrong: list[object] = []
    is_over = asyncio.Event()
    async with Cache.from_url(running.url, default_timeout="5s") as cache:
        pages = cache.namespace("pages")

        async def is_stored() -> bool:
            try:
                await pages.set_many(keys)
            except PartialError:  # cells that are new wait a little
                return False
            return True

        async def read() -> None:
            while not is_over.is_set():
                found = await pages.get_many(list(keys))
                wrong.extend(
                    key for key, one in found.items() if isinstance(one, Hit) and one.value != keys[key]
                )
                await asyncio.sleep(0.01)

        async def is_back() -> bool:
            return await asyncio.to_thread(are_ready, running) and len(running.workers() & before) == 1

        await until("all is stored", is_stored)
        reading = [asyncio.create_task(read()) for _ in range(2)]
        os.kill(min(before), signal.SIGKILL)
        try:
            await until("both workers are ready", is_back, seconds=30)
        finally:
            is_over.set()
        await asyncio.gather(*reading)
    assert not wrong
    assert max(before) in running.workers()
    assert min(before) not in running.workers()
    assert [running.here(url) for url in running.own] == ["eu-a-0", "eu-a-1"]
    assert sum(running.metrics().by("worker_restarts_total", "worker").values()) == 1


async def test_a_worker_that_hangs_is_replaced_and_the_other_is_untouched(running: Host) -> None:
    before = running.workers()
    hung, other = min(before), max(before)
    os.kill(hung, signal.SIGSTOP)

    async def is_replaced() -> bool:
        if hung in running.workers():
            return False
        try:
            found = await asyncio.to_thread(running.readiness)
        except OSError:
            return False
        return all(one is not None and one["ready"] for one in found["workers"].values())

    await until("another worker is ready in its place", is_replaced, seconds=30)
    assert other in running.workers()
    assert [running.here(url) for url in running.own] == ["eu-a-0", "eu-a-1"]


def test_nothing_is_left_of_a_supervisor_that_was_killed(running: Host) -> None:
    family = children(running.process.pid)
    assert running.workers() < family, "the servers are there, too"
    running.process.kill()
    running.process.wait()
    give_up_at = time.monotonic() + 20
    while left := [pid for pid in family if is_running(pid)]:
        assert time.monotonic() < give_up_at, left
        time.sleep(0.02)


def test_a_stop_drains_all_workers_and_a_killed_one_is_named_in_the_log() -> None:
    """Until a second signal to the supervisor all serve on, and the host is not ready."""
    with TemporaryDirectory(prefix="csvc-", dir="/tmp") as root:
        with host(Path(root), drain="90s") as running:
            workers = running.workers()
            os.kill(min(workers), signal.SIGKILL)
            give_up_at = time.monotonic() + 20
            while len(running.workers() - workers) == 0:
                assert time.monotonic() < give_up_at
                time.sleep(0.02)
            while not are_ready(running):
                assert time.monotonic() < give_up_at + 20
            running.process.send_signal(signal.SIGTERM)
            while call(f"{running.url}/readyz")[0] != 503 or not all(
                one["stopping"] for one in running.readiness()["workers"].values()
            ):
                assert time.monotonic() < give_up_at + 40
            for worker in running.workers():
                os.kill(worker, signal.SIGINT)  # as the terminal does whose Ctrl-C has asked the supervisor
                os.kill(worker, signal.SIGTERM)
            assert {call(f"{url}/v1/pages/none")[0] for url in (running.url, *running.own) * 4} == {404}
            running.process.send_signal(signal.SIGINT)
            _, errors = running.process.communicate(timeout=30)
            assert running.process.returncode == 0
            assert "Traceback" not in errors
            assert not any(map(is_running, workers))
        assert [path.name for path in Path(root).iterdir()] == ["root.lock"]
    (ended,) = [one for one in map(json.loads, errors.splitlines()) if "ended" in one["event"]]
    assert ended["event"].startswith("worker eu-a-")
    assert ended["event"].endswith("ended by signal 9; it is started again in 0.1 s")
    assert ended["instance"] == "eu-a"
