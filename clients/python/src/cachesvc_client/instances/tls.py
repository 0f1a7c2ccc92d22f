"""The certificates of a client's connections, read again when their files change."""

import logging
import ssl
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""The least time between two looks at the files. A look is made for a new connection only."""

Marks = tuple[tuple[int, int, int], ...]
"""For each file: its inode, its size in bytes, and when it was written (ns)."""


class Tls(NamedTuple):
    """The files of certificates for `https://` instances, in PEM. TLS 1.2 is the least.

    They are looked at for new connections, at most every 5 s: renewed ones need no restart.
    """

    ca: str = ""
    """The authorities that an instance's certificate must come from. Empty: the system's."""
    cert: str = ""
    """The certificate that is shown to instances that ask for one, with its chain."""
    key: str = ""
    """The private key of `cert`, without a passphrase. Empty: `cert` holds it, too."""
    server_name: str = ""
    """The name that an instance's certificate must have, in place of the host of its URL."""


def context_of(tls: Tls | ssl.SSLContext | None) -> ssl.SSLContext | None:
    """Returns the context for a client's connections; None: the defaults of its HTTP library.

    Raises `ValueError` for files that cannot be used, and for anything else.
    """
    if tls is None or isinstance(tls, ssl.SSLContext):
        return tls
    if not isinstance(tls, Tls):
        raise ValueError(f"tls: {tls!r} is neither a Tls nor an ssl.SSLContext")
    try:
        return _RenewedContext(tls)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ValueError(f"tls: {tls!r} cannot be used: {error}") from error


class _RenewedContext(ssl.SSLContext):
    """A context that makes each connection by the one that was read last from the files.

    Connections that are open keep the certificates that they were made with. Files that cannot be
    used change nothing: they may be half written, and the next look reads them again.
    """

    def __new__(cls, tls: Tls) -> "_RenewedContext":
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._looking = threading.Lock()
        self._seen = _marks(tls)
        self._looked_at = time.monotonic()
        self._current = _read(tls)

    def wrap_bio(self, *args: Any, **settings: Any) -> ssl.SSLObject:
        self._look()
        return self._current.wrap_bio(*args, **self._named(settings))

    def wrap_socket(self, *args: Any, **settings: Any) -> ssl.SSLSocket:
        self._look()
        return self._current.wrap_socket(*args, **self._named(settings))

    def _named(self, settings: dict[str, Any]) -> dict[str, Any]:
        return {**settings, "server_hostname": self._tls.server_name or settings.get("server_hostname")}

    def _look(self) -> None:
        """Reads the files again if they have changed; one thread at a time, the others go on."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS or not self._looking.acquire(blocking=False):
            return
        try:
            self._looked_at = now
            if (seen := _marks(self._tls)) != self._seen:
                self._current, self._seen = _read(self._tls), seen
        except (OSError, ValueError) as error:
            log.warning("%r cannot be used, the certificates of before are: %s", self._tls, error)
        finally:
            self._looking.release()


def _marks(tls: Tls) -> Marks:
    found = (Path(file).stat() for file in (tls.ca, tls.cert, tls.key) if file)
    return tuple((one.st_ino, one.st_size, one.st_mtime_ns) for one in found)


def _read(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key or None, password=_no_passphrase)
    return context


def _no_passphrase() -> str:
    """Keeps OpenSSL from asking for a passphrase on the terminal."""
    raise ValueError("the key has a passphrase")
