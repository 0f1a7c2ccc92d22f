"""Cases of HTTP caching that hold for a cache service with an origin (RFC 9111, RFC 5861).

They have the format of http-tests/cache-tests, so that `http_caching.py` runs both, and its names
where that suite has the case, too.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Headers = list[tuple[str, object]]
HOUR = 3600
DATE: tuple[str, object] = ("Date", 0)

NOT_KEPT: Mapping[str, Headers] = {
    "freshness-none": [],
    "freshness-max-age-0": [("Cache-Control", "max-age=0")],
    "freshness-max-age-0-expires": [("Expires", 10000), ("Cache-Control", "max-age=0"), DATE],
    "freshness-max-age-negative": [("Cache-Control", "max-age=-3600")],
    "freshness-max-age-a100": [("Cache-Control", "max-age=a3600")],
    "freshness-max-age-100a": [("Cache-Control", "max-age=3600a")],
    "freshness-max-age-decimal-zero": [("Cache-Control", "max-age=3600.0")],
    "freshness-max-age-decimal-five": [("Cache-Control", "max-age=3600.5")],
    "freshness-max-age-single-quoted": [("Cache-Control", "max-age='3600'")],
    "freshness-max-age-space-before-equals": [("Cache-Control", "max-age =3600")],
    "freshness-max-age-space-after-equals": [("Cache-Control", "max-age= 3600")],
    "freshness-max-age-age": [DATE, ("Cache-Control", "max-age=3600"), ("Age", "12000")],
    "freshness-max-age-two-fresh-stale": [("Cache-Control", "max-age=1800, max-age=0")],
    "freshness-max-age-two-lines": [("Cache-Control", "max-age=0"), ("Cache-Control", "max-age=1800")],
    "freshness-max-age-ignore-quoted": [("Cache-Control", 'extension="max-age=3600", max-age=0')],
    "freshness-max-age-ignore-quoted-rev": [("Cache-Control", 'max-age=0, extension="max-age=3600"')],
    "freshness-max-age-s-maxage-shared-longer": [("Cache-Control", "max-age=3600, s-maxage=0")],
    "freshness-max-age-s-maxage-reversed": [("Cache-Control", "s-maxage=0, max-age=3600")],
    "freshness-s-maxage-lines": [("Cache-Control", "max-age=3600"), ("Cache-Control", "s-maxage=0")],
    "freshness-expires-past": [("Expires", -30 * 24 * HOUR), DATE],
    "freshness-expires-present": [("Expires", 0), DATE],
    "freshness-expires-old-date": [("Expires", 300), ("Date", 400)],
    "freshness-expires-invalid": [("Expires", "0"), DATE],
    "freshness-expires-age-slow-date": [("Date", -10), ("Expires", 10), ("Age", "25")],
    "freshness-expires-age-fast-date": [("Date", 10), ("Expires", 20), ("Age", "15")],
    **{
        f"freshness-expires-invalid-{name}": [("Expires", text), DATE]
        for name, text in {
            "utc": "Thu, 18 Aug 2050 02:01:18 UTC",
            "aest": "Thu, 18 Aug 2050 02:01:18 AEST",
            "2-digit-year": "Thu, 18 Aug 50 02:01:18 GMT",
            "no-comma": "Thu 18 Aug 2050 02:01:18 GMT",
            "multiple-spaces": "Thu, 18  Aug  2050 02:01:18 GMT",
            "date-dashes": "Thu, 18-Aug-2050 02:01:18 GMT",
            "time-periods": "Thu, 18 Aug 2050 02.01.18 GMT",
            "1-digit-hour": "Thu, 18 Aug 2050 2:01:18 GMT",
        }.items()
    },
    "cc-resp-private-shared": [("Cache-Control", "private, max-age=3600")],
    "cc-resp-no-store": [("Cache-Control", "no-store")],
    "cc-resp-no-store-case-insensitive": [("Cache-Control", "No-StOrE")],
    "cc-resp-no-store-fresh": [("Cache-Control", "max-age=10000, no-store"), ("Expires", 10000), DATE],
    "cc-resp-no-cache": [("Cache-Control", "max-age=10000, no-cache"), ("Expires", 10000), DATE],
    "cc-resp-no-cache-case-insensitive": [("Cache-Control", "max-age=10000, No-CaChE")],
    "vary-star": [("Cache-Control", "max-age=3600"), ("Vary", "*")],
    "vary-star-lines": [("Cache-Control", "max-age=3600"), ("Vary", "Foo"), ("Vary", "*")],
    "age-parse-old": [DATE, ("Cache-Control", "max-age=3600"), ("Age", "7200, 0")],
}
"""The origin's answer may not be used for the next request."""

