"""Text from elsewhere cannot move a cursor or a reader's eye."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.model.printable import printable, printable_in

ATTACKS = {
    "\x1b[2J\x1b[H": r"\x1b[2J\x1b[H",
    "\x9b31m": r"\x9b31m",
    "\u202etxt.exe": r"\u202etxt.exe",
    "\u2066a\u2069": r"\u2066a\u2069",
    "a\rb\x08": r"a\rb\x08",
    "\U000e0041": r"\U000e0041",
    "\ud800": r"\ud800",
    "line\nline": r"line\nline",
}


@pytest.mark.parametrize(("text", "shown"), ATTACKS.items())
def test_what_does_not_print_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable_in({"a": [text, 1, None, {text: (text,)}]}) == {"a": [shown, 1, None, {shown: [shown]}]}


def test_some_may_stay() -> None:
    assert printable("a\nb\t\x1b", keep="\n\t") == "a\nb\t\\x1b"


@given(st.text())
def test_the_result_prints_and_what_prints_is_left_alone(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    assert shown == text or not text.isprintable()
