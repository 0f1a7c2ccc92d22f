"""Values that say which write they are, and tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.commands.check.history import Announcement
from cachesvc.commands.check.load import tokens
from cachesvc.commands.check.load.sessions import Session
from cachesvc.commands.check.load.values import DamagedValueError, decode, encode
from cachesvc.model.entry import Key


@given(key=st.text(min_size=1, max_size=20), w=st.integers(0, 10**9))
def test_a_value_says_its_write(key: str, w: int) -> None:
    assert decode(key, encode(key, w)) == w


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"k",
        b"k:1",
        b"k:1:",
        encode("other", 1),
        encode("k", 1)[:-1],
        encode("k", 1).replace(b"1:", b"2:"),
        b"k:x:0",
        "k:١:0".encode(),
    ],
)
def test_what_is_no_value_of_the_key_is_refused(value: bytes) -> None:
    with pytest.raises(DamagedValueError):
        decode("k", value)


def test_tokens_read_back_and_merge_by_their_newest() -> None:
    pairs = {1: 10, 2**64 - 1: 20}
    assert tokens.read(tokens.write(pairs)) == pairs
    tokens.merge(pairs, {1: 5, 3: 7})
    assert pairs == {1: 10, 2**64 - 1: 20, 3: 7}


def test_half_a_pair_is_no_token() -> None:
    with pytest.raises(ValueError, match="no token"):
        tokens.read(tokens.write({1: 10})[:-4])


def announced(token: str, *writes: tuple[str, int]) -> Announcement:
    return Announcement("api", "eu", "eu/eu-a", writes, 0, 1, id="eu:1-0", token=token)


def test_a_session_sends_what_it_knows_of_the_keys_it_reads() -> None:
    session = Session("c0.1", "check")
    session.learn_write(announced(tokens.write({7: 70}), ("a", 3), ("b", 1)))
    session.learn_write(announced(tokens.write({7: 60}), ("a", 2)))
    session.learn_read("b", 500)
    assert tokens.read(session.token(["a"])) == {7: 70}
    assert tokens.read(session.token(["b"])) == {7: 70, Key.of("check", "b").digest: 499}
    assert session.token(["c"]) == ""
    assert (session.writes("a"), session.writes("c")) == ((("a", 3),), ())


def test_an_event_gives_a_session_nothing_to_send() -> None:
    session = Session("c0.1", "check")
    session.learn_write(announced("", ("a", 3)))
    assert (session.token(["a"]), session.writes("a")) == ("", ())
