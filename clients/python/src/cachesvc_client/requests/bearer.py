"""The token that shows who a client is: what may be given, and what is known of it.

A text stays as it is. A file is read again once in `LOOK_SECONDS` while requests are made, so that
a token that is renewed in it is used. A function is called once, and again when the service refuses
what it returned (401). No message, `repr`, span or log line has the token.
"""

import math
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from cachesvc_client.errors import UnauthenticatedError

TokenSource: TypeAlias = str | os.PathLike[str] | Callable[[], str | Awaitable[str]]
"""A token, the path of a file that has it, or a function that returns it."""

LOOK_SECONDS = 1.0
"""The pause between two looks into the file of a token."""
PAUSE_SECONDS = 1.0
"""The least time between two fetches because of refusals, in the interest of the issuer."""


def check_source(token: TokenSource | None) -> TokenSource | None:
    """Returns the source of a token if it is one. Raises `ValueError`, without the token."""
    if isinstance(token, str):
        return checked(token)
    if token is None or callable(token):
        return token
    if isinstance(token, os.PathLike):
        return Path(token)
    raise ValueError(f"token: a text, a path or a function, not {type(token).__name__}")


def checked(token: object) -> str:
    """Returns a token without white space around it.

    Raises `ValueError`, without the token, for what cannot be sent in a header.
    """
    if not isinstance(token, str):
        raise ValueError(f"token: a text, not {type(token).__name__}")
    text = token.strip()
    if not text:
        raise ValueError("token: it is empty")
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise ValueError("token: it has a character that a token cannot have")
    return text


def unfetched(error: Exception) -> UnauthenticatedError:
    """Returns the error for a token that could not be fetched because of `error`."""
    why = str(error) if isinstance(error, OSError) else type(error).__name__
    return UnauthenticatedError("no-token", f"the token could not be fetched: {why}", retryable=True)


class KnownToken:
    """A client's token as far as it is known, without I/O. Times are monotonic seconds."""

    def __init__(self, source: TokenSource | None, *, tls_only: bool) -> None:
        """`tls_only`: it is sent to `https://` URLs only."""
        self.source = source
        self.is_off = False
        """True: nothing is sent, as a test has put another service in place of the real one."""
        self._tls_only = tls_only
        self._text = source if isinstance(source, str) else ""
        self._due = math.inf if isinstance(source, str) else -math.inf
        self._barred_until = -math.inf

    def __repr__(self) -> str:
        kind = "none" if self.source is None else "text" if isinstance(self.source, str) else "fetched"
        return f"<KnownToken [{kind}]>"

    @property
    def is_used(self) -> bool:
        return self.source is not None and not self.is_off

    @property
    def text(self) -> str:
        """The token that was learnt last; empty before the first."""
        return self._text

    def is_due(self, now: float) -> bool:
        """True if the source is to be asked, or its first answer to be waited for."""
        return now >= self._due or not self._text

    def asked(self, now: float) -> None:
        """Notes that the source is asked now, so that it is not due for a while."""
        self._due = now + LOOK_SECONDS if isinstance(self.source, os.PathLike) else math.inf

    def learn(self, token: object) -> None:
        """Keeps a fetched token. Raises `ValueError`, without the token."""
        self._text = checked(token)

    def may_renew(self, now: float) -> bool:
        """True if the source may be asked because a token was refused; notes that it is."""
        if isinstance(self.source, str) or now < self._barred_until:
            return False
        self._barred_until = now + PAUSE_SECONDS
        return True

    def lines(self, token: str, *, is_tls: bool) -> dict[str, str]:
        """Returns the header lines that show the token to a service."""
        if not token or (self._tls_only and not is_tls):
            return {}
        return {"Authorization": f"Bearer {token}"}
