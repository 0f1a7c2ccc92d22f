"""An OTLP/HTTP receiver to send to. Blocks: for a thread of its own."""

import os
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPException
from typing import Protocol
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_EXPORTER_OTLP_HEADERS
from opentelemetry.util.re import parse_env_headers

SEND_SECONDS = 3.0

_LATER = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
"""What OTLP wants tried again."""


class NotTakenError(Exception):
    """The receiver did not take a message. `is_final`: nor will it later."""

    def __init__(self, why: object, *, is_final: bool) -> None:
        super().__init__(why)
        self.is_final = is_final


class Receiving(Protocol):
    def post(self, message: bytes, /) -> None:
        """Raises `NotTakenError`."""
        ...


class Receiver:
    """With the headers (a token, mostly) and the certificate that OpenTelemetry's environment variables name."""

    def __init__(self, url: str, environ: Mapping[str, str] = os.environ) -> None:
        """`url`: of one signal, such as `http://127.0.0.1:4318/v1/traces`."""
        self._url = url
        given = parse_env_headers(environ.get(OTEL_EXPORTER_OTLP_HEADERS, ""), liberal=True)
        self._headers = {**given, "Content-Type": "application/x-protobuf"}
        is_tls = url.startswith("https:")
        self._tls = ssl.create_default_context(cafile=environ.get(OTEL_EXPORTER_OTLP_CERTIFICATE)) if is_tls else None

    def __repr__(self) -> str:
        return f"<Receiver {self._url}>"

    def post(self, message: bytes, /) -> None:
        request = Request(self._url, message, self._headers)  # noqa: S310  the configuration takes http and https only
        try:
            with urlopen(request, timeout=SEND_SECONDS, context=self._tls) as answer:  # noqa: S310  as above
                answer.read()
        except HTTPError as refused:
            refused.close()
            raise NotTakenError(refused, is_final=refused.code not in _LATER) from refused
        except (OSError, HTTPException) as failure:
            raise NotTakenError(failure, is_final=False) from failure
