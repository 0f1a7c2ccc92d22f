"""The file that holds copies of L1 from a stop to the next start.

    "cachesvc L1 snapshot" 0x01 · u32 length · msgpack [queues, written_us]
    u32 length of key id · u32 length of envelope · key id · envelope     for each copy
    u32 0 · u32 number of copies · "end\\n"

Integers are big-endian. The envelopes are those of `envelope.py`, each with a checksum. A file is
written beside its place and then renamed, so a writer that is killed leaves the old file or none;
what a crash of the machine tears has no end and is not read. A file is read once: it is removed
from its directory before the first byte is used, so a file that ends its process does so once.

The values are in it as they are in memory. So the file is for its owner only, and one that somebody
else could have written is not read.
"""

import os
import stat
from pathlib import Path
from struct import Struct as Layout
from typing import BinaryIO

import msgspec
from msgspec import Struct

from cachesvc.model.entry import Entry, Key
from cachesvc.tiers.envelope import pack, unpack

MAGIC = b"cachesvc L1 snapshot\x01"
END = b"end\n"
LONGEST_HEADER = 1 << 16
CHUNK_BYTES = 1 << 20
"""One read or write of the file."""
_LENGTH = Layout(">I")
_LENGTHS = Layout(">II")


class Header(Struct, frozen=True, array_like=True):
    """The beginning of a snapshot, by which its reader knows it."""

    queues: str
    """The queue servers that its fences were read from (`Fences.queues`)."""
    written_us: int


class UnusableSnapshotError(Exception):
    """The reason why a file is not read, for people."""


class SnapshotWriter:
    """Writes one snapshot. `commit` puts it into its place; without it nothing is left."""

    def __init__(self, path: Path, header: Header) -> None:
        """Makes the file, and its directory. Blocks; raises `OSError` if that cannot be done."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._part.unlink(missing_ok=True)
        opened = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file: BinaryIO = os.fdopen(opened, "wb", buffering=0)
        encoded = msgspec.msgpack.encode(header)
        self._pending = bytearray(MAGIC + _LENGTH.pack(len(encoded)) + encoded)
        self.copies = 0
        self.bytes = len(self._pending)

    def add(self, key: Key, entry: Entry) -> None:
        """Adds a copy to what the next `flush` writes."""
        envelope = pack(key, entry)
        before = len(self._pending)
        self._pending += _LENGTHS.pack(len(key.id), len(envelope))
        self._pending += key.id
        self._pending += envelope
        self.copies += 1
        self.bytes += len(self._pending) - before

    @property
    def is_due(self) -> bool:
        """True if there is enough for a `flush`."""
        return len(self._pending) >= CHUNK_BYTES

    def flush(self) -> None:
        """Writes what was added. Blocks; raises `OSError`."""
        pending = memoryview(self._pending)
        while pending:
            pending = pending[self._file.write(pending) :]
        self._pending = bytearray()

    def commit(self) -> None:
        """Writes the rest and puts the file into its place. Blocks; raises `OSError`."""
        self._pending += _LENGTHS.pack(0, self.copies) + END
        self.flush()
        self._file.close()
        self._part.replace(self._path)

    def abandon(self) -> None:
        """Removes what was written, if it was not committed. Blocks."""
        self._file.close()
        self._part.unlink(missing_ok=True)


class SnapshotReader:
    """Reads one snapshot, which is gone from its directory by then."""

    def __init__(self, path: Path) -> None:
        """Blocks.

        Raises `FileNotFoundError` if there is none, `OSError` if the file cannot be read, and
        `UnusableSnapshotError` if it is not to be used.
        """
        self._file: BinaryIO = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")
        try:
            path.unlink()
            self._check_owner()
            self.header = self._read_header()
            self._begin = self._file.tell()
            self.copies = self._read_end()
        except BaseException:
            self._file.close()
            raise

    def read(self) -> list[tuple[Key, Entry]]:
        """Returns the next copies, about `CHUNK_BYTES` of them; none at the end. Blocks.

        Raises `UnusableSnapshotError` at a copy that is damaged; those before it are intact.
        """
        found: list[tuple[Key, Entry]] = []
        size = 0
        while size < CHUNK_BYTES:
            id_length, envelope_length = _LENGTHS.unpack(self._exactly(_LENGTHS.size))
            if id_length == 0:
                self._file.seek(-_LENGTHS.size, os.SEEK_CUR)
                break
            if id_length + envelope_length > self._end - self._file.tell():
                raise UnusableSnapshotError("a length in it is wrong")
            key = _key_of(self._exactly(id_length))
            entry = unpack(key, self._exactly(envelope_length))
            if entry is None:
                raise UnusableSnapshotError("a copy in it is damaged, or of another release")
            found.append((key, entry))
            size += id_length + envelope_length
        return found

    def close(self) -> None:
        self._file.close()

    def _check_owner(self) -> None:
        found = os.fstat(self._file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise UnusableSnapshotError("it is no regular file")
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UnusableSnapshotError("another user could have written it")

    def _read_header(self) -> Header:
        if self._file.read(len(MAGIC)) != MAGIC:
            raise UnusableSnapshotError("it is of another format")
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        if length > LONGEST_HEADER:
            raise UnusableSnapshotError("a length in it is wrong")
        try:
            return msgspec.msgpack.decode(self._exactly(length), type=Header)
        except msgspec.MsgspecError:
            raise UnusableSnapshotError("its header is of another format") from None

    def _read_end(self) -> int:
        """Returns the number of copies, and goes back to the first."""
        length = _LENGTHS.size + len(END)
        self._end = self._file.seek(0, os.SEEK_END) - length
        if self._end < self._begin:
            raise UnusableSnapshotError("it has no end")
        self._file.seek(self._end)
        zero, copies = _LENGTHS.unpack(self._exactly(_LENGTHS.size))
        if zero != 0 or self._file.read(len(END)) != END:
            raise UnusableSnapshotError("it has no end")
        self._file.seek(self._begin)
        return int(copies)

    def _exactly(self, length: int) -> bytes:
        found = self._file.read(length)
        if len(found) != length:
            raise UnusableSnapshotError("it has no end")
        return found


def _key_of(key_id: bytes) -> Key:
    namespace, slash, text = key_id.partition(b"/")
    if not slash:
        raise UnusableSnapshotError("a key in it is damaged")
    try:
        return Key.of(namespace.decode(), text.decode())
    except UnicodeDecodeError:
        raise UnusableSnapshotError("a key in it is damaged") from None