KEPT: Mapping[str, Headers] = {
    "freshness-max-age": [("Cache-Control", "max-age=3600")],
    "freshness-max-age-quoted": [("Cache-Control", 'max-age="3600"')],
    "freshness-max-age-leading-zero": [("Cache-Control", "max-age=003600")],
    "freshness-max-age-max": [("Cache-Control", "max-age=2147483648")],
    "freshness-max-age-max-plus": [("Cache-Control", "max-age=99999999999")],
    "freshness-max-age-case-insenstive": [("Cache-Control", "MaX-aGe=3600")],
    "freshness-max-age-extension": [("Cache-Control", "foobar, max-age=3600")],
    "freshness-max-age-expires": [("Cache-Control", "max-age=3600"), ("Expires", -10000), DATE],
    "freshness-max-age-expires-invalid": [("Cache-Control", "max-age=3600"), ("Expires", "0"), DATE],
    "freshness-s-maxage-shared": [("Cache-Control", "s-maxage=3600")],
    "freshness-max-age-s-maxage-shorter": [("Cache-Control", "max-age=1, s-maxage=3600")],
    "freshness-expires-future": [("Expires", 30 * 24 * HOUR), DATE],
    "freshness-expires-wrong-case-weekday": [("Expires", "THU, 18 Aug 2050 02:01:18 GMT"), DATE],
    "freshness-expires-wrong-case-month": [("Expires", "Thu, 18 AUG 2050 02:01:18 GMT"), DATE],
    "freshness-expires-wrong-case-tz": [("Expires", "Thu, 18 Aug 2050 02:01:18 gMT"), DATE],
    "freshness-expires-rfc850": [("Expires", "Thursday, 18-Aug-50 02:01:18 GMT"), DATE],
    "freshness-expires-ansi-c": [("Expires", "Thu Aug 18 02:01:18 2050"), DATE],
    "freshness-expires-invalid-date": [("Date", "foo"), ("Expires", 3600)],
    "cc-resp-must-revalidate-fresh": [("Cache-Control", "max-age=10000, must-revalidate")],
    "age-parse-nonnumeric": [DATE, ("Cache-Control", "max-age=3600"), ("Age", "abc")],
    "age-parse-negative": [DATE, ("Cache-Control", "max-age=3600"), ("Age", "-7200")],
    "other-set-cookie": [("Cache-Control", "max-age=3600"), ("Set-Cookie", "a=b")],
}
"""The next request is answered without asking the origin."""

STATUSES = {200: "cached", 404: "cached"}
"""Answers whose status callers get as it is. The others are in docs/http-caching.md."""


def two(name: str, headers: Headers, expected: str, **first: Any) -> dict[str, Any]:
    status = {name: first[name] for name in ("response_status",) if name in first}
    return {
        "id": name,
        "requests": [
            {"response_headers": headers, "setup": True, **first},
            {"response_headers": headers, "expected_type": expected, **status},
        ],
    }


def cases() -> Iterator[dict[str, Any]]:
    """Every case."""
    for name, headers in NOT_KEPT.items():
        yield two(name, headers, "not_cached")
    for name, headers in KEPT.items():
        yield two(name, headers, "cached")
    for status, expected in STATUSES.items():
        fresh: Headers = [("Cache-Control", "max-age=3600")]
        yield two(f"status-{status}-fresh", fresh, expected, response_status=(status, ""))
        stale: Headers = [("Expires", -5000), DATE]
        yield two(f"status-{status}-stale", stale, "not_cached", response_status=(status, ""))
    for name, etag in {"strong": '"abcd"', "weak": 'W/"abcd"'}.items():
        validated: Headers = [("Cache-Control", "max-age=1, stale-if-error=60"), ("ETag", etag)]
        yield two(f"conditional-etag-{name}-respond", validated, "etag_validated", pause_after=True)
    for name, asked in {
        "ccreq-ma0": "max-age=0",
        "ccreq-no-cache": "no-cache",
        "ccreq-min-fresh": "min-fresh=7200",
    }.items():
        case = two(name, [("Cache-Control", "max-age=3600")], "not_cached")
        case["requests"][1]["request_headers"] = [("Cache-Control", asked)]
        yield case
    yield {
        "id": "ccreq-oic",
        "requests": [{"request_headers": [("Cache-Control", "only-if-cached")], "expected_status": 504}],
    }
    for name, kept in {"max-age": ("Cache-Control", "max-age=600"), "expires": ("Expires", HOUR)}.items():
        case = two(f"other-age-update-{name}", [kept, DATE, ("Age", "2")], "cached")
        case["requests"][1]["expected_response_headers"] = [("Age", ">", 1)]
        yield case
    for ending in ("must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=1"):
        yield {
            "id": f"stale-close-{ending}",
            "requests": [
                {"response_headers": [("Cache-Control", f"max-age=1, {ending}")], "pause_after": True},
                {"disconnect": True, "expected_type": "not_cached", "expected_status": 502},
            ],
        }
    yield {
        "id": "stale-sie-close",
        "requests": [
            {"response_headers": [("Cache-Control", "max-age=1, stale-if-error=60")], "pause_after": True},
            {"disconnect": True, "expected_status": 200},
        ],
    }
    yield {
        "id": "query-args-different",
        "requests": [
            {"response_headers": KEPT["freshness-max-age"], "query_arg": "a=1"},
            {"query_arg": "a=2", "expected_type": "not_cached"},
        ],
    }
