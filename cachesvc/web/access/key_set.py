"""The public keys of one issuer (a JWK set, RFC 7517), by URL or file.

    a key that is known     at once; after `REFRESH_SECONDS` the set is fetched again beside it
    one that is not known   waits for one fetch, `FETCH_SECONDS` at most, with all others that wait
    … within `PAUSE_SECONDS` of the last fetch, or while its server fails: refused at once

So a server that hangs, or sends bytes without end, holds up nobody whose key is known. Keys that
were fetched stay in force until another set is.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from cachesvc.config.callers import Issuer
from cachesvc.model.errors import TierUnavailableError
from cachesvc.telemetry.outage import Outage
from cachesvc.tiers.clean_connector import CleanConnector

log = logging.getLogger(__name__)

FETCH_SECONDS = 3.0
PAUSE_SECONDS = 10.0
"""The least pause between two fetches, however many unknown keys are named."""
REFRESH_SECONDS = 600.0
MOST_BYTES = 1 << 20
MOST_KEYS = 100
"""The most keys of a set, in its order; issuers have two or three."""

Jwk = Mapping[str, Any]


class _JwkSet(msgspec.Struct):
    keys: list[dict[str, Any]]


class KeySet:
    """The keys of one issuer. Used on one event loop."""

    def __init__(self, name: str, issuer: Issuer, now: Callable[[], float] = time.monotonic) -> None:
        """`now` is in seconds, from any moment."""
        self._issuer = issuer
        self._now = now
        self._keys: dict[str, Jwk] | None = None
        self._tried_at = -REFRESH_SECONDS
        self._fetching: asyncio.Task[None] | None = None
        self._outage = Outage(f"the key set of issuer {name!r}", log)

    def __repr__(self) -> str:
        known = "none fetched" if self._keys is None else f"{len(self._keys)} keys"
        return f"<KeySet of {self._issuer.issuer!r} [{known}]>"

    async def key(self, kid: str) -> Jwk | None:
        """Returns the key; None if the issuer has none of this id. An empty id means the only key.

        Raises `TierUnavailableError` if no set could be fetched yet.
        """
        found, age = self._find(kid), self._now() - self._tried_at
        if found is not None:
            if age >= REFRESH_SECONDS:
                self._begin()
            return found
        if age >= PAUSE_SECONDS:
            self._begin()
        if self._fetching is not None:
            await asyncio.wait((self._fetching,))  # a caller that leaves does not end it for the others
        if self._keys is None:
            raise TierUnavailableError(f"the key set of {self._issuer.issuer}", "it could not be fetched")
        return self._find(kid)

    def stop(self) -> None:
        """Ends a fetch that runs."""
        if self._fetching is not None:
            self._fetching.cancel()

    def _find(self, kid: str) -> Jwk | None:
        keys = self._keys or {}
        return keys.get(kid) if kid else next(iter(keys.values())) if len(keys) == 1 else None

    def _begin(self) -> None:
        if self._fetching is None:
            self._tried_at = self._now()
            self._fetching = asyncio.get_running_loop().create_task(self._fetch(), name="key set")

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                read = self._from_url() if self._issuer.jwks_url else asyncio.to_thread(self._from_file)
                self._keys = _keys_of(await read)
        except TimeoutError:
            self._outage.failed(f"no answer within {FETCH_SECONDS:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._outage.failed(error)
        else:
            if self._outage.is_on:
                self._outage.worked()
        finally:
            self._fetching = None

    async def _from_url(self) -> bytes:
        session = aiohttp.ClientSession(connector=CleanConnector(), cookie_jar=aiohttp.DummyCookieJar())
        async with session, session.get(self._issuer.jwks_url, allow_redirects=False) as answer:
            if answer.status != 200:
                raise ValueError(f"it is answered {answer.status}")
            body = b""
            while piece := await answer.content.read(1 << 16):
                body += piece
                if len(body) > MOST_BYTES:
                    raise ValueError(f"it has more than {MOST_BYTES} bytes")
            return body

    def _from_file(self) -> bytes:
        with Path(self._issuer.jwks_file).open("rb") as file:
            return file.read(MOST_BYTES)


def _keys_of(body: bytes) -> dict[str, Jwk]:
    """Returns the keys that signatures are checked with, by id. Raises `ValueError`."""
    try:
        listed = msgspec.json.decode(body, type=_JwkSet).keys
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError("it is no JWK set") from error
    return {
        str(key.get("kid", "")): key
        for key in listed[:MOST_KEYS]
        if key.get("use", "sig") == "sig" and key.get("kty") != "oct"
    }
