"""Scopes: their form, what they are for, and which one is within another."""

import pytest

from cachesvc.model.scope import EVERY, Action, Scope, fits


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("read:pages", Scope(Action.READ, "pages")),
        ("write:shop-*", Scope(Action.WRITE, "shop-*")),
        ("admin:*", Scope(Action.ADMIN, "*")),
        ("invalidate:pages:ws-*", Scope(Action.INVALIDATE, "pages", "ws-*")),
        ("invalidate:pages:a:b/ü", Scope(Action.INVALIDATE, "pages", "a:b/ü")),
    ],
)
def test_a_scope_is_read_and_written_in_one_form(text: str, scope: Scope) -> None:
    assert Scope.parse(text) == scope
    assert str(scope) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "read",
        "read:",
        ":pages",
        "reads:pages",
        "READ:pages",
        "read:Pages",
        "read:a*b",
        "read:**",
        "read:pages:",
        "read:pages:a*b",
        "read:pages:a b",
        "read: pages",
        "*:pages",
        "read:pages\n",
        "read:a,write:b",
    ],
)
def test_what_is_no_scope_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no scope: write one of read, write, "):
        Scope.parse(text)


@pytest.mark.parametrize(
    ("pattern", "name", "is_covered"),
    [
        ("pages", "pages", True),
        ("pages", "pages2", False),
        ("pages", EVERY, False),
        ("p*", "pages", True),
        ("p*", "p", True),
        ("p*", "q", False),
        ("p*", EVERY, False),
        (EVERY, "pages", True),
        (EVERY, EVERY, True),
        (EVERY, "", True),
    ],
)
def test_a_pattern_covers_names_that_begin_so(pattern: str, name: str, is_covered: bool) -> None:
    assert fits(pattern, name) is is_covered


@pytest.mark.parametrize(
    ("inner", "outer", "is_within"),
    [
        ("read:pages", "read:pages", True),
        ("read:pages", "read:p*", True),
        ("read:p*", "read:p*", True),
        ("read:pa*", "read:p*", True),
        ("read:p*", "read:pa*", False),
        ("read:*", "read:p*", False),
        ("read:p*", "read:pages", False),
        ("read:pages:ws-1", "read:pages", True),
        ("read:pages", "read:pages:ws-*", False),
        ("read:pages:ws-1*", "read:*:ws-*", True),
        ("write:pages", "read:pages", False),
    ],
)
def test_a_scope_is_within_another(inner: str, outer: str, is_within: bool) -> None:
    assert Scope.parse(inner).is_within(Scope.parse(outer)) is is_within
