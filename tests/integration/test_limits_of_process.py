"""A process with few descriptors and little memory, and callers that want more."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from loadtests.fleet_topology import free_ports
from tests.integration.test_serve import call, read_banner, wait_settled

MIB = 1 << 20


@contextmanager
def limited(setting: str = "pass", **settings: str) -> Iterator[tuple[int, str, subprocess.Popen[str]]]:
    """A service on embedded servers, whose process runs `setting` first."""
    (port,) = free_ports(1)
    with TemporaryDirectory(prefix="csvc-", dir="/tmp") as root:
        environ = {
            **os.environ,
            "CACHESVC_RUN_DIR": str(Path(root)),
            "CACHESVC_SERVER_PORT": str(port),
            **settings,
        }
        program = f"import resource, sys; {setting}; from cachesvc.cli import main; sys.exit(main(['serve']))"
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            read_banner(process)
            url = f"http://127.0.0.1:{port}"
            wait_settled(url)
            yield port, url, process
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)


def test_more_idle_connections_than_descriptors_take_no_probe_away() -> None:
    """1,100 idle connections at a limit of 1,024 descriptors, of which the soft limit is 256."""
    few = "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024))"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    with limited(few) as (port, url, process), ExitStack() as held:
        for _ in range(1100):
            held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        began = time.monotonic()
        for path in ("/livez", "/readyz", "/metrics", "/v1/pages/settled"):
            status, body = call(f"{url}{path}")
            assert status == 200
            if path == "/metrics":
                text = body.decode()
        assert time.monotonic() - began < 5
        (made_room,) = [
            line for line in text.splitlines() if 'closed_total{port="data",reason="idle"}' in line
        ]
        assert float(made_room.split()[-1]) > 300
        assert process.poll() is None


def test_answers_that_nobody_reads_do_not_end_the_process() -> None:
    """`:get` of one value of 1 MiB a thousand times, by many callers that read nothing."""
    little = "resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))"
    with limited(little) as (port, url, process), ExitStack() as held:
        value = os.urandom(MIB)
        assert call(f"{url}/v1/pages/large", "PUT", value)[0] == 204
        while not _is_near(f"{url}/v1/pages/large"):
            time.sleep(0.1)  # until the bound on staleness is known, each read has a copy of its own
        body = json.dumps({"keys": ["large"] * 1000}).encode()
        head = (
            "POST /v1/pages:get HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        for _ in range(60):
            sock = held.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", port))
            sock.sendall(head.encode() + body)
        time.sleep(2)
        assert call(f"{url}/livez")[0] == 200
        assert call(f"{url}/v1/pages/settled")[0] == 200
        text = call(f"{url}/metrics")[1].decode()
        (held_bytes,) = [
            line for line in text.splitlines() if line.startswith("cachesvc_bytes_in_flight_bytes ")
        ]
        assert float(held_bytes.split()[-1]) <= 256 * MIB
        status = Path(f"/proc/{process.pid}/status").read_text()
        (peak,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
        assert peak < 700 * 1024, "the budget of 256 MiB, and the process itself"
        assert process.poll() is None


def test_values_that_are_gathered_beyond_l1_do_not_end_the_process() -> None:
    """`:get` of many values of 1 MiB, each read with a copy of its own from L3, by many callers."""
    settings = {
        "CACHESVC_L1_BUDGET": "4MiB",
        "CACHESVC_L3_TIMEOUT": "2s",
        "CACHESVC_SERVER_MAX_BYTES_IN_FLIGHT": "64MiB",
    }
    little = "resource.setrlimit(resource.RLIMIT_DATA, (600 << 20, 600 << 20))"
    with limited(little, **settings) as (port, url, process), ExitStack() as held:
        keys = [f"large-{n}" for n in range(16)]
        for key in keys:
            while call(f"{url}/v1/pages/{key}", "PUT", os.urandom(MIB))[0] != 204:
                time.sleep(0.1)  # a busy machine: the cell was late
        body = json.dumps({"keys": keys}).encode()
        head = (
            "POST /v1/pages:get HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Cache-Control: no-store\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        socks = [held.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(60)]
        for sock in socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(head.encode() + body)
        answers = [_status_of(sock) for sock in socks]
        assert set(answers) <= {200, 503, None}, "None: aborted, as it let its answer wait"
        assert answers.count(503) > 10
        assert call(f"{url}/livez")[0] == 200
        assert call(f"{url}/v1/pages/settled")[0] == 200
        status = Path(f"/proc/{process.pid}/status").read_text()
        (peak,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
        assert peak < 400 * 1024, "the budget of 64 MiB, and the process itself"
        assert process.poll() is None


def _status_of(sock: socket.socket) -> int | None:
    """The status of the answer that begins to come; None if the connection is aborted."""
    sock.settimeout(30)
    try:
        return int(sock.recv(12).split()[1])
    except (ConnectionError, IndexError):
        return None


def _is_near(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return "cachesvc-l1" in answer.headers["Cache-Status"]
