"""HTTP dates (RFC 9110, 5.6.7) to the letter: the preferred form and two obsolete ones.

    Sun, 06 Nov 1994 08:49:37 GMT     IMF-fixdate
    Sunday, 06-Nov-94 08:49:37 GMT    RFC 850
    Sun Nov  6 08:49:37 1994          asctime

Names match in any case (RFC 9111, 4.2). Every other spelling is no date: another zone than GMT, two
digits of a year in the first form, a missing comma, one digit of an hour. `email.utils` takes those
for dates, and an invalid `Expires` would then keep a value that is expired already (RFC 9111, 5.3).
"""

import re
from datetime import UTC, datetime

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY, _LONG_DAY = "(?:mon|tue|wed|thu|fri|sat|sun)", "(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_MONTH, _TIME = f"(?P<month>{'|'.join(_MONTHS)})", "(?P<time>[0-9]{2}:[0-9]{2}:[0-9]{2})"
_FORMS = tuple(
    re.compile(form, re.IGNORECASE | re.ASCII)
    for form in (
        f"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
        f"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
        f"{_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})",
    )
)
_FAR_YEARS = 50
"""A two-digit year that seems to be further ahead than this is one of the past century."""


def http_date(text: str, now: int) -> int | None:
    """Returns the seconds since the epoch of an HTTP date; None if `text` is not one.

    `now`, seconds since the epoch, gives a two-digit year its century.
    """
    match = next((match for form in _FORMS if (match := form.fullmatch(text))), None)
    if match is None:
        return None
    hour, minute, second = map(int, match["time"].split(":"))
    month, day = 1 + _MONTHS.index(match["month"].lower()), int(match["day"])
    try:
        year = int(match["year"]) if len(match["year"]) == 4 else _whole_year(int(match["year"]), now)
        # A leap second is the last second of its minute here: a datetime has no second 60.
        when = datetime(year, month, day, hour, minute, 59 if second == 60 else second, tzinfo=UTC)
        return int(when.timestamp())
    except (ValueError, OverflowError, OSError):
        return None


def _whole_year(two_digits: int, now: int) -> int:
    """Returns the last year with these digits that is at most `_FAR_YEARS` ahead."""
    furthest = datetime.fromtimestamp(now, UTC).year + _FAR_YEARS
    return furthest - (furthest - two_digits) % 100
