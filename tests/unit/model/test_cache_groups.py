"""Tags as `Cache-Groups` carries them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.model import cache_groups

TAGS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=256)
NEAR_MISSES = st.text(max_size=40) | st.text(alphabet='"\\,; =?1:@%a-\t', max_size=40)


@pytest.mark.parametrize(
    ("field", "tags"),
    [
        ("", ()),
        ("   ", ()),
        ('"a"', ("a",)),
        ('  "a" ,\t"b"  ', ("a", "b")),
        ('"a", "b", "a"', ("a", "b")),
        ('"a, b", "\\"\\\\"', ("a, b", '"\\')),
        ('"a";x;y=1; z="q,", "b";t=tok/x;f=-1.5;bin=:aGk=:;ok=?1;at=@1659578233;d=%"caf%c3%a9"', ("a", "b")),
    ],
)
def test_the_tags_are_read_once_each_in_order_without_parameters(field: str, tags: tuple[str, ...]) -> None:
    assert cache_groups.parse(field) == tags


@pytest.mark.parametrize(
    ("field", "position"),
    [
        ("a", 0),
        ('"a" "b"', 4),
        ('"a",', 3),
        (',"a"', 0),
        ('"a",,"b"', 4),
        ('"a', 0),
        ('"a\\n"', 0),
        ('"ä"', 0),
        ('"a\x7f"', 0),
        ('"a";X', 3),
        ('"a";x=', 5),
        ('("a" "b")', 0),
        ('"a", 5', 5),
        ('""', 0),
        (f'"{"x" * 257}"', 0),
    ],
)
def test_what_is_not_a_list_of_tags_is_refused_at_its_position(field: str, position: int) -> None:
    with pytest.raises(ValueError, match=f"^at {position}:"):
        cache_groups.parse(field)


def test_more_tags_than_allowed_are_refused_and_repetitions_do_not_count() -> None:
    assert cache_groups.parse('"a", "b", "a"', max_tags=2) == ("a", "b")
    with pytest.raises(ValueError, match="more than 2 tags"):
        cache_groups.parse('"a", "b", "c"', max_tags=2)


@pytest.mark.parametrize("tag", ["", "ä", "a\n", "x" * 257])
def test_a_tag_the_field_cannot_carry_is_not_formatted(tag: str) -> None:
    with pytest.raises(ValueError, match=r"^tag 1:"):
        cache_groups.format(["fine", tag])


@given(st.lists(TAGS, unique=True, max_size=20))
def test_what_is_formatted_is_read_back(tags: list[str]) -> None:
    assert list(cache_groups.parse(cache_groups.format(tags))) == tags


@given(NEAR_MISSES)
def test_anything_is_tags_or_a_value_error(field: str) -> None:
    try:
        for tag in cache_groups.parse(field):
            cache_groups.check_tag(tag)
    except ValueError as error:
        assert str(error).startswith("at ")  # noqa: PT017 both outcomes are allowed, and each is checked
