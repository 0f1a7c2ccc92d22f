"""Starts processes on a core and on free ports, waits for them, and stops them by pid.

All ports are ports of 127.0.0.1.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

from loadtests.bench.cores import on_core
from loadtests.bench.figures import BenchError
from loadtests.bench.loops import unverified_context

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Server:
    """A started process. Its output goes to a log that error messages quote."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        core: int,
        port: int,
        log: Path,
        env: Mapping[str, str],
        is_encrypted: bool = False,
    ) -> None:
        self.name = name
        self.port = port
        self._is_encrypted = is_encrypted
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                argv,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                preexec_fn=on_core(core),
            )

    @property
    def url(self) -> str:
        """The server's base URL, for servers that speak HTTP."""
        return f"{'https' if self._is_encrypted else 'http'}://127.0.0.1:{self.port}"

    def connect(self, timeout_seconds: float = 10.0) -> HTTPConnection:
        """A connection for single requests, which is opened with the first one."""
        if self._is_encrypted:
            context = unverified_context()
            return HTTPSConnection("127.0.0.1", self.port, timeout=timeout_seconds, context=context)
        return HTTPConnection("127.0.0.1", self.port, timeout=timeout_seconds)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until(self, answers: "Callable[[Server], bool]") -> None:
        """Waits until `answers(self)` is true.

        Stops the process and raises `BenchError` if it ends or takes more than 20 s.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not answers(self):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise BenchError(
                    f"{self.name} did not start: {self._log.read_text(errors='replace')[-3000:]}"
                )
            time.sleep(0.02)

    def stop(self) -> None:
        """Asks the process to end, and kills it if it does not. Fine if it has ended."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def accepts(server: Server) -> bool:
    """True if something accepts connections at the server's port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=1):
        return True
    return False


def is_ready(server: Server) -> bool:
    """True if `/readyz` answers 200."""
    connection = server.connect(timeout_seconds=1.0)
    with suppress(OSError, HTTPException):
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    return False


class Servers:
    """Every process of one run. `close` stops them, the last started first."""

    def __init__(self, *, folder: Path, server_core: int, load_core: int) -> None:
        self.folder = folder
        self._server_core = server_core
        self._load_core = load_core
        self._started = ExitStack()
        self._count = 0

    def memcached(self) -> Server:
        """A memcached server on the load's core."""
        port = free_port()
        argv = [_found("memcached"), "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-m", "128", "-t", "1"]
        if os.geteuid() == 0:
            argv += ["-u", "root"]
        return self._start("memcached", argv, core=self._load_core, port=port, answers=accepts)

    def redis(self) -> Server:
        """A Redis server on the load's core."""
        port = free_port()
        argv = [
            _found("redis-server"),
            "--bind",
            "127.0.0.1",
            "--port",
            str(port),
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        argv += ["--dir", str(self.folder), "--maxmemory-policy", "volatile-lru"]
        return self._start("redis", argv, core=self._load_core, port=port, answers=accepts)

    def rival(self, name: str, headers: Path, memcached_port: int) -> Server:
        """A rival on the server's core; see `rivals.py`."""
        port = free_port()
        argv = [
            sys.executable,
            "-m",
            "loadtests.bench.rivals",
            name,
            "--port",
            str(port),
            "--headers",
            str(headers),
        ]
        argv += ["--memcached", str(memcached_port)]
        return self._start(name, argv, core=self._server_core, port=port, answers=accepts)

    def otlp_sink(self) -> Server:
        """A receiver of telemetry on the load's core."""
        port = free_port()
        argv = [sys.executable, "-m", "loadtests.bench.otlp_sink", "--port", str(port)]
        return self._start("otlp-sink", argv, core=self._load_core, port=port, answers=accepts)

    def service(self, config: Path, topology: Path, port: int, *, is_encrypted: bool) -> Server:
        """A service instance on the server's core."""
        argv = [
            sys.executable,
            "-m",
            "cachesvc",
            "serve",
            "--config",
            str(config),
            "--topology",
            str(topology),
        ]
        return self._start(
            "cachesvc",
            argv,
            core=self._server_core,
            port=port,
            answers=is_ready,
            is_encrypted=is_encrypted,
        )

    def _start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        core: int,
        port: int,
        answers: Callable[[Server], bool],
        is_encrypted: bool = False,
    ) -> Server:
        self._count += 1
        log = self.folder / f"{self._count:02d}-{name}.log"
        env = {"PYTHONUNBUFFERED": "1"}
        server = Server(name, argv, core=core, port=port, log=log, env=env, is_encrypted=is_encrypted)
        self._started.callback(server.stop)
        server.wait_until(answers)
        return server

    def close(self) -> None:
        """Stops all processes."""
        self._started.close()


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise BenchError(f"{program} is not on PATH; install it (apt-get install memcached redis-server)")
    return path
