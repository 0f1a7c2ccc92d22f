"""The URL that a key is loaded from: a template with `{key}` in it.

The key comes from a stranger, the rest from configuration. Whatever the key is, it stays inside the
one path segment (or query value) that `{key}` stands in: all but unreserved characters are
percent-encoded, so a key brings no `/`, `?`, `#`, `@` or `&`.

Proxies decode a path before they match it, and then take `.`, `..` and empty segments out (RFC
3986, 5.2.4; `merge_slashes` of nginx). With `/keys/{key}`, the key `../secret` would be asked for
as `/secret`, and `a//b` as `a/b`, which is another key. No encoding prevents that: `%2E` is decoded
first, too. So such a key is refused where `{key}` stands in the path.
"""

import re
from urllib.parse import quote, urlsplit

from yarl import URL

from cachesvc.model.errors import ConfigError

_PLACE = "{key}"
_URL_CHARACTERS = re.compile(r"(?:[A-Za-z0-9._~:/?@!$&'()*+,;=\[\]-]|%[0-9A-Fa-f]{2})*")
_DOTS = re.compile(r"(?:\.|%2[Ee])+")
_TAKEN_OUT = re.compile(r"[/\\](?:\.{1,2}(?=[/\\]|\Z)|(?=[/\\]))").search
"""Finds the segments that a proxy may take out of a path: `.`, `..`, and an empty one.

Not an empty one at the end (`keys/a/`). Some take a backslash for a slash.
"""


class KeyAddress:
    """Makes the URL of a key.

    Raises `ConfigError` when it is built from a template that cannot hold a key safely.
    """

    def __init__(self, template: str, *, path: str = "$.origin.url") -> None:
        self._before, self._after = _split(template, path)
        self._in_path = "?" not in self._before
        self._begins = "/" + self._before.rpartition("/")[2]
        rest, slash, _ = self._after.partition("?")[0].partition("/")
        self._ends = rest + slash

    def of(self, text: str) -> URL:
        """Returns the URL of the key `text`.

        Raises `ValueError` for a key whose path a proxy may change to the path of something else.
        """
        if self._in_path and _TAKEN_OUT(f"{self._begins}{text}{self._ends}"):
            raise ValueError("a proxy takes '.', '..' and empty segments out of a path")
        return URL(f"{self._before}{quote(text, safe='')}{self._after}", encoded=True)


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
