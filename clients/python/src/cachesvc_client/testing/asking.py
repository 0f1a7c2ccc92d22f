"""Reads what requests ask, as strictly as the service does.

A member that breaks a rule raises `Refused` with the name of its field.
"""

import re
from collections.abc import Iterable, Mapping

from cachesvc_client.protocol.names import check_key
from cachesvc_client.requests.own_writes import pairs_of
from cachesvc_client.testing.contract import SECONDS
from cachesvc_client.testing.home import Draft, Entry
from cachesvc_client.testing.http import Refused
from cachesvc_client.testing.reading import Asked
from cachesvc_client.values.durations import seconds_of
from cachesvc_client.values.lifetimes import MAX_LAG_SECONDS

_DIRECTIVE = re.compile(r'\s*([a-z-]+)(?:="?([^",]*)"?)?\s*(?:,|\Z)')
_GROUP = re.compile(r'\s*"((?:[^"\\]|\\.)*)"\s*(?:,|\Z)')
_ETAG = re.compile(r'\s*((?:W/)?"[^"]*")\s*(?:,|\Z)')
_TAG = re.compile(r"[ -~]{1,256}")
_LEASE = re.compile(r"[^:]+:[0-9]+")
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(?:\s*;.*)?")
_PREFERENCE = re.compile(r'\s*([\w-]+)\s*(?:=\s*"?([^",]*)"?)?')

Headers = Mapping[str, str]


def asked_of(headers: Headers) -> Asked:
    """Returns what the headers of a read ask."""
    said = directives_of(headers.get("cache-control", ""))
    for one, other in (("max-stale", "min-fresh"), ("max-stale", "no-cache"), ("only-if-cached", "no-cache")):
        if one in said and other in said:
            raise Refused(400, "contradiction", f"{one} and {other}", "Cache-Control")
    preferred = {
        match[1].lower(): match[2] or "" for match in _PREFERENCE.finditer(headers.get("prefer", ""))
    }
    timeout_of(headers)
    return Asked(
        token=token_of(headers.get("cachesvc-token", ""), "Cachesvc-Token"),
        lease="lease" in preferred,
        wait=_wait_of(preferred.get("wait", "0")) if "lease" in preferred else 0.0,
        max_lag=_lag_of(headers.get("cachesvc-max-lag", ""), "Cachesvc-Max-Lag"),
        max_age=_micros(said, "max-age"),
        max_stale=_micros(said, "max-stale"),
        min_fresh=_micros(said, "min-fresh") or 0,
        no_cache="no-cache" in said,
        only_if_cached="only-if-cached" in said,
    )


def directives_of(cache_control: str) -> dict[str, str]:
    """Returns the directives of `Cache-Control` with their arguments."""
    return dict(_members(_DIRECTIVE, cache_control, 400, "bad-cache-control", "Cache-Control"))


def seconds_in(said: Mapping[str, str], name: str) -> float | None:
    """Returns the seconds that the directive `name` says; None if it is not there."""
    if name not in said:
        return None
    if not said[name].isdigit():
        raise Refused(400, "bad-cache-control", f"{name} takes a number of seconds", "Cache-Control")
    return float(said[name])


def _micros(said: Mapping[str, str], name: str) -> int | None:
    seconds = seconds_in(said, name)
    return None if seconds is None else round(seconds * SECONDS)


def _wait_of(text: str) -> float:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise Refused(400, "bad-header", f"wait takes seconds, not {text!r}", "Prefer")
    return float(text)


def _lag_of(text: str, field: str) -> int | None:
    return duration_of(text, field, "bad-header") if text else None


def timeout_of(headers: Headers) -> float | None:
    """Returns `Cachesvc-Timeout` in seconds; None if it is not there."""
    if "cachesvc-timeout" not in headers:
        return None
    micros = duration_of(headers["cachesvc-timeout"], "Cachesvc-Timeout", "bad-header")
    if micros <= 0:
        raise Refused(400, "bad-header", "a timeout is longer than 0", "Cachesvc-Timeout")
    return micros / SECONDS


def duration_of(text: str, field: str, kind: str) -> int:
    """Returns the duration in µs; raises `Refused` of `kind` for `field`."""
    try:
        return round(seconds_of(text, field) * SECONDS)
    except ValueError as error:
        raise Refused(400, kind, str(error), field) from None


def token_of(text: str, field: str) -> dict[int, int]:
    """Returns the pairs of the token; the newest `at` of each digest."""
    try:
        pairs: dict[int, int] = {}
        for key, at in pairs_of(text):
            pairs[key] = max(at, pairs.get(key, 0))
    except ValueError as error:
        raise Refused(400, "bad-token", str(error), field) from None
    return pairs


def key_of(text: str, field: str) -> str:
    """Returns the key, if it keeps the rule for keys."""
    try:
        check_key(text)
    except ValueError as error:
        raise Refused(400, "bad-key", str(error), field) from None
    return text


