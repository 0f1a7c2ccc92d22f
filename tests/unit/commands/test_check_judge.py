"""Each check is broken by a history that breaks its rule by the least there is, and holds for the one beside it."""

import random

import pytest
from msgspec.structs import replace

from cachesvc.commands.check.history import Announcement, Fault, Fenced, Load, Read, Record, Run, Write
from cachesvc.commands.check.judge import NoRunError, judge
from tests.unit.commands.check_histories import (
    BOUND,
    INSTANCES,
    KEY,
    RUN,
    call,
    event,
    fenced,
    finding,
    merged,
    read,
    state,
    write,
)

HOLDS, VIOLATED, UNOBSERVED = "holds", "VIOLATED", "not observed"


class TestC0Real:
    def test_a_value_may_be_read_as_it_is_committed(self) -> None:
        assert state("C0", write(1, 11), read(1, 10)) == HOLDS

    def test_a_value_is_not_read_before_its_commit(self) -> None:
        assert state("C0", write(1, 12), read(1, 10)) == VIOLATED

    def test_what_was_never_written_is_not_read(self) -> None:
        assert state("C0", write(1, 1), read(2, 10)) == VIOLATED

    def test_before_the_first_write_there_is_version_0(self) -> None:
        assert state("C0", read(0, 10)) == HOLDS

    def test_bytes_that_are_no_value_of_the_key(self) -> None:
        assert state("C0", read(None, 10, reason="foreign")) == VIOLATED

    def test_a_read_that_showed_nothing_is_not_judged(self) -> None:
        assert state("C0", read(None, 10)) == UNOBSERVED


class TestC1AfterCalls:
    def test_the_instance_that_was_called_shows_the_write(self) -> None:
        assert state("C1", write(1, 1), call(1, 2, 5), read(0, 6)) == VIOLATED
        assert state("C1", write(1, 1), call(1, 2, 5), read(1, 6)) == HOLDS

    def test_a_newer_version_does_as_well(self) -> None:
        assert state("C1", write(1, 1), call(1, 2, 5), write(2, 5), read(2, 6)) == HOLDS

    def test_a_read_that_overlaps_the_call_owes_nothing(self) -> None:
        assert state("C1", write(1, 1), call(1, 2, 5), read(0, 5, ended=90)) == UNOBSERVED

    def test_another_instance_owes_nothing_without_waiting(self) -> None:
        assert state("C1", write(1, 1), call(1, 2, 5), read(0, 6, "eu/eu-b")) == UNOBSERVED

    def test_waiting_for_the_region_obliges_its_instances_and_no_others(self) -> None:
        history: list[Record] = [write(1, 1), call(1, 2, 5, wait="region")]
        assert state("C1", *history, read(0, 6, "eu/eu-b")) == VIOLATED
        assert state("C1", *history, read(0, 6, "us/us-a")) == UNOBSERVED

    def test_waiting_for_all_obliges_all(self) -> None:
        assert state("C1", write(1, 1), call(1, 2, 5, wait="global"), read(0, 6, "us/us-a")) == VIOLATED

    def test_a_wait_that_did_not_get_there_obliges_the_called_instance_only(self) -> None:
        history: list[Record] = [write(1, 1), call(1, 2, 5, wait="region", reached=False)]
        assert state("C1", *history, read(0, 6, "eu/eu-b")) == UNOBSERVED
        assert state("C1", *history, read(0, 6)) == VIOLATED

    def test_a_call_that_failed_promised_nothing(self) -> None:
        assert state("C1", write(1, 1), call(1, 2, 5, id=""), read(0, 6)) == UNOBSERVED

    def test_an_event_promises_no_instance_anything(self) -> None:
        assert state("C1", write(1, 1), event(1, 2, 5), read(0, 6)) == UNOBSERVED

    def test_a_cache_of_the_callers_own_merges_later(self) -> None:
        assert state("C1", write(1, 1), call(1, 2, 5), read(0, 6, tier="near")) == UNOBSERVED

    def test_absent_is_what_was_before_the_first_write(self) -> None:
        absent = read(None, 6, outcome="absent")
        assert state("C1", write(1, 1), call(1, 2, 5), absent) == VIOLATED

    def test_a_miss_shows_nothing(self) -> None:
        assert state("C1", write(1, 1), call(1, 2, 5), read(None, 6, outcome="miss")) == UNOBSERVED


