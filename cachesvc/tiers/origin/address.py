"""The URL that a key is loaded from: a template with `{key}` in it.

The key comes from a stranger, the rest from configuration. Whatever the key is, it stays inside the
one path segment (or query value) that `{key}` stands in: all but unreserved characters are
percent-encoded, so a key brings no `/`, `?`, `#`, `@` or `&`. A key of dots alone is encoded too,
because `.` and `..` change the depth of a path (RFC 3986, 5.2.4).
"""

import re
from urllib.parse import quote, urlsplit

from yarl import URL

from cachesvc.model.errors import ConfigError

_PLACE = "{key}"
_URL_CHARACTERS = re.compile(r"(?:[A-Za-z0-9._~:/?@!$&'()*+,;=\[\]-]|%[0-9A-Fa-f]{2})*")
_DOTS = re.compile(r"(?:\.|%2[Ee])+")


class KeyAddress:
    """Makes the URL of a key.

    Raises `ConfigError` when it is built from a template that cannot hold a key safely.
    """

    def __init__(self, template: str, *, path: str = "$.origin.url") -> None:
        self._before, self._after = _split(template, path)

    def of(self, text: str) -> URL:
        """Returns the URL of the key `text`."""
        encoded = quote(text, safe="")
        if not encoded.strip("."):
            encoded = encoded.replace(".", "%2E")
        return URL(f"{self._before}{encoded}{self._after}", encoded=True)


def _split(template: str, path: str) -> tuple[str, str]:
    before, place, after = template.partition(_PLACE)
    if not place or _PLACE in after:
        raise ConfigError(path, "{key} has to stand in it once")
    if not (_URL_CHARACTERS.fullmatch(before) and _URL_CHARACTERS.fullmatch(after)):
        raise ConfigError(
            path, "it holds a character that a URL cannot have, or a fragment: percent-encode it"
        )
    _check_server(before, path)
    if _DOTS.fullmatch(before.rpartition("/")[2] + after.partition("/")[0]):
        raise ConfigError(path, "with dots alone around {key}, a key of dots would change the path")
    return before, after


def _check_server(before: str, path: str) -> None:
    try:
        parts = urlsplit(before)
        named = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
    except ValueError as error:
        raise ConfigError(path, f"not a URL: {error}") from error
    if not named or not parts.path.startswith("/"):
        raise ConfigError(path, "it has to be http(s)://host/…, with {key} in the path or in the query")
