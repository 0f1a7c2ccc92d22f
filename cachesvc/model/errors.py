"""Failures. A miss is an answer and is never one of these.

Two families: what a far server did (`TierError`: reads go on without it) and what a caller asked (`RequestError`: it becomes
an RFC 9457 problem with a stable `type`). `ConfigError` stops the start.
"""


class CachesvcError(Exception):
    """The root of what this package raises on purpose."""


class TierError(CachesvcError):
    """A tier, cell or queue could not answer. In batch results it stands, as a value, in the slots of the keys concerned."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class TierTimeoutError(TierError):
    """No answer within the deadline. The connection was closed: its exchange is out of step."""


class TierUnavailableError(TierError):
    """Refused, reset, or not tried because the breaker is open."""


class ConfigError(CachesvcError):
    """A mistake in a configuration document: `path` says where (`$.cells.c2.region`), the message why and what to do."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class RequestError(CachesvcError):
    """What the caller asked cannot be done. Rendered as a problem document; never a traceback.

    `kind` is the stable last segment of the problem `type`; `field` names the header, path segment or body path at fault.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        field: str | None = None,
        retryable: bool = False,
        retry_after: int | None = None,
        token: tuple[tuple[int, int], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.field = field
        self.retryable = retryable
        self.retry_after = retry_after
        self.token = token


class OriginError(CachesvcError):
    """The origin failed, answered nonsense, or missed its deadline. `retryable` says whether another try may help."""

    def __init__(self, why: str, *, status: int = 502, retryable: bool = True) -> None:
        super().__init__(why)
        self.status = status
        self.retryable = retryable
