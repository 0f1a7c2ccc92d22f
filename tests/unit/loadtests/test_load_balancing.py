"""Plain HTTP users are spread as a balancer spreads them."""

from loadtests.load.balancing import REST_SECONDS, Balancer


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_instances_take_turns() -> None:
    balancer = Balancer(["a", "b", "c"], Clock())
    assert "".join(balancer.pick() for _ in range(7)) == "abcabca"


def test_one_that_broke_a_connection_rests_and_comes_back() -> None:
    clock = Clock()
    balancer = Balancer(["a", "b", "c"], clock)
    balancer.broke("b")
    assert "".join(balancer.pick() for _ in range(4)) == "acac"
    clock.now = REST_SECONDS
    assert sorted(balancer.pick() for _ in range(3)) == ["a", "b", "c"]


def test_if_all_rest_the_one_that_has_rested_longest_is_asked() -> None:
    clock = Clock()
    balancer = Balancer(["a", "b"], clock)
    balancer.broke("b")
    clock.now = 0.1
    balancer.broke("a")
    assert balancer.pick() == "b"