class TestC2TheBound:
    def test_what_was_told_is_seen_after_the_bound_everywhere(self) -> None:
        history: list[Record] = [write(1, 1), event(1, 2, 5)]
        assert state("C2", *history, read(0, 5 + BOUND + 1, "us/us-a")) == VIOLATED
        assert state("C2", *history, read(1, 5 + BOUND + 1, "us/us-a")) == HOLDS

    def test_at_the_bound_the_old_value_may_be_read(self) -> None:
        assert state("C2", write(1, 1), event(1, 2, 5), read(0, 5 + BOUND)) == UNOBSERVED

    def test_a_write_that_nobody_told_of_is_not_owed(self) -> None:
        assert state("C2", write(1, 1), read(0, 10 * BOUND)) == UNOBSERVED

    def test_while_the_queue_is_down_a_write_is_owed_untold(self) -> None:
        history: list[Record] = [write(1, 1), event(1, 2, 99, failures=(4, 50))]
        assert state("C2", *history, read(0, 2 + BOUND + 1)) == VIOLATED
        assert state("C2", *history, read(0, 2 + BOUND)) == UNOBSERVED

    def test_between_the_outage_and_the_bound_after_the_acceptance_it_is_not(self) -> None:
        """The queue is back and says that nothing is missing; the write is still with its sender."""
        history: list[Record] = [write(1, 1), event(1, 2, 99, failures=(4, 50))]
        assert state("C2", *history, read(0, 49)) == VIOLATED
        assert state("C2", *history, read(0, 50)) == UNOBSERVED
        assert state("C2", *history, read(0, 99 + BOUND)) == UNOBSERVED
        assert state("C2", *history, read(0, 99 + BOUND + 1)) == VIOLATED

    def test_a_read_that_ends_after_the_outage_may_know_that_nothing_was_missing(self) -> None:
        """Its instance was stopped, say, and read the queue's heartbeat before it answered."""
        history: list[Record] = [write(1, 1), event(1, 2, 99, failures=(4, 50))]
        assert state("C2", *history, read(0, 30, ended=50)) == VIOLATED
        assert state("C2", *history, read(0, 30, ended=51)) == UNOBSERVED

    def test_a_queue_that_took_another_announcement_was_not_down(self) -> None:
        told = event(1, 2, 99, failures=(4, 50), failed_in=("eu",))
        other = event(2, 20, 30, id="eu:77-0")
        history: list[Record] = [write(1, 1), write(2, 19), told]
        assert state("C2", *history, read(0, 40)) == VIOLATED
        assert state("C2", *history, replace(other, region="eu"), read(0, 40)) == UNOBSERVED
        assert state("C2", *history, replace(other, region="us"), read(0, 40)) == VIOLATED

    def test_a_write_that_was_never_accepted_is_owed_up_to_its_last_failure(self) -> None:
        history: list[Record] = [write(1, 1), event(1, 2, 99, id="", failures=(4, 50))]
        assert state("C2", *history, read(0, 49)) == VIOLATED
        assert state("C2", *history, read(0, 50)) == UNOBSERVED

    def test_giving_up_is_no_failure_of_the_queue(self) -> None:
        assert state("C2", write(1, 1), event(1, 2, 99, id=""), read(0, 99)) == UNOBSERVED

    def test_an_instance_that_is_gone_tells_the_others_nothing(self) -> None:
        history: list[Record] = [write(1, 1), call(1, 2, 99, failures=(4, 50))]
        assert state("C2", *history, read(0, 49, "eu/eu-b")) == UNOBSERVED

    def test_an_instance_that_says_the_queue_is_down_is_believed(self) -> None:
        history: list[Record] = [write(1, 1), call(1, 2, 99, failures=(4, 50), queue_down=True)]
        assert state("C2", *history, read(0, 49, "eu/eu-b")) == VIOLATED

    def test_a_cache_of_the_callers_own_keeps_the_bound_too(self) -> None:
        assert state("C2", write(1, 1), event(1, 2, 5), read(0, 6 + BOUND, tier="near")) == VIOLATED


