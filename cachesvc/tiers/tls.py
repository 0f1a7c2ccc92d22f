"""Certificates whose files change while the service runs.

    files change ─► the next look reads them ─┬─ usable ─► new connections are made with them
                                              └─ not ────► those of before stay; one log line, and
                                                           a trouble until they can be used

A certificate and its key are two files, which are seldom written in one step: a pair that does not
fit is read again at the next look. Connections that are open keep what they were made with.

Every part that opens or takes connections is given one `RenewedContext`, which never changes, and
asks it for each connection. So nothing else knows of renewals.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cachesvc.config.service import Service
from cachesvc.config.tls import (
    SYSTEM,
    ClientTls,
    ListenerTls,
    Tls,
    client_block,
    client_context,
    ends_of,
    is_given,
    listener_context,
)
from cachesvc.model.errors import ConfigError
from cachesvc.telemetry.loops import Loop

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""The pause between two looks at the files."""
WARN_SECONDS = 14 * 86_400
"""A certificate that ends sooner is a trouble."""

_PASSED_ON = ("read", "write", "pending")
"""The methods of `SSLObject` that only call those of the same name of OpenSSL's object."""

Marks = Sequence[tuple[int, int, int]]
"""For each file: its inode, its size in bytes, and when it was written (ns).

Zeros: it is not there."""


class RenewedContext(ssl.SSLContext):
    """A context that makes each connection by the one that was read last."""

    def __new__(cls, current: ssl.SSLContext, server_name: str = "") -> "RenewedContext":
        """`server_name` is what the certificates of servers must name, in place of their hosts."""
        return super().__new__(cls, current.protocol)

    def __init__(self, current: ssl.SSLContext, server_name: str = "") -> None:
        self.current = current
        self.server_name = server_name

    def wrap_bio(self, incoming: ssl.MemoryBIO, *args: Any, **settings: Any) -> ssl.SSLObject:
        made = self.current.wrap_bio(incoming, *args, **self._named(settings))
        # An event loop calls each of them for a small request. Without these, nothing but time is lost.
        if (inner := getattr(made, "_sslobj", None)) is not None:
            vars(made).update({name: getattr(inner, name) for name in _PASSED_ON})
        return made

    def wrap_socket(self, *args: Any, **settings: Any) -> ssl.SSLSocket:
        return self.current.wrap_socket(*args, **self._named(settings))

    def _named(self, settings: dict[str, Any]) -> dict[str, Any]:
        return {**settings, "server_hostname": self.server_name} if self.server_name else settings


class _Block:
    """One block of settings: its files, and the context that is made of them."""

    def __init__(self, path: str, files: Mapping[str, str], make: Callable[[], ssl.SSLContext]) -> None:
        """`files`: by their fields. Raises `ConfigError`; reads the files."""
        self._path = path
        self.files = {field: file for field, file in files.items() if file not in ("", SYSTEM)}
        self._make = make
        self._seen = self._marks()
        self.made = make()
        self.trouble = ""
        """Why the files cannot be used; empty if they are in use."""

    def look(self) -> bool:
        """Reads the files if they have changed; returns whether they are taken. Blocks."""
        if (seen := self._marks()) == self._seen:
            return False
        try:
            self.made = self._make()
        except ConfigError as error:
            if not self.trouble:
                log.warning("%s: %s; the certificates of before stay in use", error.path, error.why)
            self.trouble = f"{error.path}: {error.why}; the certificates of before stay in use"
            return False
        self._seen, self.trouble = seen, ""
        log.info("%s: renewed files are in use: %s", self._path, ", ".join(self.files.values()))
        return True

    def _marks(self) -> Marks:
        return [_mark(file) for file in self.files.values()]


def _mark(file: str) -> tuple[int, int, int]:
    try:
        found = Path(file).stat()
    except OSError:
        return (0, 0, 0)
    return found.st_ino, found.st_size, found.st_mtime_ns


