"""Sends messages to an OTLP/HTTP receiver. The calls block, so they need a thread."""

import contextlib
import os
from collections.abc import Mapping
from http import HTTPStatus
from typing import Protocol

import urllib3
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_EXPORTER_OTLP_HEADERS
from opentelemetry.util.re import parse_env_headers

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

    def __init__(self, url: str, environ: Mapping[str, str] = os.environ) -> None:
        """`url` is the URL of one signal, such as `http://127.0.0.1:4318/v1/traces`."""
        self._url = url
        given = parse_env_headers(environ.get(OTEL_EXPORTER_OTLP_HEADERS, ""), liberal=True)
        self._headers = {**given, "Content-Type": "application/x-protobuf"}
        certificate = environ.get(OTEL_EXPORTER_OTLP_CERTIFICATE)
        self._http = urllib3.PoolManager(maxsize=1, retries=False, timeout=SEND_SECONDS, ca_certs=certificate)

    def __repr__(self) -> str:
        return f"<Receiver {self._url}>"

    def post(self, message: bytes, /) -> None:
        try:
            # The body is not needed, and may be endless. One that is short is read, so that its connection
            # can be used again.
            answer = self._http.request(
                "POST", self._url, body=message, headers=self._headers, preload_content=False
            )
            with contextlib.closing(answer):
                if not answer.read(MOST_ANSWER_BYTES, decode_content=False) or not answer.read(1):
                    answer.release_conn()
        except urllib3.exceptions.HTTPError as failure:
            raise NotTakenError(failure, is_final=False) from failure
        if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise NotTakenError(f"HTTP {answer.status}", is_final=answer.status not in _LATER)
