"""Sends messages to an OTLP/HTTP receiver. The calls block, so they need a thread."""

import contextlib
import os
import ssl
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol

import requests
import urllib3
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_EXPORTER_OTLP_HEADERS
from opentelemetry.util.re import parse_env_headers

from cachesvc.telemetry.link_faults import tls_fault

SEND_SECONDS = 3.0

MOST_ANSWER_BYTES = 1 << 16
"""Bytes of an answer that are read."""

_LATER = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
"""The statuses after which OTLP wants a message to be sent again."""


class NotTakenError(Exception):
    """The receiver did not accept a message.

    `is_final` is true if sending the same message later would not help either.
    """

    def __init__(self, why: object, *, is_final: bool) -> None:
        super().__init__(why)
        self.is_final = is_final


class Receiving(Protocol):
    """Accepts encoded OTLP messages."""

    def post(self, message: bytes, /) -> None:
        """Sends one encoded message. Raises `NotTakenError`."""
        ...


class Receiver:
    """An OTLP/HTTP receiver, reached over one connection that stays open.

    A new connection for each message would cost more than the message. The headers (mostly a token)
    and the certificate are those that OpenTelemetry's environment variables name.
    """

    def __init__(
        self, url: str, environ: Mapping[str, str] = os.environ, tls: ssl.SSLContext | None = None
    ) -> None:
        """`url` is the URL of one signal, such as `http://127.0.0.1:4318/v1/traces`.

        `tls` stands in place of the certificate that the environment names.
        """
        self._url = url
        given = parse_env_headers(environ.get(OTEL_EXPORTER_OTLP_HEADERS, ""), liberal=True)
        self._headers = {**given, "Content-Type": "application/x-protobuf"}
        certificate = environ.get(OTEL_EXPORTER_OTLP_CERTIFICATE) if tls is None else None
        self._http = urllib3.PoolManager(
            maxsize=1, retries=False, timeout=SEND_SECONDS, ca_certs=certificate, ssl_context=tls
        )

    def __repr__(self) -> str:
        return f"<Receiver {self._url}>"

    def post(self, message: bytes, /) -> None:
        try:
            # The body is not needed, and may be endless. One that is short is read, so that its connection
            # can be used again.
            answer = self._http.request(
                "POST",
                self._url,
                body=message,
                headers=self._headers,
                preload_content=False,
                redirect=False,
            )
            with contextlib.closing(answer):
                _drain(answer)
        except urllib3.exceptions.HTTPError as failure:
            raise NotTakenError(tls_fault(failure) or failure, is_final=False) from failure
        if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise NotTakenError(f"HTTP {answer.status}", is_final=answer.status not in _LATER)


def _drain(answer: urllib3.BaseHTTPResponse) -> None:
    """Reads the body of an answer, if it is short and comes in time."""
    left_bytes, until = MOST_ANSWER_BYTES, time.monotonic() + SEND_SECONDS
    while left_bytes > 0 and time.monotonic() < until:
        piece = answer.read1(left_bytes, decode_content=False)
        if not piece:
            answer.release_conn()
            return
        left_bytes -= len(piece)


class _Adapter(requests.adapters.HTTPAdapter):
    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        super().__init__()

    def init_poolmanager(self, *args: Any, **settings: Any) -> None:
        super().init_poolmanager(*args, **settings, ssl_context=self._tls)


class BoundedSession(requests.Session):
    """A session that reads no body of an answer: nobody needs it, and it may be endless.

    Redirects are not followed. Each answer's connection is closed.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """`tls` stands in place of the certificates that the environment or a request names."""
        super().__init__()
        if tls is not None:
            self.mount("https://", _Adapter(tls))

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None  # a redirect that is not followed is looked at all the same, after all of its body

    def send(self, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
        answer = super().send(request, **{**settings, "stream": True})
        answer.close()
        answer._content = b""
        return answer
