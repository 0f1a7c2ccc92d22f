from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import aiohttp


class Session(Protocol):
    """What is used of an `aiohttp.ClientSession`: one that is passed in, or a stand-in (`cachesvc_client.testing`)."""

    @property
    def request(self) -> Callable[..., AbstractAsyncContextManager[aiohttp.ClientResponse]]: ...
