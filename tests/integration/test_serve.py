"""`python -m cachesvc serve` as a person runs it: no configuration, real servers, a value stored and read, and a clean end."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import pytest

from loadtests.fleet import Fleet
from loadtests.fleet_topology import free_ports


@pytest.fixture
def root() -> Iterator[Path]:
    with TemporaryDirectory(prefix="csvc-", dir="/tmp") as path:
        yield Path(path)


def served(
    root: Path, port: int, program: Sequence[str] = (sys.executable, "-m", "cachesvc"), **settings: str
) -> subprocess.Popen[str]:
    environ = {
        **os.environ,
        "CACHESVC_RUN_DIR": str(root),
        "CACHESVC_SERVER_PORT": str(port),
        **settings,
    }
    command = [*program, "serve"]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_banner(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if "curl" in line:
            return lines
    pytest.fail(f"ended before it was ready: {process.communicate()}")


def call(url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.read()


def wait_ready(url: str) -> None:
    """Waits until the service is ready.

    Before that, a new issuer of times grants nothing and the floor is ahead of the clock
    (docs/coherence.md): what a test writes would be missed.
    """
    give_up_at = time.monotonic() + 10
    while call(f"{url}/readyz")[0] != 200:
        assert time.monotonic() < give_up_at


def wait_settled(url: str) -> None:
    """Waits until a new deployment has fenced its namespaces, as it does once, and keeps what is written.

    Its stream of changes is a new one, in which changes may have been lost. The fences lead the clock
    a little: what is written before refuses to stay, and is loaded twice.
    """
    wait_ready(url)
    give_up_at = time.monotonic() + 10
    while (
        b"\ncachesvc_changes_epochs_total 1.0" not in call(f"{url}/metrics")[1]
        or call(f"{url}/v1/pages/settled", "PUT", b"v")[0] != 204
        or call(f"{url}/v1/pages/settled") != (200, b"v")
    ):
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_one_command_serves_and_a_signal_stops_all_of_it(root: Path, ending: signal.Signals) -> None:
    (port,) = free_ports(1)
    process = served(root, port)
    try:
        said = read_banner(process)
        assert f"http://127.0.0.1:{port}" in said[0]
        wait_ready(f"http://127.0.0.1:{port}")
        at = f"http://127.0.0.1:{port}/v1/pages/hello"
        assert call(at)[0] == 404
        assert call(at, "PUT", b"hello, world")[0] == 204
        assert call(at) == (200, b"hello, world")
        process.send_signal(signal.SIGHUP)  # never ends it
        assert call(at) == (200, b"hello, world")
    finally:
        process.send_signal(ending)
        _, errors = process.communicate(timeout=30)
    assert "SIGHUP: the topology document and certificates are read" in errors
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert [path.name for path in root.iterdir()] == ["root.lock"]


class Guide(BaseHTTPRequestHandler):
    """An origin on a laptop: it answers every key."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"text")

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_namespaces_and_origins_are_declared_without_servers_and_change_live(root: Path) -> None:
    origin = HTTPServer(("127.0.0.1", 0), Guide)
    Thread(target=origin.serve_forever, daemon=True).start()
    (port,) = free_ports(1)
    document, url = root / "ns.yaml", f"http://127.0.0.1:{port}"

    def declare(ttl: str) -> None:
        new = document.with_suffix(".new")
        loads = f"origin: {{url: 'http://127.0.0.1:{origin.server_port}/{{key}}'}}"
        new.write_text(f"namespaces: {{docs: {{owner: me, ttl: {ttl}, {loads}}}}}\n")
        new.replace(document)

    def fresh_seconds(key: str) -> int:
        with urllib.request.urlopen(f"{url}/v1/docs/{key}", timeout=10) as answer:
            assert answer.read() == b"text"
            return int(answer.headers["Cache-Control"].removeprefix("max-age=").partition(",")[0])

    declare("30m")
    process = served(root / "run", port, CACHESVC_NAMESPACES=str(document))
    try:
        said = read_banner(process)
        assert "namespaces: docs (read-through)" in "\n".join(said)
        wait_ready(url)
        assert fresh_seconds("a") > 60
        assert call(f"{url}/v1/pages/a")[0] == 404
        declare("-1m")
        give_up_at = time.monotonic() + 20
        while b"$.namespaces.docs.ttl: " not in (told := call(f"{url}/readyz?verbose")[1]):
            assert time.monotonic() < give_up_at, told
        declare("1m")
        while fresh_seconds(f"b{time.monotonic()}") > 60:
            assert time.monotonic() < give_up_at
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        origin.shutdown()


def test_a_port_in_use_ends_the_start_and_the_servers_of_that_start(root: Path) -> None:
    (port,) = free_ports(1)
    first = served(root, port)
    try:
        read_banner(first)
        second = served(root, port)
        try:
            _, errors = second.communicate(timeout=30)
        finally:
            second.kill()
        assert second.returncode == 1
        assert errors.startswith(f"cachesvc: 127.0.0.1:{port} is in use")
        assert len([path for path in root.iterdir() if path.is_dir()]) == 1
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=30)


def test_two_regions_run_with_four_instances_that_are_ready(tmp_path: Path) -> None:
    fleet = Fleet(Path("config/two-regions.yaml"), tmp_path / "fleet", environ={"CACHESVC_L1_BUDGET": "8MiB"})
    with fleet:
        assert [call(f"{fleet.url(name)}/readyz")[0] for name in ("eu-a", "eu-b", "us-a", "us-b")] == [
            200
        ] * 4
        # A deployment that has just begun fences every namespace once, which may refuse the first write.
        give_up_at = time.monotonic() + 10
        while True:
            assert call(f"{fleet.url('eu-a')}/v1/pages/k", "PUT", b"v")[0] == 204
            if (found := call(f"{fleet.url('us-b')}/v1/pages/k")) == (200, b"v"):
                break
            assert time.monotonic() < give_up_at, found
    assert not any(server.is_running for server in fleet.servers())


@pytest.mark.slow
def test_the_description_holds_on_the_real_service_and_nothing_answers_5xx(root: Path) -> None:
    """The schemathesis run that the web layer passes on fakes, with real tiers behind it."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    process = served(root, port, CACHESVC_SERVER_MAX_INSPECTIONS="100000")
    try:
        read_banner(process)
        wait_ready(url)
        environ = {**os.environ, "CACHESVC_BASE_URL": url, "CACHESVC_EXAMPLES": "15"}
        suite = Path(__file__).parents[1] / "wire" / "test_schema.py"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(suite)]
        run = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=110, check=False)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert run.returncode == 0, run.stdout[-4000:]
