"""A roll of a queue's readers keeps those that a restarted queue has forgotten."""

from cachesvc.changes.contract import ReaderPosition
from cachesvc.changes.redis.readers import Roll


def reader(name: str, position: str = "5-0", silent_seconds: float = 0) -> ReaderPosition:
    return ReaderPosition("eu", name, position, round(silent_seconds * 1_000_000))


def test_within_one_epoch_the_list_is_the_truth() -> None:
    roll = Roll()
    assert roll.call([reader("a"), reader("b")], "e1", 0) == [reader("a"), reader("b")]
    assert roll.call([reader("b")], "e1", 1) == [reader("b")]


def test_whom_the_server_forgot_has_read_nothing_of_the_new_stream() -> None:
    roll = Roll()
    roll.call([reader("a", silent_seconds=2), reader("b")], "e1", 0)
    assert roll.call([reader("b", "1-0")], "e2", 1) == [reader("b", "1-0"), reader("a", "0-0", 3)]
    assert roll.call([reader("b"), reader("a", "1-0")], "e2", 2) == [reader("b"), reader("a", "1-0")]
    assert roll.call([reader("b")], "e2", 3) == [reader("b")], "it came back, and signed off"


def test_who_does_not_come_back_is_forgotten_after_a_minute_of_silence() -> None:
    roll = Roll()
    roll.call([reader("a", silent_seconds=20)], "e1", 0)
    assert roll.call([], "e2", 39) == [reader("a", "0-0", 59)]
    assert roll.call([], "e2", 41) == []
