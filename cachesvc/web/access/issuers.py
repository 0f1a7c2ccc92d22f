"""JWTs (RFC 7519) of configured issuers: checked with PyJWT, which knows the formats.

The unchecked `iss` of a token says whose keys are asked; the checked one has to be the same. A
token's signature is checked by an algorithm of the issuer's list, all of which have public keys, so
neither `none` nor an HMAC with a public key as its secret is ever taken (RFC 8725, 3.1).
"""

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from cachesvc.config.callers import Callers, Issuer, rated_as
from cachesvc.model.clock import SECONDS, Clock
from cachesvc.model.scope import Scope
from cachesvc.web.access.key_set import Jwk, KeySet

BELIEVED_SECONDS = 300.0
"""The longest time until a token is checked again: its key may have been withdrawn."""
_NAME = re.compile(r"[A-Za-z0-9_.:/@|+=-]{1,128}").fullmatch
_REQUIRED = ["exp", "iss", "aud"]


class RefusedTokenError(Exception):
    """A token is not taken; the text says why and repeats nothing of it."""


class ExpiredTokenError(RefusedTokenError):
    """The end of a token has come."""


class Bearer(Struct, frozen=True):
    """The caller of a checked token."""

    name: str
    scopes: tuple[Scope, ...]
    end_us: int
    rated_as: str


class Issuers:
    """The configured issuers."""

    def __init__(self, callers: Callers, clock: Clock, before: "Issuers | None" = None) -> None:
        """The keys of issuers that were the same `before` stay in force."""
        self._clock = clock
        self._by_issuer = {
            issuer.issuer: (name, issuer, (before and before.keys_of(issuer)) or KeySet(name, issuer))
            for name, issuer in callers.issuers.items()
        }

    def __repr__(self) -> str:
        return f"<Issuers [{', '.join(self._by_issuer)}]>"

    def __bool__(self) -> bool:
        return bool(self._by_issuer)

    def keys_of(self, issuer: Issuer) -> KeySet | None:
        """Returns the keys of this very issuer, if it is among these."""
        found = self._by_issuer.get(issuer.issuer)
        return found[2] if found is not None and found[1] == issuer else None

    def stop(self) -> None:
        """Ends the fetches of keys that run."""
        for _, _, keys in self._by_issuer.values():
            keys.stop()

    async def bearer(self, token: str) -> Bearer:
        """Returns the caller of the token.

        Raises `RefusedTokenError` for a token that is not valid, `TierUnavailableError` if the keys of its
        issuer could not be fetched yet.
        """
        import jwt  # an extra: the configuration was refused without it

        try:
            header = jwt.get_unverified_header(token)
            claims = jwt.decode(token, options={"verify_signature": False})
            name, issuer, keys = self._by_issuer[claims["iss"]]
        except (jwt.PyJWTError, KeyError, TypeError):
            raise RefusedTokenError("it is no token of an issuer that is known here") from None
        algorithm = header.get("alg")
        if algorithm not in issuer.algorithms:
            raise RefusedTokenError("its algorithm is not one of its issuer's `algorithms`")
        key = await keys.key(header.get("kid", ""))
        if key is None:
            raise RefusedTokenError("its issuer has no such key")
        return self._bearer(name, issuer, self._checked(token, algorithm, key, issuer))

    def _checked(self, token: str, algorithm: str, key: Jwk, issuer: Issuer) -> Mapping[str, Any]:
        import jwt

        if key.get("alg", algorithm) != algorithm:
            raise RefusedTokenError("its key is for another algorithm")
        try:
            return jwt.decode(
                token,
                jwt.PyJWK(dict(key), algorithm),
                algorithms=[algorithm],
                audience=issuer.audience,
                issuer=issuer.issuer,
                leeway=issuer.leeway.seconds,
                options={"require": _REQUIRED, "enforce_minimum_key_length": True},
            )
        except jwt.ExpiredSignatureError:
            raise ExpiredTokenError("its end has come (exp)") from None
        except jwt.ImmatureSignatureError:
            raise RefusedTokenError("its beginning has not come (nbf, iat)") from None
        except jwt.InvalidAudienceError:
            raise RefusedTokenError("it is meant for another audience (aud)") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise RefusedTokenError("its signature or its claims are not valid") from None

    def _bearer(self, name: str, issuer: Issuer, claims: Mapping[str, Any]) -> Bearer:
        subject = claims.get(issuer.name_claim)
        if not isinstance(subject, str) or not _NAME(subject):
            raise RefusedTokenError("the claim that names its caller is missing or out of rule")
        end = min(
            int(claims["exp"]) * SECONDS + issuer.leeway,
            self._clock.now_us() + round(BELIEVED_SECONDS * SECONDS),
        )
        return Bearer(f"{name}:{subject}", scopes_of(issuer, claims), end, rated_as(name))


def scopes_of(issuer: Issuer, claims: Mapping[str, Any]) -> tuple[Scope, ...]:
    """Returns the scopes of a token: those of its claim that the issuer may give."""
    most = tuple(map(Scope.parse, issuer.scopes))
    if not issuer.scopes_claim:
        return most
    claimed = claims.get(issuer.scopes_claim, ())
    members = claimed.split() if isinstance(claimed, str) else claimed
    found = []
    for member in members if isinstance(members, list | tuple) else ():
        try:
            scope = Scope.parse(member)
        except (ValueError, TypeError):
            continue
        if any(scope.is_within(other) for other in most):
            found.append(scope)
    return tuple(found)
