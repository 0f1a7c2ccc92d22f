"""Callers: identities, what shows them, and what each may do.

A token is 256 random bits that only its caller knows; the document has its SHA-256. A caller may
have two tokens while one replaces the other, the older with an end.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from importlib.util import find_spec
from urllib.parse import urlsplit

from msgspec import Struct, field

from cachesvc.config.addresses import http_fault
from cachesvc.config.limits import Rates, check_rates
from cachesvc.config.mistakes import Mistakes
from cachesvc.model.caller import ANONYMOUS
from cachesvc.model.errors import ConfigError
from cachesvc.model.loopback import is_loopback
from cachesvc.model.scope import Action, Scope
from cachesvc.model.units import Duration

CALLER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""The form of a caller's name.

It has no colon, which follows an issuer's name in the names of its callers, and no space, which
ends an identity in an audit record."""
ANONYMOUS_NAME = "anonymous"
_SHA256 = re.compile(r"[0-9a-f]{64}")
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""The algorithms of JWTs whose signatures are checked with a public key."""
_CERTIFICATE_NAME = re.compile(r"spiffe://[^\s*]+|(?!-)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*")


class Token(Struct, frozen=True, forbid_unknown_fields=True):
    """A bearer token by its hash; `cachesvc token new` makes one and prints these lines."""

    sha256: str
    """The SHA-256 of the token, 64 hexadecimal digits. The token itself stands nowhere."""
    until: datetime | None = None
    """The moment from which the token is refused, with its time zone, such as
    `2026-12-01T00:00:00Z`. Of two tokens of a caller the older needs one. Left out: no end."""


class NamedCaller(Struct, frozen=True, forbid_unknown_fields=True):
    """One identity: what shows it, and its scopes."""

    scopes: tuple[str, ...]
    """The rights of the caller, each as `action:namespace`.

    The action is `read`, `write`, `invalidate`, `explain`, `observe` or `admin`; the namespace is a
    name, the beginning of names and `*` (`shop-*`), or `*`. A third part limits it to partitions:
    `read:pages:ws-*`. `admin` gives nothing today: it is for routes that change the deployment itself
    (a control plane), of which there are none yet."""
    tokens: tuple[Token, ...] = ()
    """The bearer tokens that show this identity, at most two.

    The newer one comes first, and the older has an `until`."""
    certificates: tuple[str, ...] = ()
    """The names of client certificates that show this identity.

    A name is a SPIFFE id (`spiffe://…`), or a DNS name where a certificate has no SPIFFE id. Listeners
    ask for certificates with `client_certificates` in their `tls`."""
    rates: Rates | None = None
    """The rates of this caller in a region, over all its instances and namespaces.

    Left out: not limited."""


class Issuer(Struct, frozen=True, forbid_unknown_fields=True):
    """An issuer of JWTs (RFC 7519). Its callers are named `ISSUER:claim`."""

    issuer: str
    """The `iss` that its tokens have."""
    audience: str
    """The `aud` that its tokens must have, which says that they are meant for this service."""
    scopes: tuple[str, ...]
    """The scopes of its tokens; with a `scopes_claim`, the most that one may have."""
    scopes_claim: str = ""
    """The claim that holds a token's scopes, as a list or separated by spaces.

    Members that are no scopes, or beyond `scopes`, are passed over. Empty: every token has all of
    `scopes`."""
    name_claim: str = "sub"
    """The claim that names the caller, in 1 to 128 letters, digits and `_.:/@|+=-`."""
    jwks_url: str = ""
    """The URL of its keys (RFC 7517): `https://`, or `http://` on a loopback address.

    They are fetched when a token names a key that is not known, at most every 10 s, and again after
    10 minutes. Keys that were fetched stay in force while their server does not answer."""
    jwks_file: str = ""
    """The path of a file with its keys, in place of `jwks_url`."""
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    """The algorithms of signatures that are taken.

    They are of `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `ES512` and
    `EdDSA`."""
    leeway: Duration = Duration.parse("30s")
    """How far the issuer's clock may be off, for `exp` and `nbf`; 5m at most."""
    rates: Rates | None = None
    """The rates of all callers of this issuer together, in a region, as a caller's `rates`.

    Metrics and refusals name them `ISSUER:*`. A caller that needs rates of its own gets a token
    (`named`), or an issuer entry. Left out: not limited."""


class Callers(Struct, frozen=True, forbid_unknown_fields=True):
    """The callers of all instances, which may be changed while instances run."""

    named: dict[str, NamedCaller] = field(default_factory=dict)
    """The callers by name, which an audit record has.

    A name has 1 to 64 letters, digits and `_.-`, begins with a letter or digit, and is not
    `anonymous`."""
    issuers: dict[str, Issuer] = field(default_factory=dict)
    """The issuers of JWTs by a name of your choice, formed like a caller's.

    They need the extra `jwt` (`pip install 'cachesvc[jwt]'`)."""
    anonymous: tuple[str, ...] = ()
    """The scopes of callers that show no identity.

    Left out: without an identity nothing is answered but `/livez`, `/readyz` and `/openapi.json`."""
    anonymous_rates: Rates | None = None
    """The rates of all callers together that show no identity, as a caller's `rates`."""


def rated_as(issuer: str) -> str:
    """Returns the name under which the callers of an issuer share their rates."""
    return f"{issuer}:*"


def rates_of(callers: Callers | None) -> Iterator[tuple[str, Rates]]:
    """Yields the rates of callers by the name under which requests count (`Caller.rated_as`)."""
    if callers is None:
        return
    rates = {name: caller.rates for name, caller in callers.named.items()}
    rates |= {rated_as(name): issuer.rates for name, issuer in callers.issuers.items()}
    rates[ANONYMOUS.rated_as] = callers.anonymous_rates
    for name, one in rates.items():
        if one is not None:
            yield name, one


def has_secrets(callers: Callers | None) -> bool:
    """True if there are callers that show a token, which whoever reads it can show, too."""
    return callers is not None and bool(
        callers.issuers or any(caller.tokens for caller in callers.named.values())
    )


EVERYTHING = tuple(Scope(action, "*") for action in Action)
"""The scopes of everybody on an instance without `callers`."""


def check_callers(callers: Callers, path: str, found: Mistakes) -> None:
    """Notes every rule about callers that does not hold."""
    owners: dict[str, str] = {}
    for name, caller in callers.named.items():
        here = f"{path}.named.{name}"
        found.require(
            bool(CALLER_NAME.fullmatch(name)),
            here,
            f"{name!r} is no name of a caller: {CALLER_NAME.pattern}",
        )
        found.require(name != ANONYMOUS_NAME, here, "is the name of callers without an identity")
        _check_scopes(caller.scopes, f"{here}.scopes", found)
        found.require(bool(caller.scopes), f"{here}.scopes", "is empty: name what the caller may do")
        _check_tokens(caller, here, owners, found)
        if caller.rates is not None:
            check_rates(caller.rates, f"{here}.rates", found)
        for index, certificate in enumerate(caller.certificates):
            at = f"{here}.certificates[{index}]"
            found.require(
                bool(_CERTIFICATE_NAME.fullmatch(certificate)),
                at,
                f"{certificate!r} is neither a SPIFFE id (spiffe://…) nor a DNS name",
            )
            owner = owners.setdefault(certificate, at)
            found.require(owner == at, at, f"is the same as {owner}")
    for name, issuer in callers.issuers.items():
        here = f"{path}.issuers.{name}"
        found.require(bool(CALLER_NAME.fullmatch(name)), here, f"{name!r} is no name: {CALLER_NAME.pattern}")
        _check_issuer(issuer, here, found)
        owner = owners.setdefault(f"iss {issuer.issuer}", f"{here}.issuer")
        found.require(owner == f"{here}.issuer", f"{here}.issuer", f"is the same as {owner}")
    if callers.issuers:
        installed = find_spec("jwt") is not None and find_spec("cryptography") is not None
        found.require(installed, f"{path}.issuers", "need the extra jwt: pip install 'cachesvc[jwt]'")
    _check_scopes(callers.anonymous, f"{path}.anonymous", found)
    if callers.anonymous_rates is not None:
        check_rates(callers.anonymous_rates, f"{path}.anonymous_rates", found)


def _check_issuer(issuer: Issuer, path: str, found: Mistakes) -> None:
    for name in ("issuer", "audience", "name_claim"):
        found.require(bool(getattr(issuer, name)), f"{path}.{name}", "is empty")
    found.require(bool(issuer.scopes), f"{path}.scopes", "is empty: name what its tokens may do at most")
    _check_scopes(issuer.scopes, f"{path}.scopes", found)
    one = bool(issuer.jwks_url) != bool(issuer.jwks_file)
    found.require(one, f"{path}.jwks_url", "give the keys by a URL or by a file (jwks_file), one of both")
    if issuer.jwks_url:
        url = issuer.jwks_url
        fault = http_fault(url) or (
            "" if url.startswith("https:") or is_loopback(urlsplit(url).hostname or "") else "use https://"
        )
        found.require(not fault, f"{path}.jwks_url", f"is no URL of keys: {fault}")
    found.require(bool(issuer.algorithms), f"{path}.algorithms", "is empty")
    for index, algorithm in enumerate(issuer.algorithms):
        found.require(
            algorithm in ALGORITHMS,
            f"{path}.algorithms[{index}]",
            f"{algorithm!r} is none of {', '.join(ALGORITHMS)}: only these have a key that nobody else needs",
        )
    if issuer.rates is not None:
        check_rates(issuer.rates, f"{path}.rates", found)
    found.require(issuer.leeway <= 300_000_000, f"{path}.leeway", "is above 5m: set the clocks instead")


def _check_tokens(caller: NamedCaller, path: str, owners: dict[str, str], found: Mistakes) -> None:
    """Notes tokens out of rule; `owners` has the place of each hash that was seen."""
    endless = 0
    for index, token in enumerate(caller.tokens):
        here = f"{path}.tokens[{index}]"
        found.require(
            bool(_SHA256.fullmatch(token.sha256)),
            f"{here}.sha256",
            "is no SHA-256, 64 hexadecimal digits in lower case: `cachesvc token new` prints it",
        )
        owner = owners.setdefault(token.sha256, here)
        found.require(owner == here, f"{here}.sha256", f"is the same as {owner}")
        endless += token.until is None
        found.require(
            token.until is None or token.until.tzinfo is not None,
            f"{here}.until",
            "has no time zone: write it as 2026-12-01T00:00:00Z",
        )
    found.require(
        len(caller.tokens) <= 2, f"{path}.tokens", "has more than 2: the newer one, and the one before it"
    )
    found.require(endless <= 1, f"{path}.tokens", "has two without an end: give the older one an `until`")


def _check_scopes(scopes: Iterable[str], path: str, found: Mistakes) -> None:
    for index, text in enumerate(scopes):
        try:
            Scope.parse(text)
        except ValueError as error:
            found.note(f"{path}[{index}]", str(error))


def check_anonymous(host: str, callers: Callers | None, path: str = "$.server.host") -> None:
    """Raises `ConfigError` if whoever reaches the address could do anything.

    `path`: the setting that names the address.
    """
    if callers is not None or is_loopback(host):
        return
    every = ", ".join(f"'{scope}'" for scope in EVERYTHING)
    raise ConfigError(
        path,
        f"{host!r} may be reached from other machines, and the topology has no `callers`: whoever reaches it "
        "could read, overwrite and purge everything. Write `callers:` into the topology document"
        " (`cachesvc token new --name checkout --scope 'read:*'` makes a token and prints the lines), or, if"
        f" only those reach it who may do everything, `callers: {{anonymous: [{every}]}}`",
    )
