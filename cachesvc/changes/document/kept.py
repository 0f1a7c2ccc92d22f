"""The last good document of an instance, on its own disk, for a start without its store.

It is a file that only its user can read, as the document holds secrets: JSON of the version and the
text. It is written beside its place and renamed. One that somebody else could have written, that is
torn or of another form is not taken.
"""

import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

import msgspec

from cachesvc.changes.document.contract import LARGEST_BYTES, Document
from cachesvc.model.errors import TierError

log = logging.getLogger(__name__)


class KeptDocument:
    """The file of one instance. All calls block."""

    def __init__(self, directory: str, region: str, instance: str) -> None:
        self.path = Path(directory) / f"topology-{region}-{instance.replace(':', '_')}.json"
        self.said = "nothing kept"
        """The state of the file, for people."""

    def __repr__(self) -> str:
        return f"<KeptDocument {self.path} [{self.said}]>"

    def keep(self, document: Document) -> None:
        """Writes the document. A failure is said, and changes nothing."""
        part = self.path.with_name(f"{self.path.name}.part")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(part, flags, 0o600), "wb") as file:
                file.write(msgspec.json.encode(document))
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
        except OSError as error:
            self.said = f"{self.path} cannot be written: {error.strerror or error}"
            log.warning("the last good topology document is not kept: %s", self.said)
            with suppress(OSError):
                part.unlink(missing_ok=True)
            return
        self.said = f"version {document.version.number} in {self.path}"

    def read(self) -> Document | None:
        """Returns the document; None if there is none that can be taken, which is logged."""
        try:
            content = self._content()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._refused(error.strerror or str(error))
            return None
        try:
            found = msgspec.json.decode(content, type=Document).checked(str(self.path))
        except (msgspec.MsgspecError, TierError):
            self._refused("it is torn, or of another form")
            return None
        self.said = f"version {found.version.number} in {self.path}"
        return found

    def _content(self) -> bytes:
        with os.fdopen(os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
                raise PermissionError(0, "it is not this user's alone")
            return file.read(8 * LARGEST_BYTES)

    def _refused(self, why: str) -> None:
        self.said = f"{self.path} is not taken: {why}"
        log.warning("the kept topology document is not taken: %s: %s", self.path, why)
