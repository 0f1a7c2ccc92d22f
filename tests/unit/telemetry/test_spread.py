"""Which keys are hot, over how many instances they are spread, and when they have cooled."""

from collections.abc import Mapping

import pytest

from cachesvc.telemetry.popularity.spread import (
    COOL_WINDOWS,
    ENOUGH,
    LAPSE_US,
    LONGEST_US,
    MOST,
    WINDOW_US,
    Spread,
)

HOT, WARM = 1, 2


class Instance:
    """One instance's judgement of windows of a thousand sampled reads."""

    def __init__(self, share: float = 0.1, instances: int = 4) -> None:
        self.spread = Spread(share, instances)
        self.now_us = LAPSE_US
        self.spread.judge(self.now_us)

    def window(self, shares: Mapping[int, float], *, reads: int = 1000, us: int = WINDOW_US) -> None:
        others = iter(range(1000, 1000 + reads))
        counts = {key: round(share * reads) for key, share in shares.items()}
        for key, count in counts.items():
            for _ in range(count):
                self.spread.note(key)
        for _ in range(reads - sum(counts.values())):
            self.spread.note(next(others))
        self.now_us += us
        self.spread.judge(self.now_us)

    def of(self, key: int = HOT) -> int:
        return self.spread.of(key, self.now_us)


def test_a_key_with_more_than_the_share_is_spread_and_one_with_less_is_not() -> None:
    here = Instance()
    here.window({HOT: 0.12, WARM: 0.09})
    assert (here.of(HOT), here.of(WARM)) == (2, 0)
    assert here.spread.keys(here.now_us) == 1


@pytest.mark.parametrize(
    ("share", "instances", "wanted"),
    [(0.11, 8, 2), (0.2, 8, 3), (0.3, 8, 4), (0.38, 8, 6), (0.63, 4, 4), (0.63, 100, 16), (1.0, 5, 5)],
)
def test_the_number_of_instances_follows_from_the_share(share: float, instances: int, wanted: int) -> None:
    here = Instance(instances=instances)
    here.window({HOT: share})
    assert here.of() == wanted
    if wanted < instances:
        left = share / wanted / (1 - share + share / wanted)
        assert left <= 0.1, "it has no more than the share of the reads of each of them"


def test_what_is_left_of_a_hot_key_does_not_make_it_look_cool() -> None:
    here = Instance()
    here.window({HOT: 0.3})
    assert here.of() == 4
    for _ in range(10):
        here.window({HOT: 0.3 / 4 / (0.7 + 0.3 / 4)})  # one read in four comes here now
        assert here.of() == 4


def test_it_has_cooled_after_three_windows_below_half_the_share() -> None:
    here = Instance()
    here.window({HOT: 0.3})
    cool = 0.04 / 4 / (0.96 + 0.04 / 4)
    for _ in range(COOL_WINDOWS - 1):
        here.window({HOT: cool})
        assert here.of() == 4
    here.window({HOT: cool})
    assert here.of() == 0
    assert not here.spread.hot


def test_a_window_above_half_the_share_begins_the_count_anew_and_nothing_goes_back_and_forth() -> None:
    here = Instance()
    here.window({HOT: 0.12})
    for nth in range(30):
        undivided = 0.04 if nth % 3 else 0.06
        here.window({HOT: undivided / 2 / (1 - undivided / 2)})
        assert here.of() == 2
    back = Instance()
    back.window({HOT: 0.06})
    assert back.of() == 0, "what is between half the share and the share stays as it was"


def test_the_number_grows_while_a_key_is_hot_and_does_not_shrink() -> None:
    here = Instance(instances=8)
    here.window({HOT: 0.2})
    assert here.of() == 3
    here.window({HOT: 0.5 / 3 / (0.5 + 0.5 / 3)})
    assert here.of() == 8
    here.window({HOT: 0.2 / 8 / (0.8 + 0.2 / 8)})
    assert here.of() == 8


def test_few_reads_spread_nothing_and_end_what_was_spread() -> None:
    here = Instance()
    here.window({HOT: 0.9}, reads=ENOUGH - 1)
    assert here.of() == 0
    here.window({HOT: 0.9}, reads=ENOUGH)
    assert here.of() == 4
    here.now_us += LAPSE_US
    assert here.of() == 0, "nobody has to come by for that"
    assert here.spread.keys(here.now_us) == 0
    here.window({HOT: 0.9}, reads=ENOUGH, us=1)
    assert not here.spread.hot, "a window that took too long counts for nothing"


def test_reads_are_too_few_by_what_would_come_here_and_not_by_what_is_left() -> None:
    here = Instance()
    here.window({HOT: 1.0}, reads=ENOUGH, us=LONGEST_US)
    assert here.of() == 4
    for _ in range(5):
        here.window({HOT: 1.0}, reads=ENOUGH // 4, us=LONGEST_US)  # all that comes here of it now
        assert here.of() == 4
    here.window({HOT: 1.0}, reads=ENOUGH // 4 - 1, us=LONGEST_US)
    assert here.of() == 0


def test_a_window_lasts_a_second_unless_it_is_full() -> None:
    here = Instance()
    here.window({HOT: 0.3}, us=WINDOW_US - 1)
    assert here.of() == 0
    full = Instance()
    full.window({HOT: 0.3}, reads=MOST, us=1)
    assert full.of() == 4


def test_a_clock_that_was_set_back_begins_anew() -> None:
    here = Instance()
    here.window({HOT: 0.3})
    here.now_us -= 3600 * WINDOW_US
    here.window({HOT: 0.3}, us=0)
    assert here.of() == 0
    here.window({HOT: 0.3})
    assert here.of() == 4


@pytest.mark.parametrize(("share", "instances"), [(0.0, 4), (0.1, 1), (0.1, 0)])
def test_without_a_share_or_another_instance_nothing_is_counted(share: float, instances: int) -> None:
    here = Instance(share, instances)
    here.window({HOT: 0.9})
    assert here.of() == 0
    assert repr(here.spread) == "<Spread [0 hot keys, 0 reads in the window]>"
