"""Failures of the cache.

A miss is an answer and never a failure. What a loader raises passes through unchanged. A value that
no codec can bring back is a mistake of the program, and no failure of the cache: `CodecError`.
"""

from collections.abc import Callable
from copy import copy
from typing import Any, Generic, TypeVar

V = TypeVar("V")


class CacheError(Exception):
    """The cache could not do what was asked, or refused it.

    `type` is the last segment of the problem's `type` (`bad-key`, `no-such-namespace`, …), or one
    of the client's own words: `unreachable` (no instance took the request), `deadline` (no answer
    in time), `bad-answer` (an answer that breaks the protocol), `overloaded` (too many requests
    wait in this client), `load-cancelled`, `closed` (by its owner) and `other-loop` (the client is in
    use on another event loop).
    """

    def __init__(
        self,
        type: str,  # noqa: A002  the word of RFC 9457
        detail: str = "",
        *,
        status: int = 0,
        retryable: bool = False,
        retry_after: float | None = None,
        request_id: str = "",
        field: str = "",
    ) -> None:
        super().__init__(f"{type}: {detail}" if detail else type)
        self.type = type
        self.detail = detail
        self.status = status
        """The HTTP status, or 0 if the client failed without an answer."""
        self.retryable = retryable
        """True if the same call may succeed later."""
        self.retry_after = retry_after
        """Seconds after which the service asks to try again; None if it did not say."""
        self.request_id = request_id
        self.field = field
        """The header, path segment or body path at fault, if the service named one."""

    @property
    def is_outage(self) -> bool:
        """True if the cache failed; false if it refused the request, which the caller must change."""
        return self.status >= 500 or self.status in (408, 429) or (self.status == 0 and self.retryable)

    @property
    def forbids_load(self) -> bool:
        """True if the value must not be loaded past the cache: its source has no room."""
        return self.type == "origin-budget"

    def __reduce__(self) -> tuple[Callable[..., "CacheError"], tuple[Any, ...], dict[str, Any]]:
        """Has the error pickled and copied with its attributes, whatever its class is made of."""
        return _made_again, (type(self), self.args), self.__dict__

    def copy(self) -> "CacheError":
        """Returns an equal error: callers that share a request must not share a traceback."""
        return CacheError(
            self.type,
            self.detail,
            status=self.status,
            retryable=self.retryable,
            retry_after=self.retry_after,
            request_id=self.request_id,
            field=self.field,
        )


def _made_again(kind: type[CacheError], args: tuple[Any, ...]) -> CacheError:
    return kind.__new__(kind, *args)


class UnauthenticatedError(CacheError):
    """The service does not take the client's token (401), or the token could not be fetched.

    A token that was refused has been fetched once more before, if it can be.
    """

    def copy(self) -> "UnauthenticatedError":
        return copy(self)


class ForbiddenError(CacheError):
    """The client's identity may not do this (403)."""

    scope: str = ""
    """The scope that it lacks, such as `invalidate:pages`, if the service named it."""
    identity: str = ""
    """The name of the identity as the service knows it, if the service named it."""

    def copy(self) -> "ForbiddenError":
        return copy(self)


class CodecError(TypeError):
    """The value cannot be stored: whoever reads it would get another one.

    The message names the place and the types: `$.user.id: UUID comes back as str`. It is raised
    by `set`, and by `get_or_load` and cached functions after the load, each time and whether the
    cache can be reached or not: the mistake is in the program.
    """


class DeclarationError(CodecError, ValueError):
    """The type of a namespace's values is one of which no value can be stored."""


class PartialError(CacheError, Generic[V]):
    """Some keys of a call for many keys failed; `found` has what the other keys brought.

    The attributes are those of the first failure, except that `retryable` is true only if every
    failure is retryable.
    """

    def __init__(self, failed: dict[str, CacheError], found: dict[str, V]) -> None:
        first_key, first = next(iter(failed.items()))
        super().__init__(
            first.type,
            f"{len(failed)} keys failed, such as {first_key!r}: {first.detail}",
            status=first.status,
            retryable=all(error.retryable for error in failed.values()),
            retry_after=first.retry_after,
            request_id=first.request_id,
            field=first.field,
        )
        self.failed = failed
        """The failure of each key that failed."""
        self.found = found
        """The values that were found; empty for a write."""
