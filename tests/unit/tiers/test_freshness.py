"""How long an origin's answer may be used, and how old it came."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from cachesvc.model.cache_control import Lifetimes
from cachesvc.model.clock import SECONDS
from cachesvc.tiers.origin.freshness import Freshness, freshness_of, http_date

NOW_US = 784_111_777 * SECONDS
NOW = "Sun, 06 Nov 1994 08:49:37 GMT"
IN_A_MINUTE = "Sun, 06 Nov 1994 08:50:37 GMT"


def freshness(*fields: tuple[str, str]) -> Freshness:
    return freshness_of(CIMultiDictProxy(CIMultiDict(fields)), NOW_US)


def ttl_seconds(*fields: tuple[str, str]) -> float | None:
    ttl_us = freshness(*fields).lifetimes.ttl_us
    return None if ttl_us is None else ttl_us / SECONDS


@pytest.mark.parametrize("date", [NOW, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"])
def test_a_date_has_three_formats(date: str) -> None:
    assert http_date(date) == NOW_US // SECONDS


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
    "expires", ["0", "-1", "", "soon", "Sun, 99 Nov 1994 08:49:37 GMT", "Sat, 05 Nov 1994 08:49:37 GMT"]
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


def test_an_answer_that_varies_on_everything_is_stale_at_once() -> None:
    assert ttl_seconds(("Vary", "Accept, *"), ("Cache-Control", "max-age=60")) == 0
    assert ttl_seconds(("Vary", "Accept-Encoding"), ("Cache-Control", "max-age=60")) == 60


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
