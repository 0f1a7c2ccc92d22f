"""The rules for the text of a key."""

import pytest

from cachesvc.model.key_text import check_key


@pytest.mark.parametrize("text", ["a", "{ws-7}:block:42", "ключ", "a b", "\u00a0", "x" * 1024, "é" * 512])
def test_a_key_within_the_rules_is_itself(text: str) -> None:
    assert check_key(text) == text


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "a key has 1 to 1024 bytes, this one has 0"),
        ("x" * 1025, "a key has 1 to 1024 bytes, this one has 1025"),
        ("é" * 513, "a key has 1 to 1024 bytes, this one has 1026"),
        ("a\nb", "a key has no control characters: U\\+000A is one"),
        ("a\x9f", "a key has no control characters: U\\+009F is one"),
        ("\ud800", "a key is UTF-8, without lone surrogates"),
    ],
)
def test_any_other_is_refused_with_the_rule_it_breaks(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        check_key(text)
