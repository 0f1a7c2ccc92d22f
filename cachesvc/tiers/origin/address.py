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
from urllib.parse import quote

from yarl import URL

from cachesvc.config.addresses import origin_fault
from cachesvc.model.errors import ConfigError

_PLACE = "{key}"
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
    if fault := origin_fault(template):
        raise ConfigError(path, fault)
    before, _, after = template.partition(_PLACE)
    return before, after
