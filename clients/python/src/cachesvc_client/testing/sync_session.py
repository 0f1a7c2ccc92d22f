"""A double of `urllib3.PoolManager` that hands requests to the fake service."""

import threading
import time
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import urllib3
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ProtocolError, ReadTimeoutError
from yarl import URL

from cachesvc_client.testing.faults import Dropped, TooLate
from cachesvc_client.testing.http import Request, Response
from cachesvc_client.testing.responder import Responder


class SyncSession:
    """The session of a sync client of the fake service."""

    def __init__(self, service: Responder) -> None:
        self._service = service
        self._pool = HTTPConnectionPool("cache.test")

    def _request(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **_: Any,
    ) -> urllib3.BaseHTTPResponse:
        lowered = {name.lower(): value for name, value in (headers or {}).items() if isinstance(value, str)}
        request = Request(method, URL(url, encoded=True).raw_path_qs, lowered, body or b"")
        try:
            response = self._answered(request)
        except Dropped as error:
            raise ProtocolError(str(error), error) from error
        except TooLate as error:
            raise ReadTimeoutError(self._pool, url, "the answer takes too long, as the test asked") from error
        return urllib3.HTTPResponse(
            BytesIO(response.body), headers=response.headers, status=response.status, preload_content=False
        )

    request: Any = _request

    def _answered(self, request: Request) -> Response:
        response = self._service.respond(request)
        if response is not None:
            return response
        changed = threading.Event()
        leave = self._service.listen(changed.set)
        try:
            return self._waited(request, changed)
        finally:
            leave()

    def _waited(self, request: Request, changed: threading.Event) -> Response:
        """Asks again until another caller has filled the key, or the time to wait is over.

        The time goes by the fake clock or by the real one, whichever is over first.
        """
        wait = self._service.wait_of(request)
        until_us, until = self._service.clock.now_us() + round(wait * 1e6), time.monotonic() + wait
        while True:
            is_patient = self._service.clock.now_us() < until_us and time.monotonic() < until
            response = self._service.respond(request, is_first=False, is_patient=is_patient)
            if response is not None:
                return response
            changed.wait(max(0.0, until - time.monotonic()))
            changed.clear()
