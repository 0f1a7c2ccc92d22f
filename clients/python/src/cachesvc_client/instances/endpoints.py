"""One instance: its address, and whether it was out of reach lately."""

from yarl import URL

REST_SECONDS = 0.5
"""The rest of an instance that could not be reached; doubled each time it fails again."""
LONGEST_REST_SECONDS = 30.0


def urls_of(text: str) -> list[URL]:
    """The base URLs of a comma separated list. Raises `ValueError`, which names the bad one."""
    return [_url_of(part.strip()) for part in text.split(",")]


def _url_of(text: str) -> URL:
    try:
        url = URL(text)
    except ValueError as error:
        raise ValueError(f"url {text!r}: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"url {text!r}: is no base URL, such as http://127.0.0.1:8080")
    if url.query_string or url.fragment or url.user is not None:
        raise ValueError(f"url {text!r}: a base URL has no query, fragment or user")
    return url


class Endpoint:
    """One instance, and when it may be asked again."""

    def __init__(self, base: URL) -> None:
        self.base = base
        self._root = str(base).rstrip("/")
        self._paths: dict[str, URL] = {}
        self.failures = 0
        self.rests_until = 0.0

    def fixed_url(self, path: str) -> URL:
        """The URL of one of the few fixed paths; parsed once."""
        url = self._paths.get(path)
        if url is None:
            url = self._paths[path] = self.url(path)
        return url

    def url(self, path: str) -> URL:
        """The URL of a path, which is percent-encoded already and stays as it is."""
        return URL(self._root + path, encoded=True)

    def failed(self, now: float) -> None:
        self.rests_until = now + min(REST_SECONDS * 2.0**self.failures, LONGEST_REST_SECONDS)
        self.failures = min(self.failures + 1, 16)

    def worked(self) -> None:
        self.failures = 0
        self.rests_until = 0.0
