"""Certificates for memcached servers, and the login of their auth file (`-Y`)."""

import ssl
from collections.abc import Callable
from typing import NamedTuple

from cachesvc.config.logins import auth_command, line_of
from cachesvc.config.service import L2


class MemcachedAccess(NamedTuple):
    """The certificates and the login for memcached servers."""

    context: ssl.SSLContext | None = None
    """For `tls:host:port`."""
    login: Callable[[], bytes] = bytes
    """Returns the command that logs in on a new connection; empty if there is no login.

    May read a file. Raises `OSError` and `ValueError`."""


DEFAULT_ACCESS = MemcachedAccess()


def access_of(settings: L2, context: ssl.SSLContext | None) -> MemcachedAccess:
    """Returns the access that these settings give.

    Without a context it has the system's authorities.
    """

    def login() -> bytes:
        auth = line_of(settings.auth_file) if settings.auth_file else settings.auth
        return auth_command(auth) if auth else b""

    return MemcachedAccess(context or _default_context(), login)


def _default_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def refusal_of_login(answer: bytes) -> str:
    """Returns why the server does not take the login; empty if it takes it.

    A server without an auth file keeps the login as a value of the key `auth`, and says the same.
    """
    if answer.startswith(b"STORED"):
        return ""
    said = answer[:80].decode("ascii", "replace").strip()
    return f"login: it says {said or 'nothing'!r}; look at user and password in l2.auth, or l2.auth_file"
