"""A private directory per instance for its embedded servers' sockets and pid files.

Under one root (mode 0700) every instance has a directory of its own and holds a lock on a file in
it for as long as it lives; the kernel drops the lock when the instance dies, however it dies. So
whoever can take the lock knows that the owner is gone, whatever its process id says today. The next
instance to start ends the servers that such a directory names, and removes it. Instances that live
are never touched.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cachesvc.model.errors import ConfigError

LOCK = "owner.lock"
ORPHAN_ENDS_WITHIN_SECONDS = 5.0
LONGEST_SOCKET_PATH = 100
"""The longest path of a socket, bytes. The kernel takes 107 (103 on macOS)."""


class RunDir:
    """The directory of this instance. Released once, when its servers have been stopped."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def release(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def claim(root: Path) -> tuple[RunDir, list[str]]:
    """Ends what dead instances left behind, then takes a new directory.

    Returns the directory and what was ended and removed, for people to read. Safe against other
    instances that start or stop at the same time. Raises `ConfigError` if the root cannot be
    private.
    """
    _make_private(root)
    # Held over making *and* locking a directory: otherwise another instance could find it unlocked
    # and reap it.
    with _locked(root / "root.lock"):
        # Only directories that hold the lock's file are ours: the root may be one that people keep
        # other things in.
        reaped = [line for lock_file in sorted(root.glob(f"*/{LOCK}")) for line in _reap(lock_file.parent)]
        path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))
        lock = os.open(path / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return RunDir(path, lock), reaped


def default_root(environ: Mapping[str, str]) -> Path:
    """`CACHESVC_RUN_DIR`, else the user's runtime directory, else a temporary one.

    The temporary one has the user's id in its name.
    """
    if environ.get("CACHESVC_RUN_DIR"):
        return Path(environ["CACHESVC_RUN_DIR"]).absolute()
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.access(runtime, os.W_OK):
        return Path(runtime) / "cachesvc"
    return Path(tempfile.gettempdir()) / f"cachesvc-{os.getuid()}"


def _make_private(root: Path) -> None:
    name = "CACHESVC_RUN_DIR"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = root.lstat()
    except OSError as error:
        raise ConfigError(name, f"{root} cannot be made: {error.strerror}") from error
    if root.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(name, f"{root} is not private: it must be a directory of this user with mode 0700")
    if len(os.fsencode(root)) > LONGEST_SOCKET_PATH - 40:
        raise ConfigError(name, f"{root} is too long for the path of a socket in it: choose a shorter one")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _reap(path: Path) -> list[str]:
    """Ends the servers of a directory whose owner is dead, and removes it.

    Does nothing if the owner lives.
    """
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # its owner released it just now
        return []
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return []
    else:
        ended = [line for pid_file in sorted(path.glob("*.pid")) for line in _end_orphan(pid_file)]
        shutil.rmtree(path, ignore_errors=True)
        return ended
    finally:
        os.close(lock)


def _end_orphan(pid_file: Path) -> list[str]:
    pid = _pid_in(pid_file)
    if pid is None or not _is_server_of(pid_file, pid):
        return []
    for number in (signal.SIGTERM, signal.SIGKILL):
        os.kill(pid, number)
        give_up_at = time.monotonic() + ORPHAN_ENDS_WITHIN_SECONDS
        while time.monotonic() < give_up_at:
            if not _is_server_of(pid_file, pid):
                return [f"{pid_file.stem} (pid {pid}), left by an instance that was killed"]
            time.sleep(0.01)
    return []


def _pid_in(pid_file: Path) -> int | None:
    try:
        return int(pid_file.read_text())
    except (OSError, ValueError):  # killed between making the file and writing it
        return None


def _is_server_of(pid_file: Path, pid: int) -> bool:
    """True if the process is the one the file was written for: its id may be another's by now.

    The program of that process is named like the file, and its command line names a socket in the
    file's directory. A process that has ended but was not waited for has no command line.
    """
    program, _, arguments = _command_line(pid).partition(" ")
    return pid_file.stem in Path(program).name and f"{pid_file.parent}/" in arguments


def _command_line(pid: int) -> str:
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    command = ["ps", "-o", "command=", "-p", str(pid)]  # a number, and the system's ps
    listed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  as above
    return listed.stdout.strip()
