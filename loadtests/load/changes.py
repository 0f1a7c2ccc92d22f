"""Changes at the reference origin: a new version of one document, or a new size of all."""

from urllib.parse import quote

import msgspec
from geventhttpclient import HTTPClient


class ChangeError(Exception):
    """The origin did not accept the change, or did not answer."""


class _Changed(msgspec.Struct):
    version: int


class Changes:
    """An HTTP client of the origin, shared by all users of a process."""

    def __init__(self, origin: str, *, timeout: float, concurrency: int = 64) -> None:
        self._client = HTTPClient.from_url(
            origin, concurrency=concurrency, connection_timeout=timeout, network_timeout=timeout
        )

    def change(self, key: str) -> int:
        """Changes the document and returns its new version. Raises `ChangeError`."""
        return msgspec.json.decode(self._post(f"/docs/{quote(key, safe='')}", b""), type=_Changed).version

    def resize(self, value_bytes: int) -> None:
        """Sets the size of every document. Raises `ChangeError`."""
        self._post("/_control", msgspec.json.encode({"size": f"{value_bytes}B"}))

    def _post(self, path: str, body: bytes) -> bytes:
        try:
            response = self._client.post(path, body)
            answer = bytes(response.read())
        except OSError as error:
            raise ChangeError(f"the origin cannot be reached: {error}") from error
        if response.status_code != 200:
            raise ChangeError(f"the origin answered {response.status_code}")
        return answer
