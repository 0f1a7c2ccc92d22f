from collections.abc import Callable
from typing import Protocol

import urllib3


class Session(Protocol):
    """What is used of a `urllib3.PoolManager`: one that is passed in, or a stand-in (`cachesvc_client.testing`)."""

    @property
    def request(self) -> Callable[..., urllib3.BaseHTTPResponse]: ...