class TestC3AfterMerges:
    HISTORY = (write(1, 1), event(1, 2, 5), fenced(1, "7-1"), merged("7-1", 9))

    def test_an_instance_that_merged_the_fence_shows_the_write(self) -> None:
        assert state("C3", *self.HISTORY, read(0, 10)) == VIOLATED
        assert state("C3", *self.HISTORY, read(1, 10)) == HOLDS

    def test_a_read_that_started_with_the_merge_may_be_older(self) -> None:
        assert state("C3", *self.HISTORY, read(0, 9, ended=90)) == UNOBSERVED

    def test_an_instance_that_has_not_merged_it_owes_nothing(self) -> None:
        assert state("C3", *self.HISTORY, read(0, 10, "eu/eu-b")) == UNOBSERVED

    def test_a_position_short_of_the_fence_is_not_a_merge_of_it(self) -> None:
        """Positions are numbers: 7-10 comes after 7-9."""
        history: list[Record] = [write(1, 1), event(1, 2, 5), fenced(1, "7-10"), merged("7-9", 9)]
        assert state("C3", *history, read(0, 10)) == UNOBSERVED
        assert state("C3", *history, merged("8-0", 20), read(0, 10)) == UNOBSERVED
        assert state("C3", *history, merged("8-0", 20), read(0, 21)) == VIOLATED

    def test_a_position_reached_before_the_change_was_sent_is_of_an_earlier_stream(self) -> None:
        history: list[Record] = [write(1, 1), event(1, 5, 6), fenced(1, "7-1"), merged("9-0", 4)]
        assert state("C3", *history, read(0, 10)) == UNOBSERVED
        assert state("C3", *history, merged("9-0", 8), read(0, 10)) == VIOLATED

    def test_another_regions_stream_says_nothing(self) -> None:
        other = Fenced(id="eu:1-0", region="us", position="7-1")
        assert state("C3", write(1, 1), event(1, 2, 5), other, merged("7-1", 9), read(0, 10)) == UNOBSERVED

    def test_a_fence_published_again_is_owed_from_its_first_merge(self) -> None:
        assert state("C3", *self.HISTORY, fenced(1, "8-0"), read(0, 10)) == VIOLATED

    def test_the_guilty_is_named_and_proven_by_the_lines_that_matter(self) -> None:
        stale = read(0, 10, as_of=900)
        (violation,) = finding("C3", [*self.HISTORY, write(2, 3), read(1, 11), stale]).examples
        assert violation.proof == (*self.HISTORY, stale)
        guilty = (
            violation.key,
            violation.tier,
            violation.instance,
            violation.as_of,
            violation.shown,
            violation.owed,
        )
        assert guilty == ("k", "l1", "eu/eu-a", 900, 0, 1)
        assert (violation.fence, violation.fence_at) == ("eu:7-1", 1_000)
        assert (
            violation.says
            == "eu/eu-a answered version 0 of k from l1, 1 µs after it had merged the fence of version 1"
        )


class TestC4Tokens:
    def test_a_token_is_honoured_anywhere(self) -> None:
        assert state("C4", write(1, 1), read(0, 2, "us/us-a", token_writes=((KEY, 1),))) == VIOLATED
        assert state("C4", write(1, 1), read(1, 2, "us/us-a", token_writes=((KEY, 1),))) == HOLDS

    def test_the_newest_of_several_counts(self) -> None:
        assert state("C4", write(2, 1), read(1, 2, token_writes=((KEY, 2), (KEY, 1)))) == VIOLATED

    def test_a_token_of_another_key_asks_nothing(self) -> None:
        assert state("C4", read(0, 2, token_writes=(("other", 1),))) == UNOBSERVED


class TestC5Sessions:
    def test_a_session_never_goes_back(self) -> None:
        assert (
            state("C5", write(1, 1), read(1, 2, session="s"), read(0, 4, "us/us-a", session="s")) == VIOLATED
        )
        assert state("C5", write(1, 1), read(0, 2, session="s"), read(1, 4, "us/us-a", session="s")) == HOLDS

    def test_reads_that_overlap_owe_each_other_nothing(self) -> None:
        assert state("C5", write(1, 1), read(1, 2, session="s"), read(0, 3, session="s")) == UNOBSERVED

    def test_sessions_owe_each_other_nothing(self) -> None:
        assert (
            state("C5", write(1, 1), read(1, 2, session="s"), read(0, 4, session="t"), read(0, 6))
            == UNOBSERVED
        )


def load(lease: str, started: int, ended: int, *, stored: bool | None = True) -> Load:
    return Load(key=KEY, w=0, started=started, ended=ended, lease=lease, stored=stored)


