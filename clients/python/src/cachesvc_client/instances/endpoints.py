"""One instance: its address, and whether it may be asked.

    named by the document of instances      → unproven: a probe asks it before any caller does
    a request fails to connect              → it rests
    two requests in a row get no answer     → it is silent, and rests
    two failures in a row, or silent        → it is out: longer rests, and a probe after each
    it says that it stops                   → unproven again, until a probe's answer does not say so
    a probe of one that is out is answered  → one request at a time tries it, until one is answered
    any other answer                        → it is well

A probe is a small request of the client's own, for which no caller waits. A hung instance accepts
connections and answers nothing. Without a rest each of its keys would cost its callers a part of
their time, for as long as it hangs. A probe alone does not end that, because an instance may answer
probes and nothing else.

All clients of a process share what they know of an instance (`Endpoint.at`), whatever their
flavour, loop or thread. Times are seconds of `time.monotonic`, which all of them have in common.
"""

import logging
import os
import re
import threading
from typing import Self
from weakref import WeakValueDictionary

from yarl import URL

log = logging.getLogger(__name__)

REST_SECONDS = 0.5
"""The rest of an instance that could not be reached; doubled each time it fails again."""
LONGEST_REST_SECONDS = 30.0
UNANSWERED = 2
"""Requests in a row without an answer after which an instance is silent."""
LEAST_SILENCE_SECONDS = 0.03
"""A request that waited less says nothing of the instance: it had too little time.

The default of `LOW_LATENCY` leaves a first try a little more.
"""
PROBE_SECONDS = 1.0
"""The time of a probe, and the time for which one request alone tries an instance."""
ROUND_TRIPS = 4
"""Round trips that a share of a request's time must be worth: TCP, TLS, the request."""
UNMEASURED_SHARES = 2
"""The shares of a request's time, as long as the way to the instance was not measured."""

_lock = threading.Lock()
"""Guards the changes of every endpoint, and `_shared`. Held for a few instructions."""


