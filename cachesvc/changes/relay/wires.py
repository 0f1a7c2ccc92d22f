"""The connections over which a follower reads a relay.

a worker's socket    Linux' abstract name of another worker of the host (`app/host.py`)
HTTP                 `GET /v1/relay` of another instance (`web/handlers/fence_stream.py`)
"""

import asyncio
import socket
import ssl

import aiohttp

from cachesvc.changes.relay.follower import Dial, Wire
from cachesvc.changes.relay.frames import FrameError
from cachesvc.config.bearer import bearer_headers
from cachesvc.model.errors import ConfigError
from cachesvc.telemetry.link_faults import tls_fault
from cachesvc.tiers.clean_connector import CleanConnector

READ_BYTES = 1 << 16
"""Bytes that are taken from a connection at once."""


async def connect(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connects to a Unix socket, whose name may be abstract. Raises `OSError`."""
    link = socket.socket(socket.AF_UNIX)
    link.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(link, path)
        return await asyncio.open_unix_connection(sock=link)
    except BaseException:
        link.close()
        raise


class SocketWire:
    """A connection to another worker of this host."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        return await self._reader.read(READ_BYTES)

    def close(self) -> None:
        self._writer.close()


def socket_dial(path: str, region: str) -> Dial:
    """Returns what connects to the relay of a region at another worker's socket."""

    async def dial(position: str) -> Wire:
        reader, writer = await connect(path)
        writer.write(f"fences {region} {position}\n".encode())
        return SocketWire(reader, writer)

    return dial


class HttpWire:
    """The answer of another instance to `GET /v1/relay`."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def read(self) -> bytes:
        try:
            return await self._answer.content.readany()
        except aiohttp.ClientError as error:
            raise ConnectionResetError(str(error)) from error

    def close(self) -> None:
        self._answer.close()


class HttpRelays:
    """The relays of a topology. `start`, then dial any number of times, then `stop`."""

    def __init__(self, token_file: str = "", tls: ssl.SSLContext | None = None) -> None:
        """`token_file` has the token to show to them; `tls` is for those with https."""
        self._token_file = token_file
        self._tls = tls
        self._http: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Makes the client; opens no connection yet."""
        self._http = aiohttp.ClientSession(
            connector=CleanConnector(ssl=self._tls or True, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def stop(self) -> None:
        if self._http is not None:
            await self._http.close()

    def dial(self, url: str, region: str) -> Dial:
        """Returns what connects to the relay of a region at an instance's base URL."""

        async def dial(position: str) -> Wire:
            return await self._follow(url, region, position)

        return dial

    async def _follow(self, url: str, region: str, position: str) -> Wire:
        if self._http is None:
            raise FrameError(url, "this instance does not run")
        try:
            shown = await asyncio.to_thread(bearer_headers, self._token_file, "server.peer_token_file")
            answer = await self._http.get(
                f"{url}/v1/relay",
                params={"region": region, "after": position},
                headers=shown,
                allow_redirects=False,
            )
        except ConfigError as error:
            raise FrameError(url, str(error)) from error
        except aiohttp.ClientError as error:
            raise FrameError(url, tls_fault(error) or str(error)) from error
        if answer.status != 200:
            answer.close()
            need = "its callers need one with observe:*, whose token server.peer_token_file holds here"
            raise FrameError(url, f"answered {answer.status}" + f": {need}" * (answer.status in (401, 403)))
        return HttpWire(answer)
