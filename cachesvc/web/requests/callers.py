"""Who invalidates, for the audit: what the caller calls itself, else where the request came from."""

from aiohttp import web

from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind

FIELD = "Cachesvc-Caller"
MAX_LENGTH = 128


def caller_of(request: web.BaseRequest, source: str = "") -> str:
    """`source`: of the CloudEvent that the request carries, if it is one. Raises `RequestError` (400) for a name out of rule."""
    name = request.headers.get(FIELD)
    if name is not None:
        return _checked(name.strip(), FIELD)
    return _checked(source[:MAX_LENGTH], "$.source") if source else request.remote or ""


def _checked(name: str, field: str) -> str:
    if not (0 < len(name) <= MAX_LENGTH and name.isprintable()):
        raise RequestError(
            ProblemKind.BAD_CALLER, f"a caller's name has 1 to {MAX_LENGTH} printable characters", field=field
        )
    return name