class TestC6Leases:
    def test_stored_loads_under_two_leases_do_not_overlap(self) -> None:
        assert state("C6", load("a", 1, 5), load("b", 4, 9)) == VIOLATED
        assert state("C6", load("a", 1, 5), load("b", 5, 9)) == HOLDS

    def test_a_long_load_is_remembered_beyond_shorter_ones(self) -> None:
        assert finding("C6", [load("a", 1, 50), load("b", 2, 3), load("c", 40, 41)]).broken == 2

    def test_a_refused_fill_proves_that_its_lease_was_gone(self) -> None:
        assert state("C6", load("a", 1, 5, stored=False), load("b", 4, 9)) == HOLDS
        assert state("C6", load("a", 1, 5, stored=None), load("b", 4, 9)) == HOLDS

    def test_a_holder_may_ask_the_origin_twice(self) -> None:
        assert state("C6", load("a", 1, 5), load("a", 4, 9)) == HOLDS

    def test_loads_of_read_through_are_a_figure(self) -> None:
        assert state("C6", load("", 1, 5, stored=None), load("", 4, 9, stored=None)) == UNOBSERVED


class TestC7Deadlines:
    def test_a_read_ends_by_its_deadline_and_the_clients_grace(self) -> None:
        late, just = (read(0, 0, ended=ended, deadline_us=1_000) for ended in (1_101, 1_100))
        assert judge([RUN, late], grace_us=100).finding("C7").state == VIOLATED
        assert judge([RUN, just], grace_us=100).finding("C7").state == HOLDS

    def test_an_error_keeps_the_deadline_too(self) -> None:
        assert state("C7", read(None, 0, ended=900_000, deadline_us=1_000)) == VIOLATED

    def test_a_read_without_a_deadline_may_take_as_long_as_it_likes(self) -> None:
        assert state("C7", read(0, 0, ended=900_000)) == UNOBSERVED


class TestC8AfterTheLastFault:
    FAULT = Fault(what="redis killed", started=5, ended=10)
    AFTER = 10 + BOUND + 1

    def everywhere(self, w: int, started: int) -> list[Record]:
        return [read(w, started, instance) for instance in INSTANCES]

    def test_every_instance_shows_what_was_told_before_the_faults_end(self) -> None:
        history: list[Record] = [write(1, 1), event(1, 2, 10), self.FAULT]
        assert state("C8", *history, *self.everywhere(1, self.AFTER)) == HOLDS
        assert state("C8", *history, *self.everywhere(1, self.AFTER), read(0, self.AFTER)) == VIOLATED

    def test_an_instance_that_shows_nothing_has_not_been_seen_to_recover(self) -> None:
        history: list[Record] = [write(1, 1), event(1, 2, 10), self.FAULT, *self.everywhere(1, self.AFTER)]
        silent = finding("C8", [*history[:-1], read(None, self.AFTER, INSTANCES[-1])])
        assert silent.state == UNOBSERVED
        assert silent.unobserved == "no later read showed a value at us/us-a"

    def test_a_violation_stands_although_another_instance_was_silent(self) -> None:
        assert state("C8", write(1, 1), event(1, 2, 10), self.FAULT, read(0, self.AFTER)) == VIOLATED

    def test_until_the_bound_has_passed_nothing_is_asked(self) -> None:
        history: list[Record] = [
            write(1, 1),
            event(1, 2, 10),
            self.FAULT,
            *self.everywhere(0, self.AFTER - 1),
        ]
        assert state("C8", *history) == UNOBSERVED

    def test_it_is_the_last_of_the_faults_that_counts(self) -> None:
        later = Fault(what="memcached stopped", started=1, ended=30)
        history: list[Record] = [write(1, 1), event(1, 2, 10), later, self.FAULT]
        assert state("C8", *history, *self.everywhere(0, self.AFTER)) == UNOBSERVED

    def test_without_a_fault_there_is_nothing_to_recover_from(self) -> None:
        assert state("C8", write(1, 1), event(1, 2, 3), *self.everywhere(1, 500)) == UNOBSERVED


class TestC9StillACache:
    def mixture(self, near: int, far: int, started: int = 0) -> list[Record]:
        return [
            *(read(0, started, tier="l2") for _ in range(near)),
            *(read(0, started, tier="l3") for _ in range(far)),
        ]

    def test_more_than_four_in_five_reads_come_from_l1_and_l2(self) -> None:
        assert state("C9", *self.mixture(81, 19)) == HOLDS
        assert state("C9", *self.mixture(80, 20)) == VIOLATED

    def test_reads_that_failed_came_from_nowhere(self) -> None:
        assert state("C9", *self.mixture(80, 0), *(read(None, 0, tier="") for _ in range(20))) == VIOLATED

    def test_a_callers_own_cache_does_not_count(self) -> None:
        assert state("C9", *self.mixture(80, 20), *(read(0, 0, tier="near") for _ in range(900))) == VIOLATED

    def test_too_few_reads_say_nothing(self) -> None:
        assert state("C9", *self.mixture(0, 99)) == UNOBSERVED

    @pytest.mark.parametrize(
        ("started", "expected"), [(98, VIOLATED), (99, HOLDS), (150 + BOUND, HOLDS), (151 + BOUND, VIOLATED)]
    )
    def test_times_of_faults_and_of_recovery_are_left_out(self, started: int, expected: str) -> None:
        """Each read takes 1 µs: the one from 98 is over before the faults begin."""
        faults = [Fault(what="one", started=100, ended=150), Fault(what="two", started=110, ended=120)]
        assert state("C9", *faults, *self.mixture(100, 0), *self.mixture(0, 100, started)) == expected


