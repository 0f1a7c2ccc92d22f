"""The author of a request, for the audit: its proved identity, and the name that it says."""

from aiohttp import web

from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Author
from cachesvc.web.access.door import GRANT, grant_of
from cachesvc.web.requests.limits import MAX_CALLER_LENGTH

FIELD = "Cachesvc-Caller"


def author_of(request: web.BaseRequest, source: str = "") -> Author:
    """Returns the author of a change: its identity, its address, and the name that it says.

    `source` is that of the CloudEvent in the request, if it is one. Raises `RequestError`
    (`bad-caller`) for a name that is out of rule.
    """
    name = request.headers.get(FIELD)
    if name is not None:
        says = _checked(name.strip(), FIELD)
    else:
        says = _checked(source[:MAX_CALLER_LENGTH], "$.source") if source else ""
    return Author(grant_of(request).caller.name, request.remote or "", says)


def peer_of(request: web.BaseRequest) -> Author:
    """Returns the author of a request that may be refused. Raises nothing."""
    grant = request.get(GRANT)
    identity = grant.caller.name if grant is not None else ""
    return Author(identity, request.remote or "", request.headers.get(FIELD, ""))


def _checked(name: str, field: str) -> str:
    if not (0 < len(name) <= MAX_CALLER_LENGTH and name.isprintable()):
        raise RequestError(
            ProblemKind.BAD_CALLER,
            f"a caller's name has 1 to {MAX_CALLER_LENGTH} printable characters",
            field=field,
        )
    return name