def _in_child() -> None:
    """A lock that another thread held at a fork would stay held for ever."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)


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
    """One instance, and when it may be asked again. Any thread may call its methods."""

    def __init__(self, base: URL, *, is_proven: bool = True) -> None:
        """`is_proven`: False, and a probe has to be answered first."""
        self.base = base
        self._root = spelled(base)
        self._paths: dict[str, URL] = {}
        self._is_proven = is_proven
        self.failures = 0
        self.rests_until = 0.0
        self._unanswered = 0
        self._next_probe = 0.0
        self._next_trial = 0.0
        self._is_on_trial = False
        self._is_out = False
        self._round_trip_seconds = 0.0
        """The shortest time in which a request was answered; 0 before the first answer."""
        self.is_clean = is_proven
        """True if nothing speaks against the instance: it is the usual case, and cheap to ask."""

    @classmethod
    def at(cls, base: URL, *, is_proven: bool = True) -> Self:
        """Returns the endpoint that all clients of this process share for the address.

        It lives as long as a client uses it. If `is_proven`, its address was given by a person.
        """
        with _lock:
            endpoint = _shared.get(spelled(base))
            if endpoint is None:
                endpoint = _shared[spelled(base)] = cls(base, is_proven=is_proven)
        return endpoint  # type: ignore[return-value]  # no class derives from this one

    def __repr__(self) -> str:
        state = "well" if self.is_clean else "out" if self._is_out else "in doubt"
        return f"<Endpoint {self.base} [{state}]>"

    def fixed_url(self, path: str) -> URL:
        """The URL of one of the few fixed paths; parsed once."""
        url = self._paths.get(path)
        if url is None:
            url = self._paths[path] = self.url(path)
        return url

    def url(self, path: str) -> URL:
        """The URL of a path, which is percent-encoded already and stays as it is."""
        return URL(self._root + path, encoded=True)

    # whether it may be asked ----------------------------------------------------------------------

    @property
    def is_silent(self) -> bool:
        """True if it has not answered the last requests."""
        return self._unanswered >= UNANSWERED

    @property
    def is_doubted(self) -> bool:
        """True if a probe has to be answered before a request is sent here."""
        return not self._is_proven or self.is_silent or self.failures > 1

    def is_barred(self, now: float) -> bool:
        """True if requests that another instance can take should not be sent here."""
        if self.is_clean:
            return False
        return self.rests_until > now or (self.is_doubted and not self._is_on_trial)

    def is_well(self, now: float) -> bool:
        """True if a request may be sent here, perhaps as the one that tries the instance.

        Whoever is told true about an instance that was out is expected to send a request.
        """
        if self.is_clean:
            return True
        with _lock:
            if self.is_barred(now):
                return False
            if not self._is_on_trial:
                return True
            if self._next_trial > now:
                return False
            self._next_trial = now + PROBE_SECONDS
            return True

    def claim_probe(self, now: float) -> bool:
        """True if a probe is due. The caller that is told so sends it."""
        if self.is_clean:
            return False
        with _lock:
            if self._is_on_trial or not self.is_doubted or max(self._next_probe, self.rests_until) > now:
                return False
            self._next_probe = now + PROBE_SECONDS
            return True

    def shares(self, seconds_left: float) -> int:
        """The number of equal parts, at least 1, into which a request may divide its time.

        One is for this instance. If it is far away, the part is long enough to connect as well.
        """
        if not self._round_trip_seconds:
            return UNMEASURED_SHARES
        return max(1, int(seconds_left / (ROUND_TRIPS * self._round_trip_seconds)))

    # what became of requests ----------------------------------------------------------------------

    def probed(self, seconds: float) -> None:
        """Notes the answer to a probe, which took so many seconds.

        An instance that was out then gets one request at a time.
        """
        if not self.failures and not self.is_silent:
            self.worked(seconds)
            return
        with _lock:
            self._is_proven = self._is_on_trial = True
            self.rests_until = self._next_trial = self._next_probe = 0.0

    def stops(self) -> None:
        """Notes an answer that says that the instance stops: others take its requests from now on."""
        with _lock:
            self._is_proven = self._is_on_trial = self.is_clean = False

    def failed(self, now: float, why: object = "no connection") -> None:
        """Notes that it could not be reached. The second failure in a row is logged.

        One failure may be a kept connection that the server has just closed.
        """
        with _lock:
            is_news = self._fail(now)
        if is_news:
            log.warning("cache instance %s is out of reach (%s): others are asked instead", self.base, why)

    def _fail(self, now: float) -> bool:
        """Begins a rest. True if the outage began with this failure."""
        self.is_clean = self._is_on_trial = False
        self.rests_until = now + min(REST_SECONDS * 2.0**self.failures, LONGEST_REST_SECONDS)
        self.failures = min(self.failures + 1, 16)
        if self._is_out or not (self.failures > 1 or self.is_silent):
            return False
        self._is_out = True
        return True

    def left_unanswered(self, now: float, waited: float) -> None:
        """Notes a request whose time, `waited` seconds, ended without an answer.

        Requests that were under way when the rest began do not make it longer.
        """
        if waited < LEAST_SILENCE_SECONDS:
            return
        with _lock:
            self._unanswered += 1
            self.is_clean = False
            is_rest_due = self.is_silent and self.rests_until <= now
            is_news = is_rest_due and self._fail(now)
        if is_news:
            log.warning("cache instance %s is out of reach (no answers): others are asked instead", self.base)

    def worked(self, seconds: float) -> None:
        """Notes an answer, which took so many seconds to come. It ends an outage, which is logged."""
        if seconds < self._round_trip_seconds or not self._round_trip_seconds:
            self._round_trip_seconds = seconds
        if self.is_clean:
            return
        with _lock:
            self.failures = self._unanswered = 0
            self.rests_until = self._next_probe = 0.0
            self._is_on_trial = False
            self._is_proven = self.is_clean = True
            if self._is_out:
                self._round_trip_seconds = seconds  # the address may lead to another place now
            is_back, self._is_out = self._is_out, False
        if is_back:
            log.warning("cache instance %s answers again", self.base)


_shared: WeakValueDictionary[str, Endpoint] = WeakValueDictionary()
"""Address → the endpoint of this process's clients."""


def spelled(url: URL) -> str:
    """The text of a base URL, the same for the spellings that mean one address."""
    return str(url).rstrip("/")
