"""Requests and answers as values, and problem documents."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from cachesvc_client.protocol.wire import JSON, MSGPACK, PROBLEM_TYPES


class Request(Struct):
    """A request as the fake service is given it."""

    method: str
    target: str
    """The path and the query, percent-encoded."""
    headers: Mapping[str, str] = {}
    """The headers; their names are in lower case."""
    body: bytes = b""

    @property
    def media_type(self) -> str:
        """The media type of the body, in lower case and without parameters."""
        named = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        return MSGPACK if named in ("application/x-msgpack", "application/vnd.msgpack") else named

    @property
    def document(self) -> Any:
        """The body decoded, for tests that look at what was sent.

        None if there is no body; the bytes if the body is neither JSON nor MessagePack. Raises
        `ValueError` for a body that does not decode.
        """
        if not self.body:
            return None
        if self.media_type == MSGPACK:
            return msgspec.msgpack.decode(self.body)
        return msgspec.json.decode(self.body) if self.media_type == JSON else self.body


class Response(Struct):
    """An answer of the fake service."""

    status: int
    headers: dict[str, str] = {}
    body: bytes = b""


class Refused(Exception):  # noqa: N818  an answer to a caller
    """The service refuses the request, and answers with a problem document."""

    def __init__(
        self, status: int, kind: str, detail: str, field: str = "", *, retryable: bool = False
    ) -> None:
        super().__init__(f"{kind}: {detail}")
        self.status = status
        self.kind = kind
        self.detail = detail
        self.field = field
        self.retryable = retryable

    def document(self, request_id: str = "") -> dict[str, Any]:
        """Returns the problem document (RFC 9457)."""
        named = {"field": self.field, "request_id": request_id}
        return {
            "type": PROBLEM_TYPES + self.kind,
            "title": self.kind.replace("-", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            "retryable": self.retryable,
            **{name: value for name, value in named.items() if value},
        }

    def response(self, request: Request, headers: Mapping[str, str] | None = None) -> Response:
        """Returns the answer to `request`, with further headers."""
        request_id = request.headers.get("x-request-id", "fake")
        said = {"Content-Type": "application/problem+json", "X-Request-Id": request_id, **(headers or {})}
        return Response(self.status, said, msgspec.json.encode(self.document(request_id)))


def json_response(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Returns an answer whose body is the document as JSON."""
    return Response(status, {"Content-Type": JSON, **(headers or {})}, msgspec.json.encode(document))
