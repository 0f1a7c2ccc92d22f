"""The name of the caller that invalidates, for the audit."""

from aiohttp import web

from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.web.access.door import grant_of
from cachesvc.web.requests.limits import MAX_CALLER_LENGTH

FIELD = "Cachesvc-Caller"


def caller_of(request: web.BaseRequest, source: str = "") -> str:
    """Returns who asks, for the audit: `checkout`, or `checkout (deploy-42)`.

    The identity that was shown comes first (`anonymous` without one); what the caller says of itself
    can only follow it. Where nobody has an identity, that alone is returned, else the address of the
    request. `source` is that of the CloudEvent in the request, if it is one. Raises `RequestError`
    (`bad-caller`) for a name that is out of rule.
    """
    title, said = grant_of(request).title, _said(request, source)
    if not title:
        return said or request.remote or ""
    return f"{title} ({said})" if said else title


def _said(request: web.BaseRequest, source: str) -> str:
    name = request.headers.get(FIELD)
    if name is not None:
        return _checked(name.strip(), FIELD)
    return _checked(source[:MAX_CALLER_LENGTH], "$.source") if source else ""


def _checked(name: str, field: str) -> str:
    if not (0 < len(name) <= MAX_CALLER_LENGTH and name.isprintable()):
        raise RequestError(
            ProblemKind.BAD_CALLER,
            f"a caller's name has 1 to {MAX_CALLER_LENGTH} printable characters",
            field=field,
        )
    return name
