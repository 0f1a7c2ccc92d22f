"""The URL that a key is loaded from: a template with `{key}` in it.

The key comes from a stranger, the rest from configuration. Whatever the key is, it stays inside the
one path segment (or query value) that `{key}` stands in: all but unreserved characters are
percent-encoded, so a key brings no `/`, `?`, `#`, `@` or `&`.

Proxies decode a path before they match it, and then take `.`, `..` and empty segments out (RFC
3986, 5.2.4; `merge_slashes` of nginx). With `/keys/{key}`, the key `../secret` would be asked for
as `/secret`, and `a//b` as `a/b`, which is another key. No encoding prevents that: `%2E` is decoded
first, too. So such a key is refused where `{key}` stands in the path. Three more are refused there:

    %2e%2e%2fsecret    Its text is itself encoded. nginx sends a part of a path that a regular
                       expression has captured decoded (`location ~ ^/keys/(.*)$`), so does HAProxy
                       with `url_dec`; the origin behind it then decodes the text as well.
    ..;a=b/secret      Servlets take `;` and what follows out of a segment, then look for dots.
    %252525252e        Nobody can tell how many servers on the way decode a path, so a text that can
                       be decoded more than `_DECODED_AT_MOST` times is refused as it is.

A text that holds empty segments only when it is decoded (`https%3A%2F%2Fexample.com`) stays below
the prefix wherever it is decoded, and is asked for.
"""

import re
from urllib.parse import quote, unquote

from yarl import URL

from cachesvc.config.addresses import origin_fault
from cachesvc.model.errors import ConfigError

_PLACE = "{key}"
_DOTTED = re.compile(r"[/\\]\.{1,2}(?:;[^/\\?#]*)?(?:[/\\?#]|\Z)").search
"""Finds a segment `.` or `..`, also with parameters. Some take a backslash for a slash.

A path that was decoded and not encoded again ends at a `?` or `#`.
"""
_EMPTY = re.compile(r"[/\\](?:;[^/\\]*)?[/\\]").search
"""Finds an empty segment, with or without parameters, except at the end (`keys/a/`)."""
_DECODED_AT_MOST = 4


class KeyAddress:
    """Makes the URL of a key.

    Raises `ConfigError` when it is built from a template that cannot hold a key safely.
    """

    def __init__(self, template: str, *, path: str = "$.origin.url") -> None:
        self._before, self._after = _split(template, path)
        self._in_path = "?" not in self._before
        self._begins = "/" + unquote(self._before.rpartition("/")[2])
        rest, slash, _ = self._after.partition("?")[0].partition("/")
        self._ends = unquote(rest) + slash

    def of(self, text: str) -> URL:
        """Returns the URL of the key `text`.

        Raises `ValueError` for a key whose path a proxy may change to the path of something else.
        """
        if self._in_path:
            self._check(f"{self._begins}{text}{self._ends}")
        return URL(f"{self._before}{quote(text, safe='')}{self._after}", encoded=True)

    def _check(self, path: str) -> None:
        if _EMPTY(path):
            raise ValueError("a proxy takes '.', '..' and empty segments out of a path")
        for _ in range(_DECODED_AT_MOST + 1):
            if _DOTTED(path):
                raise ValueError("a proxy takes '.', '..' and empty segments out of a path")
            if "%" not in path or (decoded := unquote(path)) == path:
                return
            path = decoded
        raise ValueError("it is percent-encoded again and again")


def _split(template: str, path: str) -> tuple[str, str]:
    if fault := origin_fault(template):
        raise ConfigError(path, fault)
    before, _, after = template.partition(_PLACE)
    return before, after
