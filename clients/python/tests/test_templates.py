"""A cached function's keys: one for each different call, checked when it is decorated."""

from datetime import date
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from cachesvc_client.values.templates import Naming
from hypothesis import given
from hypothesis import strategies as st


class Plan(Enum):
    FREE = "free"


def two(user: str, page: str) -> None: ...


def defaulted(user: int, lang: str = "en") -> None: ...


def only_keywords(*, user: int, lang: str = "en") -> None: ...


def told(user: int, ctx: object) -> None: ...


class Repository:
    plan = Plan.FREE

    def __init__(self, tenant: str | None) -> None:
        self.tenant = tenant

    def row(self, user: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "template", "args", "kwargs", "key"),
    [
        (defaulted, "u:{user}:{lang}", (7,), {}, "u:7:en"),
        (defaulted, "u:{user}:{lang}", (7, "de"), {}, "u:7:de"),
        (defaulted, "u:{user}:{lang}", (), {"lang": "fr", "user": 7}, "u:7:fr"),
        (only_keywords, "u:{user}:{lang}", (), {"user": 7}, "u:7:en"),
        (told, "u:{user}", (7,), {}, "u:7"),
        (Repository.row, "u:{self.tenant}:{user}", (Repository("a:b"), 7), {}, "u:a%3Ab:7"),
        (Repository.row, "{user}/{self.plan.value}", (Repository("a"), 7), {}, "7/free"),
        (two, "{{{user}}}:block:{page}", ("ws-7", "42"), {}, "{ws-7}:block:42"),
        (two, "{user}:{page}", ("a:b", "50%"), {}, "a%3Ab:50%25"),
        (two, "{user}:{page}", (Plan.FREE, True), {}, "free:True"),
        (
            two,
            "{user}:{page}",
            (date(2026, 1, 2), UUID(int=1)),
            {},
            "2026-01-02:00000000-0000-0000-0000-000000000001",
        ),
        (lambda: None, "all", (), {}, "all"),
    ],
)
def test_a_call_has_the_key_of_its_arguments(
    function: Any, template: str, args: tuple[Any, ...], kwargs: dict[str, Any], key: str
) -> None:
    assert Naming(function, template).key(args, kwargs) == key


@pytest.mark.parametrize(
    ("template", "more", "message"),
    [
        ("u:{user}:{page}:{lang}", {}, "no parameter 'lang'; it has user, page"),
        ("u:{user}", {}, r"add \{page\}, or say ignore=\['page'\]"),
        ("u:{user}{page}", {}, "side by side"),
        ("u:{user.id}:{page}", {}, "a parameter's name and nothing more"),
        ("u:{user:>8}:{page}", {}, "a parameter's name and nothing more"),
        ("u:{}:{page}", {}, "a parameter's name and nothing more"),
        ("u:{user", {}, "a brace that is meant is written twice"),
        ("{user}:{page}", {"tags": ["t:{team}"]}, "no parameter 'team'"),
        ("{user}:{page}", {"tags": "t"}, "tags: a list of them"),
        ("{user}:{page}", {"ignore": ["db"]}, "ignore: the function has no parameter 'db'"),
    ],
)
def test_a_mistake_is_told_when_the_function_is_decorated(
    template: str, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Naming(two, template, **more)


def test_a_parameter_on_which_no_result_depends_is_ignored_by_name() -> None:
    assert Naming(two, "u:{user}", tags=["p:{page}"], ignore=["page"]).key(("a", "b"), {}) == "u:a"


def test_the_context_is_the_last_parameter() -> None:
    def first(ctx: object, user: int) -> None: ...

    with pytest.raises(ValueError, match="ctx: the function's last parameter"):
        Naming(first, "{user}")


@pytest.mark.parametrize("value", [None, 1.5, object(), ["a"], b"a"])
def test_a_value_whose_text_is_not_itself_is_no_part_of_a_key(value: object) -> None:
    with pytest.raises(TypeError, match="can be part of a key"):
        Naming(two, "{user}:{page}").key((value, "x"), {})


def test_an_attribute_of_the_object_has_to_be_its_text() -> None:
    naming = Naming(Repository.row, "{self.tenant}:{user}")
    with pytest.raises(TypeError, match=r"self\.tenant is None: .* can be part of a key"):
        naming.key((Repository(None), 7), {})


def test_arguments_that_the_function_does_not_take_are_refused() -> None:
    with pytest.raises(TypeError, match="page"):
        Naming(two, "{user}:{page}").key(("a",), {})


TEXTS = st.text(alphabet="ab:-%{}x", min_size=1, max_size=6)


@given(
    st.sampled_from(["{user}:{page}", "{user}ab{page}", "{{{user}}}:x{page}x", "-{user}-:{page}:"]),
    TEXTS,
    TEXTS,
    TEXTS,
    TEXTS,
)
def test_two_different_calls_never_have_one_key(
    template: str, one: str, two_: str, three: str, four: str
) -> None:
    naming = Naming(two, template)
    assert (naming.key((one, two_), {}) == naming.key((three, four), {})) == ((one, two_) == (three, four))
