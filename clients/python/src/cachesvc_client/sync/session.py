from collections.abc import Callable
from typing import Protocol

import urllib3


class Session(Protocol):
    """The part of a `urllib3.PoolManager` that the client uses.

    A pool manager that is passed in has it, and so has a stand-in (`cachesvc_client.testing`).
    """

    @property
    def request(self) -> Callable[..., urllib3.BaseHTTPResponse]: ...
