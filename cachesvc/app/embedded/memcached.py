"""The machine's own memcached, as a private server on a unix socket."""

import os
import shutil
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

from cachesvc.app.embedded.server_process import ServerProcess

NAME = "memcached"
MEGABYTES = 256
STOP_SIGNAL = signal.SIGKILL
"""memcached has nothing to finish, and its own handling of SIGTERM takes up to a second.

It waits for the next tick of a one-second clock.
"""


def memcached_binary(environ: Mapping[str, str]) -> str | None:
    """The memcached on PATH, if there is one."""
    return shutil.which(NAME, path=environ.get("PATH"))


def memcached_server(binary: str, run_dir: Path, *, dies_with_parent: bool = True) -> ServerProcess:
    """The server, not started yet."""
    unix_socket = socket_path(run_dir)
    command = [binary, "-s", str(unix_socket), "-a", "0700", "-m", str(MEGABYTES), "-t", "2", *as_user()]
    return ServerProcess(
        NAME,
        command,
        is_ready=lambda: answers_version(unix_socket),
        run_dir=run_dir,
        dies_with_parent=dies_with_parent,
        stop_signal=STOP_SIGNAL,
    )


def as_user() -> list[str]:
    """The arguments without which memcached refuses to run as root; none for other users."""
    return ["-u", "root"] if os.getuid() == 0 else []


def address(run_dir: Path) -> str:
    return f"unix:{socket_path(run_dir)}"


def socket_path(run_dir: Path) -> Path:
    return run_dir / f"{NAME}.sock"


def answers_version(unix_socket: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(1)
        link.connect(str(unix_socket))
        link.sendall(b"version\r\n")
        return link.recv(64).startswith(b"VERSION")
