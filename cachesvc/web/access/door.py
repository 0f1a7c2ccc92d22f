"""The door finds the identity of each request, and remembers it by its header line.

    Authorization ── remembered ──► its grant, if its end has not come
                 └── unknown ─────► a JWT of a configured issuer ──► checked, its claims' grant
                                  └► the SHA-256 of the token ─────► a configured caller's grant
                                                                  └► refused (401)
    no Authorization ─────────────► the connection's client certificate, if callers have some
                                  └► the grant of `callers.anonymous`

A new document (`take`) forgets everything that is remembered, so that a revoked token is refused
from the next request on. A grant's end is looked at on every use.
"""

import hashlib
import re
from collections.abc import Collection, Sequence
from datetime import datetime

from aiohttp import web
from msgspec import Struct

from cachesvc.config.callers import ANONYMOUS_NAME, EVERYTHING, Callers, NamedCaller
from cachesvc.model.caller import ANONYMOUS, Caller
from cachesvc.model.clock import SECONDS, Clock
from cachesvc.model.errors import RequestError, TierUnavailableError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.scope import EVERY, Scope
from cachesvc.web.access.certificates import certificate_name, end_us_of
from cachesvc.web.access.grants import ENDLESS_US, Grant
from cachesvc.web.access.issuers import ExpiredTokenError, Issuers, RefusedTokenError
from cachesvc.web.access.routes import Rule, Where
from cachesvc.web.routing import Place

REMEMBERED_BYTES = 16 << 20
"""The bytes of identities that are remembered; with more, all are looked at anew."""
GRANT_BYTES = 1000
NAMESPACE_BYTES = 200
"""The bytes that a grant takes at most: by itself, and for each declared namespace."""
_BEARER = re.compile(r"bearer +([!-~]+)", re.IGNORECASE).fullmatch

GRANT = web.RequestKey("grant", Grant)
"""The mark of a request whose identity is known."""


def grant_of(request: web.BaseRequest) -> Grant:
    """Returns what the identity of the request may do; its `caller` says who it is."""
    return request[GRANT]


class Refusals(Struct):
    """Requests that were refused since the start, by the reason."""

    no_identity: int = 0
    """Requests without an identity, where one is needed."""
    unknown: int = 0
    """Requests with a token that no caller has."""
    expired: int = 0
    """Requests with a token whose end has come."""
    missing_scope: int = 0
    """Requests of a known identity without the scope."""


