"""One instance: its address, and whether it was out of reach lately.

    a request fails to connect              → it rests
    two requests in a row get no answer     → it is silent, and rests
    two failures in a row, or silent        → longer rests; after each, one request at a time tries
                                              it, until one is answered
    any answer                              → it is well

A hung instance accepts connections and answers nothing. Without a rest each of its keys would cost
its callers their whole time, for as long as it hangs.
"""

import logging
import re

from yarl import URL

log = logging.getLogger(__name__)

REST_SECONDS = 0.5
"""The rest of an instance that could not be reached; doubled each time it fails again."""
LONGEST_REST_SECONDS = 30.0
UNANSWERED = 2
"""Requests in a row without an answer after which an instance is silent."""
LEAST_SILENCE_SECONDS = 0.05
"""A request that waited less says nothing of the instance: its caller had too little time."""
PROBE_SECONDS = 1.0
"""The time for which an instance in doubt gets no other request than one that tries it."""


_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
"""A part of a host name.

By the rules there is no underscore in it, and in many names of containers there is.
"""
_USER = re.compile(r"//[^/?#]*@")


def urls_of(text: str) -> list[URL]:
    """The base URLs of a comma separated list. Raises `ValueError`, which names the bad one."""
    if not isinstance(text, str | URL):
        raise ValueError(f"url: is one text, with commas between several URLs, not {text!r}")
    return [_url_of(part.strip()) for part in str(text).split(",")]


def _url_of(text: str) -> URL:
    shown = _USER.sub("//…@", text)  # a password is in no message, log line or traceback
    if shown != text:
        raise ValueError(f"url {shown!r}: a base URL has no user or password")
    try:
        url = URL(text)
        host, port = (url.raw_host or "") if url.host else "", url.port
    except ValueError as error:
        raise ValueError(f"url {text!r}: {error}") from None
    if url.scheme not in ("http", "https") or not host:
        raise ValueError(f"url {text!r}: is no base URL, such as http://127.0.0.1:8080")
    if url.query_string or url.fragment:
        raise ValueError(f"url {text!r}: a base URL has no query, fragment or user")
    if not port:
        raise ValueError(f"url {text!r}: its port is none of 1 to 65535")
    is_name = ":" not in host
    if is_name and not all(map(_LABEL.fullmatch, host.removesuffix(".").split("."))):
        raise ValueError(f"url {text!r}: {host!r} is no name or address of a host")
    return url


class Endpoint:
    """One instance, and when it may be asked again."""

    def __init__(self, base: URL) -> None:
        self.base = base
        self._root = str(base).rstrip("/")
        self._paths: dict[str, URL] = {}
        self.failures = 0
        self.rests_until = 0.0
        self._unanswered = 0
        self._next_probe = 0.0
        self._is_out = False

    def fixed_url(self, path: str) -> URL:
        """The URL of one of the few fixed paths; parsed once."""
        url = self._paths.get(path)
        if url is None:
            url = self._paths[path] = self.url(path)
        return url

    def url(self, path: str) -> URL:
        """The URL of a path, which is percent-encoded already and stays as it is."""
        return URL(self._root + path, encoded=True)

    def is_well(self, now: float) -> bool:
        """True if requests may be sent here, as it does not rest, or as the one that tries it.

        Whoever is told true about an instance that failed twice is expected to send a request.
        """
        if self.rests_until > now:
            return False
        if not self.is_silent and self.failures < 2:
            return True
        if self._next_probe > now:
            return False
        self._next_probe = now + PROBE_SECONDS
        return True

    @property
    def is_silent(self) -> bool:
        """True if it has not answered the last requests."""
        return self._unanswered >= UNANSWERED

    def failed(self, now: float, why: object = "no connection") -> None:
        """Notes that it could not be reached. The second failure in a row is logged.

        One failure may be a kept connection that the server has just closed.
        """
        self.rests_until = now + min(REST_SECONDS * 2.0**self.failures, LONGEST_REST_SECONDS)
        self.failures = min(self.failures + 1, 16)
        if not self._is_out and (self.failures > 1 or self.is_silent):
            self._is_out = True
            log.warning("cache instance %s is out of reach (%s): others are asked instead", self.base, why)

    def left_unanswered(self, now: float, waited: float) -> None:
        """Notes a request whose time, `waited` seconds, ended without an answer.

        Requests that were under way when the rest began do not make it longer.
        """
        if waited < LEAST_SILENCE_SECONDS:
            return
        self._unanswered += 1
        if self.is_silent and self.rests_until <= now:
            self.failed(now, "no answers")

    def worked(self) -> None:
        """Notes an answer. It ends an outage, which is logged."""
        self.failures = 0
        self.rests_until = 0.0
        self._unanswered = 0
        is_back, self._is_out = self._is_out, False
        if is_back:
            log.warning("cache instance %s answers again", self.base)
