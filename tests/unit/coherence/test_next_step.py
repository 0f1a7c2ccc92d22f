"""The next step of a read, rule by rule.

`tests/paths/test_next_step.py` compares reads and explanations with it.
"""

import pytest

from cachesvc.coherence.admission import Standing
from cachesvc.coherence.next_step import Action, CopySeen, Lease, WhoLoads, last_resort, next_step

FRESH, STALE, RESORT, DEAD, REFUSED = Standing
INSTANCE, CALLER, NOBODY = WhoLoads


def copy(
    tier: str, standing: Standing, as_of: int = 10, *, negative: bool = False, suits: bool = True
) -> CopySeen:
    return CopySeen(tier, standing, as_of, negative, suits)


@pytest.mark.parametrize(
    ("who", "lease", "action"),
    [
        (INSTANCE, Lease.FREE, Action.LOAD),
        (INSTANCE, Lease.HELD, Action.WAIT),
        (INSTANCE, Lease.UNAVAILABLE, Action.LOAD_WITHOUT_LEASE),
        (CALLER, Lease.FREE, Action.LEASE_TO_CALLER),
        (CALLER, Lease.HELD, Action.WAIT),
        (CALLER, Lease.UNAVAILABLE, Action.MISS),
        *((NOBODY, lease, Action.MISS) for lease in Lease),
    ],
)
@pytest.mark.parametrize("standing", [None, DEAD, REFUSED, RESORT])
def test_without_a_copy_to_answer_lease_and_loader_decide(
    standing: Standing | None, who: WhoLoads, lease: Lease, action: Action
) -> None:
    copies = [copy("l2", standing)] if standing else []
    assert next_step(copies, lease, who).action is action


@pytest.mark.parametrize("lease", Lease)
@pytest.mark.parametrize("who", WhoLoads)
def test_the_first_fresh_copy_is_answered(lease: Lease, who: WhoLoads) -> None:
    copies = [copy("l1", REFUSED), copy("l2", FRESH, 5), copy("l3", FRESH, 6)]
    assert next_step(copies, lease, who) == (Action.ANSWER, copies[1], None)


def test_a_stale_copy_in_l1_is_answered_before_a_fresh_one_beyond_it() -> None:
    copies = [copy("l1", STALE), copy("l2", FRESH)]
    assert next_step(copies, Lease.FREE, INSTANCE) == (Action.ANSWER_STALE, copies[0], None)


def test_a_stale_copy_beyond_l1_only_after_every_tier_was_asked_for_a_fresh_one() -> None:
    copies = [copy("l2", STALE, 20), copy("l3", FRESH, 10)]
    assert next_step(copies, Lease.FREE, INSTANCE) == (Action.ANSWER, copies[1], None)


@pytest.mark.parametrize("lease", Lease)
def test_of_stale_copies_the_newest_is_answered_and_of_two_as_new_the_farther(lease: Lease) -> None:
    copies = [copy("l2", STALE, 6), copy("l3", STALE, 5)]
    assert next_step(copies, lease, INSTANCE).copy == copies[0]
    copies = [copy("l2", STALE), copy("l3", STALE)]
    assert next_step(copies, lease, INSTANCE).copy == copies[1]
    copies = [copy("l2", STALE), copy("l3", REFUSED)]
    assert next_step(copies, lease, INSTANCE).copy == copies[0]


@pytest.mark.parametrize("newer", [RESORT, DEAD, REFUSED])
def test_a_stale_copy_is_not_answered_where_a_newer_one_was_seen(newer: Standing) -> None:
    copies = [copy("l2", STALE, 5), copy("l3", newer, 6)]
    assert next_step(copies, Lease.FREE, INSTANCE).action is Action.LOAD


def test_a_stale_absence_is_not_answered_and_a_fresh_one_is() -> None:
    for tier in ("l1", "l2"):
        assert next_step([copy(tier, STALE, negative=True)], Lease.FREE, INSTANCE).action is Action.LOAD
        assert next_step([copy(tier, FRESH, negative=True)], Lease.FREE, INSTANCE).action is Action.ANSWER


def test_a_caller_that_may_have_the_lease_gets_a_stale_copy_along_with_it() -> None:
    copies = [copy("l1", STALE)]
    assert next_step(copies, Lease.FREE, CALLER) == (Action.LEASE_TO_CALLER, copies[0], None)
    assert next_step(copies, Lease.HELD, CALLER) == (Action.ANSWER_STALE, copies[0], None)


@pytest.mark.parametrize("standing", [FRESH, STALE])
@pytest.mark.parametrize(
    ("who", "action"), [(INSTANCE, Action.LOAD), (CALLER, Action.MISS), (NOBODY, Action.MISS)]
)
def test_past_a_copy_that_does_not_suit_no_copy_is_answered(
    standing: Standing, who: WhoLoads, action: Action
) -> None:
    copies = [copy("l2", standing, suits=False)]
    lease = Lease.FREE if who is not CALLER else Lease.UNAVAILABLE
    assert next_step(copies, lease, who) == (action, None, None)


def test_past_a_copy_in_l1_that_does_not_suit_the_other_tiers_are_asked() -> None:
    copies = [copy("l1", FRESH, suits=False), copy("l2", FRESH)]
    assert next_step(copies, Lease.FREE, INSTANCE).copy == copies[1]


def test_a_reader_that_accepts_stale_copies_gets_one_from_l1_beyond_its_own_window() -> None:
    copies = [copy("l1", RESORT)]
    assert next_step(copies, Lease.FREE, INSTANCE, accepts_stale=True).action is Action.ANSWER_STALE
    assert next_step(copies, Lease.FREE, INSTANCE) == (Action.LOAD, None, copies[0])


def test_the_newest_copy_stands_in_for_an_origin_that_fails() -> None:
    assert last_resort([copy("l2", RESORT, 6), copy("l3", STALE, 5)]) == copy("l2", RESORT, 6)
    assert last_resort([copy("l2", RESORT, 5), copy("l3", DEAD, 6)]) is None
    assert last_resort([copy("l2", RESORT, suits=False)]) is None
    assert last_resort([copy("l2", RESORT, negative=True)]) is None