class Certificates:
    """The contexts of one instance, by use. To be made before the event loop serves: it reads
    files."""

    def __init__(self, service: Service, *, now: Callable[[], float] = time.time) -> None:
        """`now` is in seconds since 1970. Raises `ConfigError` for files that cannot be used."""
        self._tls = service.tls
        self._now = now
        self._blocks: dict[str, tuple[_Block, RenewedContext]] = {}
        self._ends: dict[str, float] = {}
        """File → when it ends, seconds since 1970."""
        self._warned: set[str] = set()
        self.renewals = 0
        """Blocks whose renewed files were taken."""
        self.loop = Loop("watch of certificates")

    def __repr__(self) -> str:
        return f"<Certificates [{len(self._blocks)} blocks, {self.renewals} renewals]>"

    def clients(self, kind: str) -> RenewedContext | None:
        """The context for connections to servers of this kind, which is a block's name in `tls`.

        None if nothing is given: then the client's own default holds, with the system's authorities.
        """
        return client_certificates(self, self._tls, kind)

    def listener(self, block: ListenerTls, path: str) -> RenewedContext | None:
        """The context of a listening port; None if it speaks plain HTTP."""
        if not is_given(block):
            return None
        files = {"cert": block.cert, "key": block.key, "ca": block.ca}
        return self.watched(path, files, lambda: listener_context(block, f"$.{path}"))

    def watched(
        self, path: str, files: Mapping[str, str], make: Callable[[], ssl.SSLContext], server_name: str = ""
    ) -> RenewedContext:
        """The context of the block at `path`, whose files are watched from now on."""
        if path not in self._blocks:
            block = _Block(path, files, make)
            self._blocks[path] = block, RenewedContext(block.made, server_name)
            self._note_ends(block)
        return self._blocks[path][1]

    @property
    def is_used(self) -> bool:
        """True if there are files to watch."""
        return bool(self._blocks)

    async def run(self) -> None:
        """Looks at the files until it is cancelled."""
        await self.loop.run(self._look_aside, every_seconds=LOOK_SECONDS)

    async def _look_aside(self) -> None:
        await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Looks at all files once. Blocks."""
        for block, context in self._blocks.values():
            if block.look():
                self.renewals += 1
                context.current = block.made
                self._note_ends(block)
        for file, left in self.seconds_left().items():
            if left < WARN_SECONDS and file[0] not in self._warned:
                self._warned.add(file[0])
                log.warning("%s", _ending(file[0], left))

    def _note_ends(self, block: _Block) -> None:
        for field, file in block.files.items():
            if field != "key" and (end := ends_of(file, is_ca=field == "ca")) is not None:
                self._ends[file] = end.timestamp()
                if end.timestamp() - self._now() >= WARN_SECONDS:
                    self._warned.discard(file)

    def seconds_left(self) -> Mapping[tuple[str], float]:
        """The seconds until each file's certificates end; below 0 once they have ended."""
        now = self._now()
        return {(file,): end - now for file, end in self._ends.items()}

    def troubles(self) -> Iterator[str]:
        """Yields a sentence for each file that cannot be used, or that ends soon."""
        yield from (block.trouble for block, _ in self._blocks.values() if block.trouble)
        yield from (
            _ending(file, left) for (file,), left in self.seconds_left().items() if left < WARN_SECONDS
        )


def client_certificates(certificates: Certificates, tls: ClientTls, kind: str) -> RenewedContext | None:
    path, block = client_block(tls, kind)
    if not is_given(block):
        return None
    plain = Tls(ca=block.ca, cert=block.cert, key=block.key, server_name=block.server_name)
    files = {"ca": block.ca, "cert": block.cert, "key": block.key}
    return certificates.watched(
        path, files, lambda: client_context(plain, f"$.{path}"), server_name=block.server_name
    )


def _ending(file: str, left_seconds: float) -> str:
    if left_seconds <= 0:
        return f"the certificate in {file} has expired: put a renewed one there, no restart is needed"
    days = left_seconds / 86_400
    when = f"{days:.0f} days" if days >= 2 else f"{left_seconds / 3600:.0f} hours"
    return f"the certificate in {file} ends in {when}: put a renewed one there, no restart is needed"
