"""`cachesvc token new` makes a bearer token; `cachesvc token check` says what one may do.

The token goes to stdout, and the lines for `callers.named` of the topology document to stderr:

    cachesvc token new --name checkout --scope read:pages > checkout.token
"""

import argparse
import hashlib
import json
import secrets
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from cachesvc.commands.arguments import add_topology, fail
from cachesvc.commands.credential import add_token, credential_of
from cachesvc.commands.documents import given_topology
from cachesvc.config.callers import Callers, NamedCaller, Token, check_callers
from cachesvc.config.mistakes import Mistakes
from cachesvc.model.errors import ConfigError

PREFIX = "cachesvc_"
"""The beginning of every token, by which a search for leaked secrets finds one."""
TOKEN_BYTES = 32


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    add = parser.add_argument
    add(
        "what",
        choices=("new", "check"),
        help="`new` prints a new token, this once, and the lines about it for the topology document;"
        " `check` says whose the token in --token-file is, and what it may do.",
    )
    add("--name", default="", help="The caller that gets the token (new).")
    add(
        "--scope",
        action="append",
        default=[],
        dest="scopes",
        metavar="SCOPE",
        help="What the caller may do, such as read:pages or invalidate:shop-* (new). Repeatable.",
    )
    add(
        "--until",
        default="",
        metavar="TIME",
        help="The end of the token, such as 2026-12-01T00:00:00Z (new). Default: it has none.",
    )
    add_token(parser, environ)
    add_topology(parser, environ, "It has the callers (check).")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code. Raises `ConfigError`."""
    return _new(options) if options.what == "new" else _check(options)


def _new(options: argparse.Namespace) -> int:
    for option, given in (("--name", options.name), ("--scope", options.scopes)):
        if not given:
            raise ConfigError(option, "is not given: say who gets the token, and what it is for")
    token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    made = Token(_hash_of(token), _moment(options.until) if options.until else None)
    caller = NamedCaller(tuple(options.scopes), (made,))
    found = Mistakes()
    check_callers(Callers({options.name: caller}), "callers", found)
    found.end()
    print(token, flush=True)
    print(_lines(options.name, caller), file=sys.stderr)
    return 0


def _lines(name: str, caller: NamedCaller) -> str:
    (token,) = caller.tokens
    end = f"\n          until: {token.until.isoformat()}" if token.until else ""
    return (
        "The token is shown this once: give it to its caller. The topology document gets these lines, below"
        " `callers:` and `  named:`. If the caller stands there already, it gets the last line"
        f"{'s' if end else ''} only, as its first token, and the older token gets an `until`.\n\n"
        f"    {json.dumps(name)}:\n      scopes: {json.dumps(caller.scopes)}\n"
        f"      tokens:\n        - sha256: {token.sha256}{end}"
    )


def _check(options: argparse.Namespace) -> int:
    header = credential_of(options).lines().get("Authorization", "")
    if not header:
        raise ConfigError("--token-file", "is not given: name the file that holds the token")
    if options.topology is None:
        raise ConfigError("--topology", "is not given: the document says whose a token is")
    callers = given_topology(options.topology).callers or Callers()
    digest = _hash_of(header.removeprefix("Bearer "))
    for name, caller in callers.named.items():
        for token in caller.tokens:
            if token.sha256 == digest:
                return _say(name, caller, token)
    return fail(1, "no caller has this token")


def _say(name: str, caller: NamedCaller, token: Token) -> int:
    if token.until is not None and token.until <= datetime.now(UTC):
        return fail(1, f"the token of {name} has come to its end at {token.until.isoformat()}")
    end = f"until {token.until.isoformat()}" if token.until else "without an end"
    print(f"{name}, {end}: {', '.join(caller.scopes)}")
    return 0


def _hash_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigError("--until", f"{text!r} is no moment: write it as 2026-12-01T00:00:00Z")
    return moment
