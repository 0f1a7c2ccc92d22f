"""The document in a file, which may be replaced at any time, as a mounted ConfigMap is.

Whoever can write the file may change it, also without another `version`: another text takes the
place of the one before. A ConfigMap is a symlink to a directory that is swapped in one step; the
file behind it is what is looked at.

`compare_and_set` writes the file anew, beside it first, and renames. What it replaces is kept in
`<file>.history`, a directory with a file for each version. A file that others write has no history
of its own there, and a read-only mount takes no writes: both are said.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from cachesvc.changes.document.contract import (
    HISTORY,
    ConflictError,
    Document,
    DocumentStore,
    Version,
    digest,
)
from cachesvc.config.document import LARGEST_FILE_BYTES
from cachesvc.config.topology_version import version_of
from cachesvc.model.errors import TierError

Mark = tuple[int, int, int]
"""When a file was written (ns), its bytes, and its inode."""


class FileDocument(DocumentStore):
    """The document in a file of this machine."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._mark: Mark | None = None
        self._read: Document | None = None
        """The document as it was at that mark."""

    async def newest(self) -> Version | None:
        found = await asyncio.to_thread(self._now)
        return found.version if found is not None else None

    async def load(self, number: int | None = None) -> Document | None:
        return await asyncio.to_thread(self._load, number)

    async def compare_and_set(self, document: Document, expected: Version | None) -> Sequence[TierError]:
        with self._named_errors("cannot be written"):
            await asyncio.to_thread(self._put, document, expected)
        return ()

    async def history(self) -> Sequence[Version]:
        found = await asyncio.to_thread(self._history)
        return [one.version for one in found]

    async def look(self, known: Version | None) -> Document | None:
        found = await super().look(known)
        if self.seen is None and not self.is_away:
            self._failed(TierError(self.where, f"cannot be read: {os.strerror(errno.ENOENT)}"))
        return found

    def seed(self, number: int) -> Version | None:
        return None

    def _follows(self, newest: Version, known: Version | None) -> bool:
        return known is None or newest.hash != known.hash

    def _failed(self, error: TierError) -> None:
        super()._failed(error)
        self._trouble = f"the topology document of before is in force: {error}"

    # in a thread ---------------------------------------------------------------------------------

    def _now(self) -> Document | None:
        """Returns the file's document; None if there is no such file."""
        with self._named_errors("cannot be read"):
            try:
                found = self._path.stat()
            except FileNotFoundError:
                self._read = self._mark = None
                return None
            mark = (found.st_mtime_ns, found.st_size, found.st_ino)
            if mark != self._mark:
                self._read, self._mark = self._as_it_is(found.st_mtime_ns // 1000), mark
            return self._read

    def _as_it_is(self, written_us: int) -> Document:
        with self._path.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
        if len(content) > LARGEST_FILE_BYTES:
            raise TierError(
                self.where, f"is longer than {LARGEST_FILE_BYTES >> 20} MiB: is it the right file?"
            )
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            why = f"is not UTF-8 (byte 0x{content[error.start]:02x}): save the file as UTF-8"
            raise TierError(self.where, why) from None
        number = version_of(text)
        kept = self._kept(number)
        if kept is not None and kept.version.hash == digest(text):
            return kept
        return Document.of(text, number, at_us=written_us)

    def _load(self, number: int | None) -> Document | None:
        now = self._now()
        if number is None or (now is not None and now.version.number == number):
            return now
        return self._kept(number)

    def _put(self, document: Document, expected: Version | None) -> None:
        target = self._path.resolve()
        with self._locked(target):
            before = self._now()
            seen = before.version.hash if before is not None else ""
            if seen != (expected.hash if expected is not None else ""):
                raise ConflictError(self.where, before.version if before is not None else None)
            for one in (before, document):
                if one is not None:
                    self._keep(one)
            mode = target.stat().st_mode & 0o777 if before is not None else 0o600
            _replace(target, document.text.encode(), mode)
            for old in self._history()[HISTORY:]:
                self._place(old.version.number).unlink(missing_ok=True)

    @property
    def _folder(self) -> Path:
        target = self._path.resolve()
        return target.with_name(f"{target.name}.history")

    def _place(self, number: int) -> Path:
        return self._folder / f"{number}.json"

    def _keep(self, document: Document) -> None:
        _replace(self._place(document.version.number), msgspec.json.encode(document), 0o600)

    def _kept(self, number: int) -> Document | None:
        try:
            return msgspec.json.decode(self._place(number).read_bytes(), type=Document).checked(self.where)
        except (OSError, msgspec.MsgspecError, TierError):
            return None

    def _history(self) -> Sequence[Document]:
        with self._named_errors("cannot be read"):
            numbers = [int(one.stem) for one in self._folder.glob("*.json") if one.stem.isdigit()]
            kept = [self._kept(number) for number in sorted(numbers, reverse=True)]
            now = self._now()
        found = [one for one in kept if one is not None]
        return found if now is None or now in found else [now, *found]

    @contextlib.contextmanager
    def _locked(self, target: Path) -> Iterator[None]:
        """The block of one writer at a time, of all processes that write by this class."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(self._folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _named_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TierError(self.where, f"{what}: {error.strerror or error}") from error


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Writes a file beside its place, with this mode from its first byte, and renames it."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
