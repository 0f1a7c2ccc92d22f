"""A real etcd of one member. Tests with it are skipped where it is not installed."""

import shutil
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.doubles.servers import RealServer, Where, free_port, running_server

ETCD = shutil.which("etcd")


@contextmanager
def etcd_server() -> Iterator[RealServer]:
    """The machine's etcd, on TCP, with its data in a private folder."""
    peer = f"http://127.0.0.1:{free_port()}"

    def command(where: Where, directory: Path) -> list[str]:
        url = f"http://{where[0]}:{where[1]}"
        words = {
            "data-dir": str(directory / "data"),
            "listen-client-urls": url,
            "advertise-client-urls": url,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "unsafe-no-fsync": "true",
        }
        return [str(ETCD), *(f"--{name}={value}" for name, value in words.items())]

    def is_ready(where: Where) -> bool:
        with urllib.request.urlopen(f"http://{where[0]}:{where[1]}/health", timeout=1) as answer:
            healthy: bool = b"true" in answer.read()
            return healthy

    with running_server("etcd", command, is_ready, tcp=True, stop_signal=signal.SIGKILL) as server:
        yield server
