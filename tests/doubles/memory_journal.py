"""A journal's file in this process: it outlives its instance, and fails on demand."""

import errno
import itertools
import os

from cachesvc.changes.journal.records import MAGIC, Contents, Opening, framed, read

_WORDS = itertools.count(1)


class MemoryDisk:
    """The bytes of one journal's file."""

    def __init__(self, region: str = "here", cells: tuple[str, ...] = ("c1", "c2")) -> None:
        self.opening = Opening(f"{next(_WORDS):08x}", region, cells)
        self.data = MAGIC + framed(self.opening)
        self.error = 0
        """The number of the error of every write; 0: writes succeed."""
        self.appends = 0


class MemoryJournalStore:
    """A journal's store on a `MemoryDisk`."""

    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk
        self.size = 0

    async def open(self) -> Contents:
        found = read(self._disk.data)
        if not found.records:
            found = Contents([self._disk.opening], 0, is_whole=False)
            self._disk.data = MAGIC + framed(self._disk.opening)
            self.size = len(self._disk.data)
        else:
            self.size = found.end
        return found

    async def append(self, data: bytes) -> None:
        self._check()
        self._disk.appends += 1
        self._disk.data = self._disk.data[: self.size] + data
        self.size += len(data)

    async def empty(self) -> None:
        self._check()
        self.size = len(MAGIC) + len(framed(self._disk.opening))
        self._disk.data = self._disk.data[: self.size]

    async def close(self) -> None: ...

    def _check(self) -> None:
        if self._disk.error:
            raise OSError(self._disk.error, os.strerror(self._disk.error))


NO_SPACE = errno.ENOSPC
EIO = errno.EIO
