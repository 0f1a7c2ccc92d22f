"""A list of a queue's followers keeps those that a restarted queue has forgotten."""

from cachesvc.changes.contract import FollowerPosition
from cachesvc.changes.redis.followers import Followers


def follower(name: str, position: str = "5-0", silent_seconds: float = 0) -> FollowerPosition:
    return FollowerPosition("eu", name, position, round(silent_seconds * 1_000_000))


def test_within_one_epoch_the_list_is_the_truth() -> None:
    followers = Followers()
    assert followers.known([follower("a"), follower("b")], "e1", 0) == [follower("a"), follower("b")]
    assert followers.known([follower("b")], "e1", 1) == [follower("b")]


def test_whom_the_server_forgot_has_read_nothing_of_the_new_stream() -> None:
    followers = Followers()
    followers.known([follower("a", silent_seconds=2), follower("b")], "e1", 0)
    assert followers.known([follower("b", "1-0")], "e2", 1) == [follower("b", "1-0"), follower("a", "0-0", 3)]
    assert followers.known([follower("b"), follower("a", "1-0")], "e2", 2) == [
        follower("b"),
        follower("a", "1-0"),
    ]
    assert followers.known([follower("b")], "e2", 3) == [follower("b")], "it came back, and signed off"


def test_who_does_not_come_back_is_forgotten_after_a_minute_of_silence() -> None:
    followers = Followers()
    followers.known([follower("a", silent_seconds=20)], "e1", 0)
    assert followers.known([], "e2", 39) == [follower("a", "0-0", 59)]
    assert followers.known([], "e2", 41) == []