class Door:
    """The identities of one instance. Used on the event loop only."""

    def __init__(self, callers: Callers | None, namespaces: Collection[str], clock: Clock) -> None:
        """`namespaces` are the declared ones."""
        self._clock = clock
        self._tokens: dict[bytes, Grant] = {}
        """SHA-256 of a token → grant.

        The time of a look-up tells nothing of others' hashes: nobody can choose a token by its hash."""
        self._certificates: dict[str, Grant] = {}
        self._issuers = Issuers(Callers(), clock)
        self._remembered: dict[bytes, Grant] = {}
        """Value of `Authorization` → grant; empty for a request without the header."""
        self._bytes = 0
        self._anonymous = Grant(ANONYMOUS, (), ())
        self._is_open = False
        self.generation = 0
        """The number of times that callers were taken."""
        self.refusals = Refusals()
        self.take(callers, namespaces)

    def __repr__(self) -> str:
        shown = "open" if self._is_open else f"{len(self._tokens)} tokens"
        return f"<Door [{shown}, {len(self._remembered)} identities remembered]>"

    def take(self, callers: Callers | None, namespaces: Collection[str] | None = None) -> None:
        """Takes the place of the callers before, from the next request on.

        So do `namespaces` of the declared ones; None: they stay.
        """
        self.generation += 1
        if namespaces is not None:
            self._namespaces = tuple(namespaces)
        self._is_open = callers is None
        if callers is None:
            callers = Callers()
            self._anonymous = Grant(ANONYMOUS, EVERYTHING, self._namespaces)
        else:
            scopes = map(Scope.parse, callers.anonymous)
            self._anonymous = Grant(ANONYMOUS, scopes, self._namespaces, title=ANONYMOUS_NAME)
        self._tokens = {
            bytes.fromhex(token.sha256): self._granted(name, caller, _us(token.until))
            for name, caller in callers.named.items()
            for token in caller.tokens
        }
        self._certificates = {
            certificate: self._granted(name, caller)
            for name, caller in callers.named.items()
            for certificate in caller.certificates
        }
        self._issuers = Issuers(callers, self._clock, self._issuers)
        self._forget()

    def _granted(self, name: str, caller: NamedCaller, end_us: int = ENDLESS_US) -> Grant:
        return Grant(Caller(name, name), map(Scope.parse, caller.scopes), self._namespaces, end_us=end_us)

    def stop(self) -> None:
        """Ends what runs in the background."""
        self._issuers.stop()

    def _forget(self) -> None:
        # Without a token, the certificate of a connection may show who it is.
        self._remembered = {} if self._certificates else {b"": self._anonymous}
        self._bytes = 0

    # who it is ----------------------------------------------------------------------------------------

    def reader(self, authorization: bytes, namespace: str) -> Grant | None:
        """Returns the remembered grant if it is for all reads in the declared namespace.

        None if a closer look is needed (`admit`).
        """
        grant = self._remembered.get(authorization)
        if grant is None or namespace not in grant.readable:
            return None
        if grant.end_us < ENDLESS_US and self.is_over(grant):
            return None
        return grant

    async def admit(self, request: web.BaseRequest) -> Grant:
        """Returns the grant of the request's identity, and marks the request with it.

        Raises `RequestError` (401) for an identity that is not known.
        """
        lines = request.headers.getall("Authorization", ())
        if self._is_open:
            grant = self._anonymous
        elif lines:
            grant = await self._shown(lines)
        else:
            grant = self._of_connection(request)
        request[GRANT] = grant
        return grant

    def _of_connection(self, request: web.BaseRequest) -> Grant:
        """Returns the grant of the client certificate that the connection was made with, if any.

        Raises `RequestError` (401) if the certificate has come to its end since then.
        """
        if not self._certificates or request.transport is None:
            return self._anonymous
        certificate = request.transport.get_extra_info("peercert")
        grant = self._certificates.get(certificate_name(certificate))
        if grant is None:
            return self._anonymous
        if end_us_of(certificate) <= self._clock.now_us():
            raise self._expired("the end of the client certificate has come: connect with another")
        return grant

    def is_over(self, grant: Grant) -> bool:
        """True if the end of the identity has come."""
        return grant.end_us <= self._clock.now_us()

    async def _shown(self, lines: Sequence[str]) -> Grant:
        header = lines[0].encode("utf-8", "surrogateescape")
        grant = self._remembered.get(header)
        if grant is None or len(lines) > 1 or self.is_over(grant):
            match = _BEARER(lines[0].strip()) if len(lines) == 1 else None
            if match is None:
                raise self._unknown("the header is not `Bearer` and one token")
            generation = self.generation
            is_jwt = bool(self._issuers) and match[1].count(".") == 2
            grant = await self._of_jwt(match[1]) if is_jwt else self._of_token(match[1])
            if generation == self.generation:  # no other callers were taken meanwhile
                self._remember(header, grant)
        return grant

    def _of_token(self, token: str) -> Grant:
        grant = self._tokens.get(hashlib.sha256(token.encode()).digest())
        if grant is None:
            raise self._unknown("no caller has this token")
        if self.is_over(grant):
            raise self._expired("the end of this token has come")
        return grant

    async def _of_jwt(self, token: str) -> Grant:
        try:
            bearer = await self._issuers.bearer(token)
        except ExpiredTokenError as error:
            raise self._expired(f"the token is not taken: {error}") from None
        except RefusedTokenError as error:
            raise self._unknown(f"the token is not taken: {error}") from None
        except TierUnavailableError as error:
            raise RequestError(ProblemKind.ISSUER_UNAVAILABLE, error.why, field="Authorization") from None
        return Grant(
            Caller(bearer.name, bearer.rated_as),
            bearer.scopes,
            self._namespaces,
            end_us=bearer.end_us,
        )

    def _expired(self, why: str) -> RequestError:
        self.refusals.expired += 1
        return RequestError(ProblemKind.UNKNOWN_IDENTITY, why, field="Authorization")

    def _unknown(self, why: str) -> RequestError:
        self.refusals.unknown += 1
        return RequestError(ProblemKind.UNKNOWN_IDENTITY, why, field="Authorization")

    def _remember(self, header: bytes, grant: Grant) -> None:
        size = len(header) + GRANT_BYTES + NAMESPACE_BYTES * len(self._namespaces)
        if self._bytes + size > REMEMBERED_BYTES:
            self._forget()
        self._bytes += size
        self._remembered[header] = grant

    # what it may do -----------------------------------------------------------------------------------

    def check_namespace(self, grant: Grant, rule: Rule | None, namespace: str) -> None:
        """Raises `RequestError` if the grant is not enough for a call about this namespace.

        It stands in a path, and may be undeclared: the refusal is the same.
        """
        if rule is not None and rule.where is Where.PATH:
            grant.require(rule.actions[0], namespace, "namespace")

    def check(self, grant: Grant, rule: Rule | None, place: Place) -> None:
        """Raises `RequestError` if the grant is not enough for the call.

        The namespace of its path is checked already.
        """
        if rule is None:
            return
        if rule.where is Where.PATH:
            if place.key.text:
                grant.require_keys(rule.actions[0], place.namespace, (place.key.text,))
        elif rule.where is Where.ALL:
            grant.require_whole(rule.actions[0], EVERY)
        elif not any(map(grant.has_any, rule.actions)):
            raise grant.refusal(f"{rule.actions[0]}:NAMESPACE")

    def note(self, error: RequestError) -> None:
        """Counts the refusal of a request, if it is one for its identity's scopes."""
        if error.kind is ProblemKind.NO_IDENTITY:
            self.refusals.no_identity += 1
        elif error.kind is ProblemKind.MISSING_SCOPE:
            self.refusals.missing_scope += 1


def _us(until: datetime | None) -> int:
    return ENDLESS_US if until is None else round(until.timestamp() * SECONDS)