def test_a_history_without_its_first_line_cannot_be_judged() -> None:
    with pytest.raises(NoRunError, match="no `run` record"):
        judge([read(0, 1)])


def test_an_empty_run_shows_nothing_to_hold() -> None:
    verdict = judge([RUN])
    assert verdict.broken == ()
    assert len(verdict.unobserved) == 11


def test_a_long_history_is_judged_in_one_pass() -> None:
    """Quadratic steps would take hours here."""
    dice = random.Random(1)
    versions: dict[str, int] = {}
    run = Run(seed=1, instances=INSTANCES, max_lag_us=20_000, heartbeat_us=5_000, skew_us=1_000)
    records: list[Record] = [run]
    for moment in range(0, 1_000_000, 10):
        key = f"k{dice.randrange(20)}"
        if dice.random() < 0.1:
            w = versions[key] = versions.get(key, 0) + 1
            records += _told(key, w, moment)
        else:
            records.append(_seen(dice, key, versions.get(key, 0), moment))
    assert len(records) > 100_000
    verdict = judge(records)
    assert verdict.broken == ()
    assert verdict.finding("C3").judged > 50_000


def _told(key: str, w: int, moment: int) -> list[Record]:
    told = Announcement(
        how="api",
        region="eu",
        instance="eu/eu-a",
        writes=((key, w),),
        started=moment,
        ended=moment + 5,
        id=f"eu:{moment}-0",
    )
    fence = Fenced(id=told.id, region="eu", position=f"{moment}-1")
    return [
        Write(key=key, w=w, committed=moment),
        told,
        fence,
        *(merged(fence.position, moment + 8, instance) for instance in INSTANCES),
    ]


def _seen(dice: random.Random, key: str, w: int, moment: int) -> Read:
    instance = dice.choice(INSTANCES)
    session = str(dice.randrange(50))
    return Read(
        instance=instance,
        key=key,
        started=moment,
        ended=moment + 5,
        outcome="hit",
        w=w,
        tier="l1",
        session=session,
        deadline_us=9,
    )


class TestC10PutsAreKept:
    def put(self, w: int, ended: int, **more: object) -> Announcement:
        return call(w, ended - 1, ended, how="put", **more)

    def test_the_next_read_at_its_instance_finds_the_value(self) -> None:
        assert state("C10", write(1, 1), self.put(1, 5), read(1, 6)) == HOLDS
        for outcome in ("miss", "absent", "loaded"):
            missed = read(1 if outcome == "loaded" else None, 6, outcome=outcome)
            assert state("C10", write(1, 1), self.put(1, 5), missed) == VIOLATED

    def test_few_of_many_may_be_missed(self) -> None:
        found = [read(1, 6 + n) for n in range(99)]
        assert state("C10", write(1, 1), self.put(1, 5), *found, read(None, 6, outcome="miss")) == HOLDS

    @pytest.mark.parametrize(
        "other",
        [
            read(None, 6, "eu/eu-b", outcome="miss"),
            read(None, 5, outcome="miss"),
            read(None, 6, outcome="error"),
            read(None, 6, outcome="miss", tier="near"),
            read(None, 1_000_006, outcome="miss"),
            read(None, 10, outcome="miss", ended=20),
        ],
        ids=["elsewhere", "before", "failed", "near", "later", "beside the next write"],
    )
    def test_other_reads_owe_nothing(self, other: Read) -> None:
        assert state("C10", write(1, 1), self.put(1, 5), write(2, 15), other) == UNOBSERVED

    def test_nor_do_reads_beside_a_fault(self) -> None:
        fault = Fault("x", 4, 5)
        assert state("C10", fault, write(1, 1), self.put(1, 5), read(None, 6, outcome="miss")) == UNOBSERVED

    def test_a_put_obliges_its_instance_as_a_call_does(self) -> None:
        assert state("C1", write(1, 1), self.put(1, 5), read(0, 6)) == VIOLATED
