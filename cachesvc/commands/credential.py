"""The bearer token that a command shows to instances, and the session for its requests."""

import argparse
import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from ssl import SSLContext
from typing import Any

import aiohttp

from cachesvc.commands.arguments import path_in
from cachesvc.config.bearer import bearer_headers
from cachesvc.model.errors import ConfigError
from cachesvc.tiers.clean_connector import CleanConnector

VARIABLE = "CACHESVC_TOKEN"
LOOK_SECONDS = 1.0
"""The pause between two looks into the file: a token that is renewed in it is used."""


class Credential:
    """A bearer token: a text, or a file that has it; without both there is none.

    Neither its `repr` nor an error has the token.
    """

    def __init__(self, text: str = "", file: Path | None = None) -> None:
        """Raises `ConfigError` if the token cannot be read or sent in a header."""
        self._file = file
        self._looked = time.monotonic()
        self._text = _checked(text, VARIABLE) if file is None else _read(file)

    def __repr__(self) -> str:
        return f"<Credential [{self._file or ('text' if self._text else 'none')}]>"

    def lines(self) -> dict[str, str]:
        """Returns the header lines that show the token."""
        return {"Authorization": f"Bearer {self._text}"} if self._text else {}

    async def look(self) -> None:
        """Reads the file again, if the last look was a while ago."""
        now, file = time.monotonic(), self._file
        if file is not None and now >= self._looked + LOOK_SECONDS:
            self._looked = now
            with suppress(ConfigError):  # it is being replaced: the token of before may still be taken
                self._text = await asyncio.to_thread(_read, file)

    async def show(
        self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Sends a request with the token: a middleware of aiohttp's client."""
        await self.look()
        request.headers.update(self.lines())
        return await send(request)


def add_token(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """Adds `--token-file`, and takes the token of the environment."""
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        default=path_in(environ, "CACHESVC_TOKEN_FILE"),
        help="A file with the bearer token that is shown to instances; it is read again while the command"
        f" runs. Default: the file that CACHESVC_TOKEN_FILE names, else the token in {VARIABLE}.",
    )
    parser.set_defaults(bearer=environ.get(VARIABLE, ""))


def credential_of(options: argparse.Namespace) -> Credential:
    """Returns the credential of a command line. Raises `ConfigError`."""
    return Credential(options.bearer, options.token_file)


def session(
    credential: Credential, *, ssl: SSLContext | bool = True, limit: int = 100, **settings: Any
) -> aiohttp.ClientSession:
    """Returns a session whose requests show the credential.

    They must not follow redirects, or the token would go along. `limit` is the number of connections
    at a time, 0 for any; `ssl` has the certificates for https.
    """
    return aiohttp.ClientSession(
        connector=CleanConnector(limit=limit, ssl=ssl), middlewares=(credential.show,), **settings
    )


def _read(file: Path) -> str:
    return bearer_headers(file, "--token-file")["Authorization"].removeprefix("Bearer ")


def _checked(text: str, where: str) -> str:
    text = text.strip()
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise ConfigError(where, "holds a character that a token cannot have")
    return text
