"""HTTP dates: three forms to the letter, and nothing else."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.tiers.origin.http_date import http_date

NOW = 784_111_777
WRONG_DATES = {
    "another name of the zone": "Sun, 06 Nov 2094 08:49:37 UTC",
    "another zone": "Sun, 06 Nov 2094 08:49:37 AEST",
    "a zone in numbers": "Sun, 06 Nov 2094 08:49:37 +0000",
    "no zone": "Sun, 06 Nov 2094 08:49:37",
    "two digits of the year": "Sun, 06 Nov 94 08:49:37 GMT",
    "no comma": "Sun 06 Nov 2094 08:49:37 GMT",
    "dashes in the date": "Sun, 06-Nov-2094 08:49:37 GMT",
    "periods in the time": "Sun, 06 Nov 2094 08.49.37 GMT",
    "one digit of the hour": "Sun, 06 Nov 2094 8:49:37 GMT",
    "one digit of the day": "Sun, 6 Nov 2094 08:49:37 GMT",
    "two spaces": "Sun, 06  Nov 2094 08:49:37 GMT",
    "no weekday": "06 Nov 2094 08:49:37 GMT",
    "a long weekday": "Sunday, 06 Nov 2094 08:49:37 GMT",
    "a long month": "Sun, 06 November 2094 08:49:37 GMT",
    "no such month": "Sun, 06 Nev 2094 08:49:37 GMT",
    "no such day": "Sun, 31 Nov 2094 08:49:37 GMT",
    "no such hour": "Sun, 06 Nov 2094 24:49:37 GMT",
    "no seconds": "Sun, 06 Nov 2094 08:49 GMT",
    "more behind it": "Sun, 06 Nov 2094 08:49:37 GMT, GMT",
    "an RFC 850 with four digits": "Sunday, 06-Nov-2094 08:49:37 GMT",
    "an RFC 850 with a short weekday": "Sun, 06-Nov-94 08:49:37 GMT",
    "an asctime with a zone": "Sun Nov  6 08:49:37 2094 GMT",
    "an asctime with one space": "Sun Nov 6 08:49:37 2094",
    "digits that are not ASCII": "Sun, ٠٦ Nov 2094 08:49:37 GMT",
    "ISO 8601": "2094-11-06T08:49:37Z",
}.values()


@pytest.mark.parametrize(
    "date",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "sun, 06 nov 1994 08:49:37 gmt",
        "SUNDAY, 06-NOV-94 08:49:37 GMT",
    ],
)
def test_a_date_has_three_forms_in_any_case(date: str) -> None:
    assert http_date(date, NOW) == NOW


@pytest.mark.parametrize("date", WRONG_DATES)
def test_every_other_spelling_is_no_date(date: str) -> None:
    assert http_date(date, NOW) is None


@pytest.mark.parametrize(
    ("year", "now", "whole"),
    [
        ("94", 1994, 1994),
        ("44", 1994, 2044),
        ("45", 1994, 1945),
        ("01", 2026, 2001),
        ("76", 2026, 2076),
        ("77", 2026, 1977),
    ],
)
def test_two_digits_of_a_year_are_at_most_fifty_years_ahead(year: str, now: int, whole: int) -> None:
    at = int(datetime(now, 6, 1, tzinfo=UTC).timestamp())
    found = http_date(f"Sunday, 06-Nov-{year} 08:49:37 GMT", at)
    assert found == int(datetime(whole, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp())


def test_a_leap_second_is_the_last_second_of_its_minute() -> None:
    assert http_date("Sat, 31 Dec 2016 23:59:60 GMT", NOW) == http_date("Sat, 31 Dec 2016 23:59:59 GMT", NOW)
    assert http_date("Sat, 31 Dec 2016 23:59:61 GMT", NOW) is None


@given(st.datetimes(min_value=datetime(1000, 1, 1)))
def test_what_is_written_is_read(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    text = moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert http_date(text, NOW) == int(moment.timestamp())
