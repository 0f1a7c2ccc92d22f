"""The other instances of every region, asked over HTTP what they see of a key."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from cachesvc.config.bearer import bearer_headers
from cachesvc.config.service import Breakers
from cachesvc.explain.answer import Question, Seen
from cachesvc.explain.waits import NoAnswerError, Waits
from cachesvc.model.entry import Key
from cachesvc.model.errors import ConfigError
from cachesvc.model.printable import printable
from cachesvc.telemetry.link_faults import tls_fault
from cachesvc.tiers.breaker import NOT_TRIED, BreakerPool, is_refused
from cachesvc.tiers.clean_connector import CleanConnector

ANSWER_SECONDS = 0.05
"""The first wait for another instance, short enough for a whole explanation within 100 ms.

An instance that gave no answer is named, and waited for longer the next time.
"""
MOST_SECONDS = 0.8
"""The longest wait for another instance."""
CONNECTIONS = 100
"""Connections open at a time; more peers wait for their turn within the same time."""

MOST_ANSWER_BYTES = 1 << 20
"""Bytes of the longest answer of another instance."""

_decode = msgspec.json.Decoder(Seen).decode


class HttpPeers:
    """The other instances over HTTP. `start`, then `ask` any number of times, then `stop`."""

    def __init__(
        self,
        addresses: Mapping[tuple[str, str], str],
        token_file: str = "",
        tls: ssl.SSLContext | None = None,
        breakers: BreakerPool | None = None,
    ) -> None:
        """`addresses`: base URL by region and name. `tls` is for those with https.

        `token_file` has the token to show to them. `breakers` gets one for each.
        """
        self.breakers = breakers or BreakerPool(Breakers())
        """By region and name, as `eu/eu-a`."""
        for region, name in addresses:
            self.breakers.add(f"{region}/{name}")
        self._addresses = addresses
        self._token_file = token_file
        self._tls = tls
        self._http: aiohttp.ClientSession | None = None
        self._waits = Waits(ANSWER_SECONDS, MOST_SECONDS)

    def __repr__(self) -> str:
        return f"<HttpPeers [{len(self._addresses)}]>"

    async def start(self) -> None:
        """Makes the client; opens no connection yet."""
        self._http = aiohttp.ClientSession(
            connector=CleanConnector(limit=CONNECTIONS, ssl=self._tls or True),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def stop(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def ask(self, key: Key, question: Question) -> Sequence[Seen]:
        """Asks all of them at once. One that cannot tell is there with its reason."""
        if self._http is None:
            return ()
        try:
            identity = await asyncio.to_thread(bearer_headers, self._token_file, "server.peer_token_file")
        except ConfigError as error:
            return [_silent(*peer, f"is not asked: {error}") for peer in self._addresses]
        headers = {**question.headers, **identity}
        asking = (self._ask(self._http, peer, key, headers) for peer in self._addresses)
        return await asyncio.gather(*asking)

    async def _ask(
        self, http: aiohttp.ClientSession, peer: tuple[str, str], key: Key, headers: Mapping[str, str]
    ) -> Seen:
        region, name = peer
        breaker = self.breakers[f"{region}/{name}"]
        if not breaker.admits():
            return _silent(region, name, NOT_TRIED)
        path = f"/v1/{key.namespace}/{quote(key.text, safe='')}:explain?scope=instance"
        try:
            url = URL(self._addresses[peer] + path, encoded=True)
            status, body = await self._waits.within(peer, _answered(http, url, headers))
            breaker.seen()  # questions are few: no share of them needs to be held back
            breaker.succeeded()
            if len(body) > MOST_ANSWER_BYTES:
                return _silent(region, name, f"answered more than {MOST_ANSWER_BYTES} bytes")
            if status in (401, 403):
                why = "its callers need one with explain:*, whose token server.peer_token_file holds here"
                return _silent(region, name, f"answered {status}: {why}")
            if status != 200:
                return _silent(region, name, f"answered {status}")
            found = _decode(body)
            is_meant = (found.region, found.instance) == peer
            return found if is_meant else _silent(region, name, "it is another instance")
        except NoAnswerError as error:
            breaker.failed()
            return _silent(region, name, str(error))
        except (aiohttp.ClientError, OSError) as error:
            breaker.failed(at_once=is_refused(error))
            return _silent(region, name, tls_fault(error) or f"{type(error).__name__}: {error}")
        except (
            msgspec.MsgspecError,
            ValueError,
            RecursionError,
        ) as error:  # another release, or none of ours
            return _silent(region, name, f"its answer is not understood: {error}")


async def _answered(http: aiohttp.ClientSession, url: URL, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """Returns the status and the body, or the beginning of one that is too long."""
    async with http.get(url, headers=headers, allow_redirects=False) as answer:
        body = b""
        while len(body) <= MOST_ANSWER_BYTES and (piece := await answer.content.read(1 << 16)):
            body += piece
        return answer.status, body


def _silent(region: str, name: str, why: str) -> Seen:
    return Seen(region, name, unavailable=printable(why[:300]))
