"""Failures of the cache. A miss is an answer and never one of these; what a loader raises passes through unchanged."""

from typing import Generic, TypeVar

V = TypeVar("V")


class CacheError(Exception):
    """The cache could not do what was asked, or refused to.

    Its `type` is the last segment of the problem's `type` (`bad-key`, `no-such-namespace`, …), or one of the client's own:
    `unreachable` (no instance took the request), `deadline` (no answer in time), `bad-answer` (an answer that is none of the
    protocol), `overloaded` (too much waits in this client), `load-cancelled` and `closed`.
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
        """The HTTP status, or 0 if the failure is on this side of an answer."""
        self.retryable = retryable
        """Whether the same call may succeed later."""
        self.retry_after = retry_after
        """Seconds, if the service said."""
        self.request_id = request_id
        self.field = field
        """The header, path segment or body path at fault, if the service named one."""

    @property
    def is_outage(self) -> bool:
        """True if the cache failed, false if it refused what it was asked: then asking differently is up to the caller."""
        return self.status >= 500 or self.status in (408, 429) or (self.status == 0 and self.retryable)

    def copy(self) -> "CacheError":
        """An equal error to raise: callers that share a request must not share a traceback."""
        return CacheError(
            self.type,
            self.detail,
            status=self.status,
            retryable=self.retryable,
            retry_after=self.retry_after,
            request_id=self.request_id,
            field=self.field,
        )


class PartialError(CacheError, Generic[V]):
    """Some keys of a call for many failed; carries what the others brought. The attributes are those of the first failure."""

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
        self.found = found
        """The values that were found; empty for a write."""
