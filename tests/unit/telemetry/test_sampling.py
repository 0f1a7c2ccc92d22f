import random
from itertools import pairwise

import pytest

from cachesvc.telemetry.traces.sampling import KEPT_PER_SECOND, Sampling

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"


def sampling(ratio: float) -> Sampling:
    return Sampling(ratio, 0.25, random.Random(7))


@pytest.mark.parametrize("ratio", [0.0, 0.01, 1.0])
def test_the_caller_decides_if_it_said_so(ratio: float) -> None:
    deciding = sampling(ratio)
    assert all(deciding.takes(TRACE + b"01") for _ in range(100))
    assert not any(deciding.takes(TRACE + b"00") for _ in range(100))


@pytest.mark.parametrize("ratio", [0.001, 0.01, 0.3, 0.9])
def test_else_the_share_taken_is_the_ratio(ratio: float) -> None:
    deciding = sampling(ratio)
    requests = 200_000
    taken = sum(deciding.takes(b"") for _ in range(requests))
    assert taken == pytest.approx(requests * ratio, rel=0.15)


def test_gaps_are_of_chance() -> None:
    """A regular gap would take the same request of a client's loop each time."""
    deciding = sampling(0.1)
    at = [number for number in range(10_000) if deciding.takes(b"")]
    assert len({later - earlier for earlier, later in pairwise(at)}) > 20


def test_none_and_all() -> None:
    assert not any(sampling(0).takes(b"") for _ in range(10_000))
    deciding = sampling(1)
    assert all(deciding.takes(b"") for _ in range(10_000))


def test_what_callers_decide_does_not_move_chance() -> None:
    alone, among = sampling(0.1), sampling(0.1)
    expected = [alone.takes(b"") for _ in range(1000)]
    found = []
    for _ in range(1000):
        among.takes(TRACE + b"00")
        found.append(among.takes(b""))
    assert found == expected


def test_the_tail_rule_keeps_so_many_in_a_second() -> None:
    deciding = sampling(0)
    assert [deciding.keeps(5.0) for _ in range(KEPT_PER_SECOND + 50)].count(True) == KEPT_PER_SECOND
    assert not deciding.keeps(5.99)
    assert deciding.keeps(6.0)
