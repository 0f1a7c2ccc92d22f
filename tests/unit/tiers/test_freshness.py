"""How long an origin's answer may be used, and how old it came."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from cachesvc.model.cache_control import Lifetimes
from cachesvc.model.clock import SECONDS
from cachesvc.model.use import EVERY_USE, Use
from cachesvc.tiers.origin.freshness import (
    LONGEST_RETRY_AFTER_SECONDS,
    Freshness,
    freshness_of,
    retry_after_seconds,
)
from tests.unit.tiers.test_http_date import WRONG_DATES

NOW_US = 784_111_777 * SECONDS
NOW = "Sun, 06 Nov 1994 08:49:37 GMT"
IN_A_MINUTE = "Sun, 06 Nov 1994 08:50:37 GMT"


def freshness(*fields: tuple[str, str]) -> Freshness:
    return freshness_of(CIMultiDictProxy(CIMultiDict(fields)), NOW_US)


def ttl_seconds(*fields: tuple[str, str]) -> float | None:
    ttl_us = freshness(*fields).lifetimes.ttl_us
    return None if ttl_us is None else ttl_us / SECONDS


def test_no_header_leaves_it_to_the_namespace() -> None:
    assert freshness() == Freshness(Lifetimes(), 0)


def test_expires_counts_from_the_origins_own_date() -> None:
    assert ttl_seconds(("Expires", IN_A_MINUTE), ("Date", NOW)) == 60
    assert ttl_seconds(("Expires", IN_A_MINUTE), ("Date", IN_A_MINUTE)) == 0


def test_expires_without_a_date_counts_from_now() -> None:
    assert (
        ttl_seconds(("Expires", IN_A_MINUTE))
        == ttl_seconds(("Expires", IN_A_MINUTE), ("Date", "lunchtime"))
        == 60
    )


@pytest.mark.parametrize(
    "expires",
    [
        *("0", "-1", "", "soon", "Sun, 99 Nov 1994 08:49:37 GMT", "Sat, 05 Nov 1994 08:49:37 GMT"),
        *WRONG_DATES,
    ],
)
def test_an_expires_that_is_no_date_or_has_passed_is_stale(expires: str) -> None:
    assert ttl_seconds(("Expires", expires)) == 0


def test_an_expires_given_twice_differently_is_stale() -> None:
    assert ttl_seconds(("Expires", IN_A_MINUTE), ("Expires", NOW)) == 0
    assert ttl_seconds(("Expires", IN_A_MINUTE), ("Expires", IN_A_MINUTE)) == 60


def test_max_age_wins_over_expires() -> None:
    assert ttl_seconds(("Expires", "0"), ("Cache-Control", "max-age=5")) == 5
    assert ttl_seconds(("Expires", IN_A_MINUTE), ("Cache-Control", "max-age=0")) == 0


def test_the_age_is_taken_off_the_ttl() -> None:
    aged = freshness(("Cache-Control", "max-age=60, stale-if-error=9"), ("Age", "20"))
    assert aged == Freshness(Lifetimes(40 * SECONDS, None, 9 * SECONDS), 20 * SECONDS)


def test_what_is_left_of_the_age_is_taken_off_the_windows_behind_the_ttl() -> None:
    aged = freshness(
        ("Cache-Control", "max-age=60, stale-while-revalidate=30, stale-if-error=90"), ("Age", "100")
    )
    assert aged.lifetimes == Lifetimes(0, 0, 50 * SECONDS)


@pytest.mark.parametrize(
    ("age", "seconds"), [("7, 9", 7), ("x", 0), ("-1", 0), ("1.5", 0), ("", 0), (" 8 ", 8)]
)
def test_of_an_age_the_first_member_counts_if_it_is_one(age: str, seconds: int) -> None:
    assert freshness(("Age", age)).age_us == seconds * SECONDS


ALONE = {"keep": False, "share": False}


@pytest.mark.parametrize(
    ("fields", "use"),
    [
        ((("Cache-Control", "no-store"),), Use(**ALONE, directives="no-store")),
        ((("Cache-Control", "no-store=1"),), Use(**ALONE, directives="no-store")),
        ((("Cache-Control", 'max-age="60, no-store'),), Use(**ALONE, directives="no-store")),
        ((("Cache-Control", "private"),), Use(**ALONE, directives="private, max-age=0")),
        ((("Cache-Control", 'private="set-cookie"'),), Use(**ALONE, directives="private, max-age=0")),
        ((("Cache-Control", "public, private, no-store"),), Use(**ALONE, directives="no-store, private")),
        (
            (("Cache-Control", "private"), ("Vary", "*")),
            Use(**ALONE, directives="no-store, private", varies=True),
        ),
        ((("Vary", "Accept, *"),), Use(**ALONE, directives="no-store", varies=True)),
        ((("Vary", "Accept"), ("Vary", "*")), Use(**ALONE, directives="no-store", varies=True)),
    ],
)
def test_what_may_not_be_kept_has_no_lifetime_and_is_for_one_reader(
    fields: tuple[tuple[str, str], ...], use: Use
) -> None:
    """Also not a stale one: the windows that a namespace has by default do not hold either."""
    found = freshness(
        *fields, ("Cache-Control", "max-age=60, s-maxage=60, stale-while-revalidate=9, stale-if-error=9")
    )
    assert found == Freshness(Lifetimes(0, 0, 0, storable=False), 0, use)
    assert freshness(*fields).lifetimes == found.lifetimes


def test_what_has_tags_that_are_not_known_is_used_as_what_may_not_be_stored() -> None:
    headers = CIMultiDictProxy(CIMultiDict({"Cache-Control": "max-age=60"}))
    found = freshness_of(headers, NOW_US, is_taggable=False)
    assert found == Freshness(Lifetimes(0, 0, 0, storable=False), 0, Use(**ALONE, directives="no-store"))


def test_no_cache_is_kept_to_be_validated_and_handed_on() -> None:
    found = freshness(("Cache-Control", "no-cache, max-age=60"), ("ETag", '"a"'))
    assert found == Freshness(Lifetimes(0, 0, 0), 0, Use(directives="no-cache"))


@pytest.mark.parametrize("vary", ["Accept-Encoding", "Cookie, Authorization"])
def test_an_answer_that_varies_on_headers_which_are_never_sent_is_used_as_any(vary: str) -> None:
    found = freshness(("Vary", vary), ("Cache-Control", "max-age=60"))
    assert (found.use, found.lifetimes.ttl_us) == (EVERY_USE, 60 * SECONDS)


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0", 1),
        ("86400", LONGEST_RETRY_AFTER_SECONDS),
        ("9" * 30, LONGEST_RETRY_AFTER_SECONDS),
        (IN_A_MINUTE, 60),
        ("Sat, 05 Nov 1994 08:49:37 GMT", 1),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_RETRY_AFTER_SECONDS),
        *((text, None) for text in ("", "soon", "-1", "1.5", "7, 8", "Sun, 06 Nov 1994 08:50:37 UTC")),
    ],
)
def test_a_retry_after_is_seconds_or_a_date_and_bounded(retry_after: str, seconds: int | None) -> None:
    headers = CIMultiDictProxy(CIMultiDict({"Retry-After": retry_after}))
    assert retry_after_seconds(headers, NOW_US) == seconds
    assert retry_after_seconds(CIMultiDictProxy(CIMultiDict()), NOW_US) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Cache-Control", "Expires", "Date", "Age", "Vary"]),
            st.text(max_size=40)
            | st.text(alphabet="SunNov 069:,-+GMT48", max_size=40)
            | st.sampled_from([NOW, "max-age=5"]),
        ),
        max_size=6,
    )
)
def test_any_headers_give_lifetimes_that_are_not_negative(fields: list[tuple[str, str]]) -> None:
    found = freshness(*fields)
    for us in (
        found.lifetimes.ttl_us,
        found.lifetimes.stale_for_us,
        found.lifetimes.error_for_us,
        found.age_us,
    ):
        assert us is None or us >= 0
