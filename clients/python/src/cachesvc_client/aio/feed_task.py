"""Follows the feed of fences on an event loop."""

import asyncio

import aiohttp

from cachesvc_client.aio.bearer import Bearer
from cachesvc_client.aio.session import Session
from cachesvc_client.errors import CacheError
from cachesvc_client.near.feed import CONNECT_TIMEOUT, READ_TIMEOUT, FeedError, NearFeed

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT)


async def follow(feed: NearFeed, session: Session, bearer: Bearer) -> None:
    """Follows the feed until it is cancelled, whatever fails. `session` has to outlive that."""
    try:
        while True:
            try:
                feed.lost(await _followed(feed, session, bearer))
            except Exception as error:  # noqa: BLE001  without this task, near caches would stay bypassed
                feed.failed(error)
            await asyncio.sleep(feed.pause())
    finally:
        feed.closed()


async def _followed(feed: NearFeed, session: Session, bearer: Bearer) -> str:
    """Reads one connection to its end, and returns why it ended."""
    until = asyncio.get_running_loop().time() + CONNECT_TIMEOUT
    try:
        url, token = feed.url(), await bearer.token(until)
        headers = {**feed.headers(), **bearer.known.lines(token, is_tls=url.startswith("https:"))}
        async with session.request(
            "GET", url, headers=headers, timeout=_TIMEOUT, allow_redirects=False
        ) as response:
            if response.status == 401:
                await bearer.is_renewed(token, until)  # the next connection has it
            feed.opened(response.status)
            async for chunk in response.content.iter_any():
                feed.received(chunk)
    except (FeedError, CacheError, aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "the instance ended it"
