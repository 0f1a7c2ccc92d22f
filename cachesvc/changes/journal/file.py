"""The file of a journal: locked by one process, appended to, emptied.

The disk is used in a thread of its own, so calls are done one after the other and the event loop
never waits for one.

    append fails (no room, EIO)   what was written of it is cut off again; the caller hears of it
    cutting off fails, too        the next append writes over it; until then the file is not whole
    the process dies in between   the file is not whole: `open` says so
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from cachesvc.changes.journal.records import MAGIC, Contents, Opening, framed, read
from cachesvc.model.errors import ConfigError

T = TypeVar("T")

SETTING = "$.queue.journal.path"


class JournalFile:
    """One journal's file. `open` once, then the other calls in any number, then `close`."""

    def __init__(self, path: Path, opening: Opening, *, is_synced: bool) -> None:
        """Makes it without I/O. `opening` is written if the file is new.

        `is_synced`: what was appended is on the disk when `append` returns.
        """
        self._path = path
        self._opening = opening
        self._is_synced = is_synced
        self._file = -1
        self._first = 0
        """The bytes up to the end of the opening."""
        self.size = 0
        """Bytes of the file that can be read."""
        self._thread = ThreadPoolExecutor(1, "journal")

    def __repr__(self) -> str:
        return f"<JournalFile {self._path} [{self.size} bytes]>"

    async def open(self) -> Contents:
        """Takes the file for this process, and returns what can be read of it.

        Raises `ConfigError` if it cannot be opened, is used by another process, or is no journal.
        """
        try:
            return await self._do(self._open)
        except OSError as error:
            raise ConfigError(SETTING, f"{self._path} cannot be used: {error.strerror}") from error

    async def append(self, data: bytes) -> None:
        """Appends framed records, all or none. Raises `OSError`."""
        await self._do(lambda: self._append(data))

    async def empty(self) -> None:
        """Drops all records but the opening. Raises `OSError`."""
        await self._do(self._empty)

    async def close(self) -> None:
        """Gives the file up. Call it once, also if `open` failed."""
        await self._do(self._close)
        self._thread.shutdown(wait=False)

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # in the thread -------------------------------------------------------------------------------

    def _open(self) -> Contents:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            why = f"{self._path} is used by another process: give each instance a file of its own"
            raise ConfigError(SETTING, why) from None
        data = self._path.read_bytes()
        if not (data.startswith(MAGIC) or MAGIC.startswith(data)):
            raise ConfigError(SETTING, f"{self._path} is no journal: name another file")
        found = read(data)
        if not found.records:
            opened = Contents([self._opening], 0, is_whole=len(data) <= len(MAGIC))
            self._append(MAGIC + framed(self._opening))
            self._sync_folder()
        else:
            self.size, opened = found.end, found
        self._first = len(MAGIC) + len(framed(opened.records[0]))
        return opened

    def _append(self, data: bytes) -> None:
        end = self.size
        try:
            self._write(data, end)
            os.ftruncate(self._file, end + len(data))
            if self._is_synced:
                os.fsync(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, end)
            raise
        self.size = end + len(data)

    def _write(self, data: bytes, at: int) -> None:
        left = memoryview(data)
        while left:
            written = os.pwrite(self._file, left, at)
            left, at = left[written:], at + written

    def _empty(self) -> None:
        os.ftruncate(self._file, self._first)
        self.size = self._first
        if self._is_synced:
            os.fsync(self._file)

    def _sync_folder(self) -> None:
        """Makes the name of a new file outlive the machine."""
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
