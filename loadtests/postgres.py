"""Throw-away clusters of PostgreSQL, by the machine's own programs (Debian's package).

PostgreSQL refuses to run as root; then its programs run as the user `postgres` of the package.
"""

import os
import pwd
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cachesvc.app.embedded.server_process import ServerProcess, ServerStartError
from loadtests.fleet_topology import free_ports

BINARIES = Path("/usr/lib/postgresql")
"""Where Debian has the programs, in a folder for each version."""
USER = "postgres"
DATABASE = "shop"
SETTINGS: Mapping[str, str] = {
    "wal_level": "logical",
    "fsync": "off",
    "shared_buffers": "16MB",
    "max_connections": "40",
    "autovacuum": "off",
    "max_wal_senders": "8",
    "max_replication_slots": "8",
}
"""Small and fast to start. Without `fsync`, a killed server still keeps what it committed."""


def programs() -> Path | None:
    """The folder of the newest installed version's programs; None if there is none."""
    versions = [path for path in BINARIES.glob("*/bin") if (path / "initdb").exists()]
    versions.sort(key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0))
    if versions:
        return versions[-1]
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class Postgres:
    """One server on a loopback port, with the database `shop`. All calls block."""

    def __init__(self, data: Path, port: int, settings: Mapping[str, str]) -> None:
        self.data = data
        self.port = port
        given = {**SETTINGS, **settings, "listen_addresses": "127.0.0.1", "port": str(port)}
        given |= {"unix_socket_directories": str(data.parent)}
        words = [word for name, value in given.items() for word in ("-c", f"{name}={value}")]
        self.process = ServerProcess(
            f"postgres-{port}",
            [*_as_user(), str(_bin("postgres")), "-D", str(data), *words],
            is_ready=lambda: _takes_queries(port),
            run_dir=data.parent,
            stop_signal=signal.SIGINT,
        )

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{DATABASE}"

    def psql(self, sql: str, database: str = DATABASE) -> str:
        """Runs SQL as the superuser, each statement by itself, and returns the rows as lines.

        Raises `RuntimeError` with what the server said.
        """
        words = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port)]
        ended = subprocess.run(
            [str(_bin("psql")), *words, "-U", USER, "-d", database],
            input=sql,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise RuntimeError(ended.stderr.strip())
        return ended.stdout.strip()

    def promote(self) -> None:
        """Makes a primary of a replica; waits until it is one."""
        _run("pg_ctl", "promote", "-w", "-D", str(self.data))


@contextmanager
def postgres(**settings: str) -> Iterator[Postgres]:
    """A primary that runs; its directory is removed at the end of the block.

    Raises `ServerStartError` if PostgreSQL is not installed.
    """
    with _directory() as directory:
        data = directory / "primary"
        words = ("-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
        _run("initdb", "-D", str(data), *words)
        (port,) = free_ports(1)
        server = Postgres(data, port, settings)
        try:
            server.process.start()
            server.psql(f"CREATE DATABASE {DATABASE}", "postgres")
            yield server
        finally:
            server.process.stop()


@contextmanager
def replica_of(primary: Postgres) -> Iterator[Postgres]:
    """A streaming replica that runs, and can be promoted."""
    with _directory() as directory:
        data = directory / "replica"
        words = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", USER)
        _run("pg_basebackup", "-D", str(data), "-R", "-X", "stream", "-c", "fast", "--no-sync", *words)
        (port,) = free_ports(1)
        server = Postgres(data, port, {})
        try:
            server.process.start()
            yield server
        finally:
            server.process.stop()


@contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="cachesvc-pg-"))
    try:
        if os.getuid() == 0:
            owner = pwd.getpwnam(USER)
            os.chown(directory, owner.pw_uid, owner.pw_gid)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _as_user() -> Sequence[str]:
    if os.getuid() != 0:
        return []
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]


def _bin(program: str) -> Path:
    folder = programs()
    if folder is None:
        raise ServerStartError("postgresql is not installed: `make test` installs it")
    return folder / program


def _run(program: str, *words: str) -> None:
    command = [*_as_user(), str(_bin(program)), *words]
    ended = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    if ended.returncode:
        raise ServerStartError(f"{program} failed: {ended.stderr.strip()[-300:]}")


def _takes_queries(port: int) -> bool:
    """True if the server lets a user in: it takes connections before that, and refuses them."""
    words = f"user\0{USER}\0database\0postgres\0\0".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=1) as link:
        link.sendall(struct.pack("!II", 8 + len(words), 3 << 16) + words)
        return link.recv(1) == b"R"
