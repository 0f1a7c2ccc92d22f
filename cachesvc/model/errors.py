"""Failures. A miss is an answer and is never one of these.

`TierError`: a far server failed; reads go on without it. `RequestError`: a request cannot be
done; it becomes an RFC 9457 problem of a registered kind. `ConfigError` stops the start.
"""

from cachesvc.model.printable import printable, shortened
from cachesvc.model.problems import ProblemKind

LONGEST_REASON = 500
"""Characters of the longest reason of a `TierError`."""


class CachesvcError(Exception):
    """The root of the exceptions that this package raises on purpose."""


class TierError(CachesvcError):
    """A tier, cell or queue could not answer: `where` names it, `why` says the reason.

    In the results of a batch it stands, as a value, in the slots of the keys concerned. `why` may quote
    what a server said: at most `LONGEST_REASON` characters of it are kept, all of them printable.
    """

    def __init__(self, where: str, why: str) -> None:
        why = printable(why[:LONGEST_REASON])
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class TierTimeoutError(TierError):
    """No answer came within the deadline.

    The connection was closed: a late reply on it would be taken for the next exchange's.
    """


class TierUnavailableError(TierError):
    """The connection was refused or reset, or not tried because the breaker is open."""


class UnreadableAnswerError(TierUnavailableError):
    """The server's answer was out of its protocol, or of another shape than its script's.

    The connection was closed: nobody knows where the next answer begins.
    """


class ConfigError(CachesvcError):
    """A mistake in a document or a setting, and `others` that were found with it.

    `path` names the place (`$.cells.c2.region`, `CACHESVC_SERVER_PORT`), `why` the mistake and its
    cure. The text has one line per mistake. Of what a person wrote it repeats so much that a person
    finds it, and no character that would move a cursor.
    """

    def __init__(self, path: str, why: str, *others: "ConfigError") -> None:
        path, why = shortened(printable(path)), shortened(printable(why, keep="\n"))
        super().__init__("\n".join([f"{path}: {why}", *map(str, others)]))
        self.path = path
        self.why = why
        self.others = others

    def each(self) -> "tuple[ConfigError, ...]":
        """Returns the mistakes one by one."""
        return (ConfigError(self.path, self.why), *self.others)


class ProblemError(CachesvcError):
    """A failure of a registered kind, which says its status and whether to try again."""

    def __init__(self, kind: ProblemKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail

    @property
    def status(self) -> int:
        return self.kind.status

    @property
    def retryable(self) -> bool:
        return self.kind.retryable

    @property
    def retry_after_seconds(self) -> int | None:
        """The value of `Retry-After`; None if the answer has none."""
        return self.kind.retry_after_seconds


class RequestError(ProblemError):
    """A request that cannot be done.

    It is rendered as a problem document, never as a traceback.
    """

    def __init__(
        self,
        kind: ProblemKind,
        detail: str,
        *,
        field: str | None = None,
        token: tuple[tuple[int, int], ...] = (),
        retry_after: int | None = None,
        lines: bytes = b"",
        scope: str = "",
        identity: str = "",
    ) -> None:
        """`detail` is a sentence about this occurrence, for people.

        `field` names the header, path segment or body path at fault. `token` is given if the change
        counts although the request failed: the pairs that the caller's later reads must honour.
        """
        super().__init__(kind, detail)
        self.lines = lines
        """Complete header lines that the answer has besides."""
        self.field = field
        self.token = token
        self.retry_after = retry_after
        """The seconds after which to try again, if an origin or a limit says; else None."""
        self.scope = scope
        """The scope that is missing; empty if none is."""
        self.identity = identity
        """The name of the identity that lacks the scope; empty for a caller without one."""

    @property
    def retry_after_seconds(self) -> int | None:
        """The value of `Retry-After`: of the origin or limit if it says, else of the kind."""
        own = self.kind.retry_after_seconds
        return own if own is None else self.retry_after or own


class OriginError(ProblemError):
    """A load that brought no value; `kind` says why.

    | Kind                                              | `is_answer` | A stale copy may stand in |
    |---------------------------------------------------|-------------|---------------------------|
    | `ORIGIN_FAILED`, `ORIGIN_TIMEOUT`, `ORIGIN_BUSY`  | no          | yes                       |
    | `ORIGIN_BUDGET`: the region may not load more now | no          | yes                       |
    | `ORIGIN_LIMITED`: try again later (408, 425, 429) | yes         | yes                       |
    | `ORIGIN_REFUSED`: no value for us (401, 403, 3xx) | yes         | no                        |
    | `BAD_KEY`: no URL can be made of the key          | yes         | no                        |
    """

    def __init__(
        self,
        why: str,
        *,
        kind: ProblemKind = ProblemKind.ORIGIN_FAILED,
        origin_status: int = 0,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(kind, why)
        self.origin_status = origin_status
        """The status that the origin answered; 0 if it did not get so far."""
        self.retry_after = retry_after
        """The seconds after which to try again, bounded, if the origin or a limit says; else None."""

    @property
    def is_answer(self) -> bool:
        """True if the origin works and answered so: no outage, and no failure of this service."""
        return self.kind in (ProblemKind.ORIGIN_REFUSED, ProblemKind.ORIGIN_LIMITED, ProblemKind.BAD_KEY)

    @property
    def allows_stale(self) -> bool:
        """True if a stale copy may be answered in place of the failure (`stale-if-error`).

        False for a refusal: it is what the origin says now of this key (RFC 9111, 4.3.3: a response
        other than 304 and 5xx to a validation means that no stored response is suitable).
        """
        return self.kind not in (ProblemKind.ORIGIN_REFUSED, ProblemKind.BAD_KEY)
