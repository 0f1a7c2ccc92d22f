from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import aiohttp


class Session(Protocol):
    """The part of an `aiohttp.ClientSession` that the client uses.

    A session that is passed in has it, and so has a stand-in (`cachesvc_client.testing`).
    """

    @property
    def request(self) -> Callable[..., AbstractAsyncContextManager[aiohttp.ClientResponse]]: ...
