"""`Cache-Control` is read as sent by an origin, by a reader and by a writer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.model.cache_control import (
    LONGEST_SECONDS,
    Directive,
    Lifetimes,
    lifetimes_of,
    parse,
    read_options_of,
    write_lifetimes_of,
)
from cachesvc.model.clock import SECONDS
from cachesvc.model.errors import RequestError
from cachesvc.model.requests import PLAIN, ReadOptions

FIELDS = st.text(max_size=60) | st.lists(
    st.sampled_from(
        [
            *'=,";\\ \t0',
            "9" * 5000,
            "max-age",
            "s-maxage",
            "max-stale",
            "min-fresh",
            "no-cache",
            "no-store",
            "private",
            "Only-If-Cached",
        ]
    ),
    max_size=12,
).map("".join)


def is_declared(error: RequestError) -> bool:
    return (error.status, error.kind, error.field) == (400, "bad-cache-control", "Cache-Control")


def bad(cache_control: str) -> str:
    with pytest.raises(RequestError) as raised:
        read_options_of(cache_control)
    assert is_declared(raised.value)
    return raised.value.detail


def origin(*lines: str) -> Lifetimes:
    return lifetimes_of(parse(lines))


def test_directives_are_read_in_order_over_all_lines_with_empty_members_skipped() -> None:
    assert parse(['Max-Age=5 ,, foo="a, \\"b"', "no-store"]) == [
        Directive("max-age", "5"),
        Directive("foo", 'a, "b'),
        Directive("no-store", None),
    ]


@pytest.mark.parametrize(
    "broken", ["max-age = 5", "max-age=", "max-age=5;x", "@, =5", 'max-age="5', '"max-age=5"']
)
def test_a_member_that_is_not_well_formed_is_reported_as_such(broken: str) -> None:
    assert not parse([broken])[0].well_formed


def test_an_unfinished_quotation_does_not_swallow_a_no_store_behind_it() -> None:
    assert not origin('max-age="60, no-store').storable


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], Lifetimes()),
        (["public, immutable"], Lifetimes()),
        (["max-age=60"], Lifetimes(60 * SECONDS)),
        (['MAX-AGE="60"'], Lifetimes(60 * SECONDS)),
        (["max-age=60", "max-age=60"], Lifetimes(60 * SECONDS)),
        (
            ["max-age=60, stale-while-revalidate=5, stale-if-error=7"],
            Lifetimes(60 * SECONDS, 5 * SECONDS, 7 * SECONDS),
        ),
        (["max-age=99999999999999999999"], Lifetimes(LONGEST_SECONDS * SECONDS)),
        (["max-age=0000000000000000000000060"], Lifetimes(60 * SECONDS)),
    ],
)
def test_an_origin_gives_lifetimes_or_leaves_them_to_the_namespace(
    lines: list[str], expected: Lifetimes
) -> None:
    assert origin(*lines) == expected


def test_s_maxage_wins_over_max_age_in_any_order_and_allows_no_stale_answer_by_itself() -> None:
    assert origin("s-maxage=5, max-age=9") == origin("max-age=9, s-maxage=5") == Lifetimes(5 * SECONDS, 0, 0)


def test_s_maxage_keeps_a_window_that_the_origin_gives_itself() -> None:
    assert origin("s-maxage=5, stale-while-revalidate=3") == Lifetimes(5 * SECONDS, 3 * SECONDS, 0)


@pytest.mark.parametrize("directive", ["no-store", "private", 'private="set-cookie"', "no-store=1"])
def test_no_store_and_private_are_not_storable(directive: str) -> None:
    assert not origin(f"max-age=60, {directive}").storable


@pytest.mark.parametrize("directive", ["no-cache", 'no-cache="set-cookie"'])
def test_no_cache_is_storable_and_never_fresh_nor_answered_stale(directive: str) -> None:
    assert origin(f"max-age=60, stale-if-error=60, {directive}") == Lifetimes(0, 0, 0)


@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate"])
def test_must_revalidate_leaves_the_ttl_and_ends_the_stale_windows(directive: str) -> None:
    assert origin(f"max-age=60, stale-while-revalidate=60, {directive}") == Lifetimes(60 * SECONDS, 0, 0)


@pytest.mark.parametrize(
    "lines",
    [
        ["max-age=60, max-age=90"],
        ["max-age=60", "max-age"],
        ["max-age"],
        ["max-age=1.5"],
        ["max-age=-1"],
        ["max-age=٣"],
    ],
)
def test_a_max_age_that_is_invalid_or_contradicts_itself_counts_as_stale(lines: list[str]) -> None:
    assert origin(*lines).ttl_us == 0


def test_an_invalid_stale_window_is_no_window() -> None:
    assert origin("max-age=60, stale-while-revalidate=soon").stale_for_us == 0


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("", PLAIN),
        ("no-transform, x-unknown=1", PLAIN),
        ("no-cache", ReadOptions(no_cache=True)),
        ("No-Cache, max-age=0", ReadOptions(no_cache=True, max_age_us=0)),
        ("no-store, only-if-cached", ReadOptions(no_store=True, only_if_cached=True)),
        ("max-age=60, max-age=60", ReadOptions(max_age_us=60 * SECONDS)),
        ("max-stale=5", ReadOptions(max_stale_us=5 * SECONDS)),
        ("max-stale", ReadOptions(max_stale_us=LONGEST_SECONDS * SECONDS)),
        ("min-fresh=5, max-age=10", ReadOptions(min_fresh_us=5 * SECONDS, max_age_us=10 * SECONDS)),
    ],
)
def test_a_reader_asks(asked: str, expected: ReadOptions) -> None:
    assert read_options_of(asked) == expected


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("max-age", "max-age"),
        ("max-age=soon", "max-age"),
        ("max-stale=-1", "max-stale"),
        ("min-fresh", "min-fresh"),
        ("no-cache=1", "no-cache"),
        ("max-age=1, max-age=2", "max-age"),
        ("max-age = 1", "max-age"),
        ("max-stale, max-stale=1", "max-stale"),
        ("only-if-cached, no-cache", "only-if-cached"),
        ("max-stale=5, no-cache", "max-stale"),
        ("max-stale=5, min-fresh=5", "min-fresh"),
    ],
)
def test_a_reader_who_contradicts_himself_is_told_what_is_wrong(asked: str, named: str) -> None:
    assert named in bad(asked)


def test_a_writer_may_pass_on_what_its_own_origin_said() -> None:
    assert write_lifetimes_of("max-age=60, stale-while-revalidate=5, stale-if-error=7, public") == Lifetimes(
        60 * SECONDS, 5 * SECONDS, 7 * SECONDS
    )
    assert write_lifetimes_of("s-maxage=5, max-age=60, must-revalidate") == Lifetimes(5 * SECONDS, 0, 0)


@pytest.mark.parametrize(
    "asked", ["no-store", "private, max-age=5", "max-age=soon", "max-age=1, max-age=2", "stale-if-error="]
)
def test_a_writer_is_told_what_cannot_be(asked: str) -> None:
    with pytest.raises(RequestError) as raised:
        write_lifetimes_of(asked)
    assert is_declared(raised.value)


@given(FIELDS)
def test_an_origin_can_say_anything(field: str) -> None:
    lifetimes = origin(field)
    for us in (lifetimes.ttl_us, lifetimes.stale_for_us, lifetimes.error_for_us):
        assert us is None or 0 <= us <= LONGEST_SECONDS * SECONDS


@given(FIELDS)
def test_a_reader_gets_options_or_the_declared_error(field: str) -> None:
    try:
        assert isinstance(read_options_of(field), ReadOptions)
    except RequestError as error:
        assert is_declared(error)  # noqa: PT017 both outcomes are allowed, and each is checked


@given(FIELDS)
def test_a_writer_gets_lifetimes_or_the_declared_error(field: str) -> None:
    try:
        assert write_lifetimes_of(field).storable
    except RequestError as error:
        assert is_declared(error)  # noqa: PT017 both outcomes are allowed, and each is checked