def checked_tags(tags: Iterable[str], field: str) -> tuple[str, ...]:
    """Returns the tags, if they keep the rule for tags."""
    found = tuple(tags)
    for nth, tag in enumerate(found):
        if not _TAG.fullmatch(tag):
            raise Refused(400, "bad-tag", "a tag has 1 to 256 printable ASCII characters", f"{field}[{nth}]")
    return found


def check_partition(key: str, tags: Iterable[str]) -> None:
    """Refuses a tag that names, in braces, another partition than the key's."""
    for tag in tags:
        if (partition := _partition(tag)) and partition != (_partition(key) or key):
            raise Refused(
                400, "foreign-tag", f"tag {tag!r} belongs to another partition than the key", "Cache-Groups"
            )


def _partition(text: str) -> str:
    _, _, rest = text.partition("{")
    inside, closed, _ = rest.partition("}")
    return inside if closed else ""


def check_lease(lease: str) -> None:
    """Refuses a text that is no lease token; an empty text is none to check."""
    if lease and not _LEASE.fullmatch(lease):
        raise Refused(400, "bad-lease", "not a lease token", "Cachesvc-Lease")


def draft_of(headers: Headers, value: bytes, tags_max: int) -> Draft:
    """Returns the value of a PUT with what the headers say of it."""
    content_type = headers.get("content-type", "application/octet-stream")
    if not _MEDIA_TYPE.fullmatch(content_type):
        raise Refused(400, "bad-header", "not a media type", "Content-Type")
    said = directives_of(headers.get("cache-control", ""))
    if said.keys() & {"no-store", "private"}:
        raise Refused(400, "bad-cache-control", "it forbids what a PUT is for", "Cache-Control")
    tags = tuple(
        re.sub(r"\\(.)", r"\1", tag)
        for tag, _ in _members(_GROUP, headers.get("cache-groups", ""), 400, "bad-tag", "Cache-Groups")
    )
    if len(tags) > tags_max or not all(_TAG.fullmatch(tag) for tag in tags):
        raise Refused(400, "bad-tag", f"at most {tags_max} tags of printable ASCII", "Cache-Groups")
    ttl, stale, error = (
        seconds_in(said, name) for name in ("max-age", "stale-while-revalidate", "stale-if-error")
    )
    field = "Cachesvc-Source-Lag"
    lag = duration_of(headers.get(field.lower(), "0s"), field, "bad-header") / SECONDS
    if lag > MAX_LAG_SECONDS:
        raise Refused(400, "bad-header", f"at most {MAX_LAG_SECONDS:g} s", field)
    if lag and "cachesvc-lease" not in headers:
        raise Refused(400, "contradiction", "a source that lags belongs to a fill", field)
    return Draft(value, content_type, tags, ttl, stale, error, source_lag=lag)


class Conditions:
    """The conditions `If-Match` and `If-None-Match` of a request."""

    def __init__(self, headers: Headers) -> None:
        for one, other in (
            ("if-match", "if-none-match"),
            ("cachesvc-lease", "if-match"),
            ("cachesvc-lease", "if-none-match"),
        ):
            if one in headers and other in headers:
                raise Refused(400, "contradiction", f"{one} and {other} exclude each other", one.title())
        self.match = _etags(headers, "if-match")
        self.none_match = _etags(headers, "if-none-match")

    def allow_put(self, entry: Entry | None) -> bool:
        """True if a PUT may replace `entry`; None if nothing is stored."""
        if self.none_match and entry is not None:
            return False
        return not self.match or (entry is not None and ("*" in self.match or entry.etag in self.match))

    def is_not_modified(self, entry: Entry) -> bool:
        """True if a GET is to be answered with 304."""
        return any(tag == "*" or tag.removeprefix("W/") == entry.etag for tag in self.none_match)

    def is_refused(self, entry: Entry) -> bool:
        """True if a GET is to be answered with 412."""
        return bool(self.match) and not any(tag in ("*", entry.etag) for tag in self.match)


def _etags(headers: Headers, name: str) -> tuple[str, ...]:
    value = headers.get(name, "").strip()
    if value == "*":
        return ("*",)
    return tuple(tag for tag, _ in _members(_ETAG, value, 400, "bad-header", name.title()))


def _members(
    pattern: re.Pattern[str], value: str, status: int, kind: str, field: str
) -> list[tuple[str, str]]:
    """Returns the members of a list header, as the groups of `pattern` find them."""
    found, at = [], 0
    while at < len(value):
        match = pattern.match(value, at)
        if match is None:
            raise Refused(status, kind, f"cannot be read from {value[at:][:40]!r} on", field)
        found.append((match[1], (match[2] if pattern.groups > 1 else "") or ""))
        at = match.end()
    return found
