"""Failures. A miss is an answer and is never one of these.

`TierError`: a far server failed; reads go on without it. `RequestError`: a request cannot be
done; it becomes an RFC 9457 problem of a registered kind. `ConfigError` stops the start.
"""

from cachesvc.model.problems import ProblemKind


class CachesvcError(Exception):
    """The root of the exceptions that this package raises on purpose."""


class TierError(CachesvcError):
    """A tier, cell or queue could not answer: `where` names it, `why` says the reason.

    In the results of a batch it stands, as a value, in the slots of the keys concerned.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class TierTimeoutError(TierError):
    """No answer came within the deadline.

    The connection was closed: a late reply on it would be taken for the next exchange's.
    """


class TierUnavailableError(TierError):
    """The connection was refused or reset, or not tried because the breaker is open."""


class ConfigError(CachesvcError):
    """A mistake in a configuration document or a setting.

    `path` names the place (`$.cells.c2.region`, `CACHESVC_SERVER_PORT`), `why` the mistake and its
    cure.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


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
    ) -> None:
        """`detail` is a sentence about this occurrence, for people.

        `field` names the header, path segment or body path at fault. `token` is given if the change
        counts although the request failed: the pairs that the caller's later reads must honour.
        """
        super().__init__(kind, detail)
        self.field = field
        self.token = token


class OriginError(ProblemError):
    """A load that the origin failed, refused, or did not finish in time; `kind` says which."""

    def __init__(self, why: str, *, kind: ProblemKind = ProblemKind.ORIGIN_FAILED) -> None:
        super().__init__(kind, why)
