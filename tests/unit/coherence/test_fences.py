"""The rule of docs/coherence.md on one instance, with a clock that is turned by hand."""

import random

import pytest

from cachesvc.coherence.fence_sketch import FIRST_SLOTS
from cachesvc.coherence.fences import MOST_UNAPPLIED, Fences, FloorRaise, Known
from cachesvc.coherence.paced_fences import PacedWindow
from cachesvc.model.change import Target
from cachesvc.model.entry import Entry, Key, tag_digests_of
from cachesvc.model.fence import Fence
from tests.doubles.clocks import ManualClock

S = 100_000
KEY = Key.of("pages", "home")
OTHER = Key.of("pages", "about")
TAG = Target.tag("pages", "menu")
WHOLE = Target.whole("pages")


class Instance:
    """A `Fences` with its clock; times in the tests are µs after the clock's start."""

    def __init__(self, *regions: str) -> None:
        self.clock = ManualClock()
        self.start = self.clock.now_us()
        self.fences = Fences(self.clock, S, 1 << 16, regions or ("eu",), recent_us=3_000_000, placement=7)

    def entry(self, as_of: int, *tags: str) -> Entry:
        return Entry(
            b"v", self.start + as_of, self.start + 10**9, tags=tags, tag_digests=tag_digests_of("pages", tags)
        )

    def fence(self, at: int, *, soft: bool = False, unapplied: bool = False, own: bool = False) -> list[int]:
        return self.fences.merge([Fence(KEY.digest, self.start + at, soft, unapplied=unapplied)], own)

    def fence_tag(self, at: int, *, soft: bool = False, unapplied: bool = False) -> list[int]:
        return self.fences.merge([Fence(TAG.digest, self.start + at, soft, unapplied=unapplied)])

    def fence_all(self, at: int, *, soft: bool = False, unapplied: bool = False) -> list[int]:
        return self.fences.merge([Fence(WHOLE.digest, self.start + at, soft, "pages", unapplied)])

    def admits(self, entry: Entry) -> bool:
        return self.fences.admits(entry, KEY.digest, "pages", self.clock.now_us())

    def exact_admits(self, entry: Entry) -> bool:
        return self.fences.exact_admits(entry, KEY.digest, "pages", self.clock.now_us())

    def soft_fenced(self, entry: Entry) -> bool:
        return self.fences.is_soft_fenced(entry, KEY.digest, "pages", self.clock.now_us())


@pytest.fixture
def here() -> Instance:
    return Instance()


class TestTheRule:
    def test_without_a_fence_a_copy_is_admissible(self, here: Instance) -> None:
        assert here.admits(here.entry(0))
        assert here.admits(here.entry(0, "menu", "footer"))

    def test_a_copy_must_be_later_than_the_fence_on_its_key(self, here: Instance) -> None:
        here.fence(10)
        assert [here.admits(here.entry(as_of)) for as_of in (9, 10, 11)] == [False, False, True]

    def test_a_copy_must_be_later_than_the_fence_on_each_of_its_tags(self, here: Instance) -> None:
        here.fence_tag(10)
        assert [here.admits(here.entry(as_of, "footer", "menu")) for as_of in (10, 11)] == [False, True]
        assert here.admits(here.entry(1, "footer"))

    def test_a_copy_must_be_later_than_the_fence_on_its_namespace(self, here: Instance) -> None:
        here.fence_all(10)
        assert [here.admits(here.entry(as_of)) for as_of in (10, 11)] == [False, True]
        assert here.fences.admits(here.entry(1), Key.of("posts", "home").digest, "posts", here.clock.now_us())

    def test_a_copy_must_be_later_than_the_floor(self, here: Instance) -> None:
        here.fences.raise_floor(here.start + 10)
        assert [here.admits(here.entry(as_of)) for as_of in (10, 11)] == [False, True]

    def test_the_floor_is_never_lowered(self, here: Instance) -> None:
        here.fences.raise_floor(here.start + 10)
        here.fences.raise_floor(here.start + 5)
        assert here.fences.floor == here.start + 10

    def test_a_fence_on_one_key_leaves_others_alone(self, here: Instance) -> None:
        here.fence(10)
        assert here.fences.admits(here.entry(1), OTHER.digest, "pages", here.clock.now_us())

    def test_an_old_fence_replayed_after_a_newer_one_changes_nothing(self, here: Instance) -> None:
        for at in (20, 10):
            here.fence(at)
            here.fence_all(at)
        assert [here.admits(here.entry(as_of)) for as_of in (20, 21)] == [False, True]

    def test_a_copy_from_more_than_3_skews_ahead_is_refused(self, here: Instance) -> None:
        """Trace 14: an instance's clock that is ahead must not give its copies a head start over fences."""
        assert here.admits(here.entry(3 * S))
        assert not here.admits(here.entry(3 * S + 1))
        assert not here.exact_admits(here.entry(3 * S + 1))

    def test_a_fence_from_the_far_future_is_merged_as_4_skews_ahead_and_counted(self, here: Instance) -> None:
        """Trace 24: a clock a day ahead must not make things uncachable for a day."""
        here.fence(86_400_000_000)
        here.fence_all(86_400_000_000)
        here.clock.advance(us=2 * S)
        assert [here.admits(here.entry(as_of)) for as_of in (4 * S, 4 * S + 1)] == [False, True]
        assert here.fences.statistics().clamped == 2

    def test_a_fence_4_skews_ahead_is_taken_as_it_is(self, here: Instance) -> None:
        here.fence(4 * S)
        assert here.fences.fence_on(KEY.digest, (), "pages") == here.start + 4 * S
        assert here.fences.statistics().clamped == 0


class TestMerging:
    def test_keys_and_tags_are_returned_to_have_their_flights_forgotten(self, here: Instance) -> None:
        fences = [
            Fence(KEY.digest, 1),
            Fence(WHOLE.digest, 1, namespace="pages"),
            Fence(TAG.digest, 1, soft=True),
        ]
        assert here.fences.merge(fences) == [KEY.digest, TAG.digest]

    def test_merges_are_numbered_and_own_ones_counted(self, here: Instance) -> None:
        here.fence(1)
        here.fence(2, own=True)
        assert here.fences.merged == 2
        assert here.fences.statistics().own == 1

    def test_a_replayed_fence_is_a_merge_like_any_other(self, here: Instance) -> None:
        """Two tag fences of two issuers may carry the same time: the second is as much a reason to load again as the first."""
        here.fence_tag(1)
        here.fence_tag(1)
        assert here.fences.merged_between(1, 2, [TAG.digest])

    def test_only_merges_between_lease_and_start_concern_an_answer(self, here: Instance) -> None:
        """Trace 4: a read that joins a load must not be answered by it if a fence was merged before the read began."""
        asked = here.fences.merged
        here.fence_tag(1)
        started = here.fences.merged
        here.fence(2)
        assert here.fences.merged_between(asked, started, [KEY.digest, TAG.digest])
        assert not here.fences.merged_between(asked, started, [KEY.digest])

    def test_a_namespace_fence_concerns_an_answer_by_the_namespace_digest(self, here: Instance) -> None:
        here.fence_all(1)
        assert here.fences.merged_between(0, 1, [WHOLE.digest])

    def test_merges_are_forgotten_after_the_longest_load(self, here: Instance) -> None:
        here.fence(1)
        here.clock.advance(seconds=4)
        here.fence_tag(1)
        assert here.fences.statistics().recent == 1
        assert here.fences.merged_between(0, 1, [OTHER.digest]), "forgotten, so possible"
        assert not here.fences.merged_between(1, 2, [OTHER.digest])

    def test_a_burst_above_capacity_is_forgotten_by_count(self, here: Instance) -> None:
        for start in range(0, 100_000, 5_000):
            here.fences.merge([Fence(number << 20, number) for number in range(start, start + 5_000)])
        statistics = here.fences.statistics()
        assert (statistics.merged, statistics.recent) == (100_000, 1 << 16)

    def test_a_flood_at_once_is_numbered_and_not_remembered(self, here: Instance) -> None:
        here.fences.merge([Fence(number << 20, number) for number in range(100_000)])
        statistics = here.fences.statistics()
        assert (statistics.merged, statistics.recent) == (100_000, 0)
        assert here.fences.merged_between(99_999, 100_000, [1]), "what is not known is answered yes"


class TestUnapplied:
    def test_a_copy_judged_at_home_is_exempt_from_sketch_and_floor(self, here: Instance) -> None:
        here.fence(10)
        here.fence_tag(10)
        here.fences.raise_floor(here.start + 10)
        assert here.exact_admits(here.entry(1, "menu"))

    def test_an_unapplied_fence_is_checked_on_a_copy_judged_at_home(self, here: Instance) -> None:
        here.fence(10, unapplied=True)
        assert [here.exact_admits(here.entry(as_of)) for as_of in (10, 11)] == [False, True]
        assert not here.admits(here.entry(10))

    def test_on_tags_and_namespace_too(self, here: Instance) -> None:
        here.fence_tag(10, unapplied=True)
        here.fence_all(20, unapplied=True)
        assert [here.exact_admits(here.entry(as_of, "menu")) for as_of in (20, 21)] == [False, True]
        assert (
            here.fences.exact_fence_on(KEY.digest, tag_digests_of("pages", ("menu",)), "posts")
            == here.start + 10
        )

    def test_it_is_kept_until_a_fence_says_that_it_was_applied(self, here: Instance) -> None:
        here.fence(10, unapplied=True)
        here.fence(10)
        assert here.exact_admits(here.entry(1))
        assert not here.admits(here.entry(1))

    def test_the_application_of_an_earlier_change_does_not_end_it(self, here: Instance) -> None:
        here.fence(10, unapplied=True)
        here.fence(20, unapplied=True)
        here.fence(15)
        assert not here.exact_admits(here.entry(20))

    def test_an_older_unapplied_fence_does_not_lower_it(self, here: Instance) -> None:
        here.fence(20, unapplied=True)
        here.fence(10, unapplied=True)
        assert not here.exact_admits(here.entry(20))

    def test_it_outlives_no_copy_in_l3(self, here: Instance) -> None:
        here.fence(10, unapplied=True)
        here.clock.advance(seconds=3600)
        here.fence_tag(3_600_000_000, unapplied=True)
        assert here.fences.statistics().unapplied == 2
        here.clock.advance(us=11)
        here.fence_tag(3_600_000_001, unapplied=True)
        assert here.fences.statistics().unapplied == 1

    def test_soft_fences_are_never_unapplied_refusals(self, here: Instance) -> None:
        here.fence(10, soft=True, unapplied=True)
        assert here.exact_admits(here.entry(1))
        assert here.soft_fenced(here.entry(1))


class TestSoft:
    def test_a_copy_behind_a_soft_fence_is_stale_and_stays_admissible(self, here: Instance) -> None:
        here.fence(10, soft=True)
        assert [here.soft_fenced(here.entry(as_of)) for as_of in (10, 11)] == [True, False]
        assert here.admits(here.entry(1))

    def test_on_tags_and_namespace_too(self, here: Instance) -> None:
        here.fence_tag(10, soft=True)
        assert [here.soft_fenced(here.entry(as_of, "menu")) for as_of in (10, 11)] == [True, False]
        here.fence_all(20, soft=True)
        assert [here.soft_fenced(here.entry(as_of)) for as_of in (20, 21)] == [True, False]
        assert here.admits(here.entry(1, "menu"))

    def test_a_hard_fence_is_not_a_soft_one(self, here: Instance) -> None:
        here.fence(10)
        assert not here.soft_fenced(here.entry(1))
        here.fence_tag(5, soft=True)
        assert not here.soft_fenced(here.entry(1))


class TestOtherPlacements:
    """A fence applied in the homes of another placement than ours: our home cells may not have it."""

    def test_it_is_kept_as_unapplied(self, here: Instance) -> None:
        here.fences.merge([Fence(KEY.digest, here.start + 10, placement=8)])
        counts = 10 + S + 1000  # its home's clock may be S behind that of ours
        assert [here.exact_admits(here.entry(as_of)) for as_of in (counts, counts + 1)] == [False, True]
        assert here.fences.exact_fence_on(KEY.digest, (), "pages") == here.start + counts

    def test_one_of_our_own_placement_or_of_none_is_not(self, here: Instance) -> None:
        here.fences.merge(
            [Fence(KEY.digest, here.start + 10, placement=7), Fence(TAG.digest, here.start + 10)]
        )
        assert here.exact_admits(here.entry(10, "menu"))

    def test_a_later_one_of_our_own_ends_it(self, here: Instance) -> None:
        here.fences.merge([Fence(KEY.digest, here.start + 10, placement=8)])
        here.fences.merge([Fence(KEY.digest, here.start + 10 + S + 1000, placement=7)])
        assert here.exact_admits(here.entry(1)), "our home has judged it"


class TestPacedFences:
    OVER = 1_000_000

    def pace(self, here: Instance, digest: int = WHOLE.digest, namespace: str = "pages") -> int:
        """The moment of KEY, in µs after the start."""
        here.fences.merge([Fence(digest, here.start, namespace=namespace, over=self.OVER)])
        return KEY.digest * self.OVER >> 64

    @pytest.mark.parametrize("target", [WHOLE, TAG, Target.key("pages", "home")])
    def test_a_copy_becomes_stale_at_the_moment_of_its_key_and_not_before(
        self, here: Instance, target: Target
    ) -> None:
        moment = self.pace(here, target.digest, "pages" if target is WHOLE else "")
        copy = here.entry(0, "menu")
        here.clock.advance(us=moment - 1)
        assert not here.soft_fenced(copy)
        here.clock.advance(us=1)
        assert here.soft_fenced(copy)
        assert here.admits(copy), "stale, not gone"
        assert not here.soft_fenced(here.entry(1, "menu")), "filled since"

    def test_a_copy_that_its_home_vouches_for_too(self, here: Instance) -> None:
        here.clock.advance(us=self.pace(here))
        now = here.clock.now_us()
        assert here.fences.is_paced_stale(here.entry(0), KEY.digest, "pages", now)
        assert not here.fences.is_paced_stale(here.entry(0), KEY.digest, "posts", now)

    def test_another_window_does_not_make_fresh_again_what_the_first_made_stale(self, here: Instance) -> None:
        here.clock.advance(us=self.pace(here))
        here.fences.merge([Fence(WHOLE.digest, here.clock.now_us(), namespace="pages", over=self.OVER)])
        assert here.soft_fenced(here.entry(0))

    def test_it_is_remembered_until_no_tier_can_hold_what_it_concerns(self, here: Instance) -> None:
        self.pace(here)
        for elapsed, remembered in ((3_600_000_000 + self.OVER, 2), (1, 2)):
            here.clock.advance(us=elapsed)
            here.fences.merge([Fence(OTHER.digest + elapsed, here.clock.now_us(), over=self.OVER)])
            assert here.fences.statistics().paced == remembered, "the second push finds the first window over"


class TestSeeingInside:
    def test_what_is_known_of_a_target(self, here: Instance) -> None:
        here.fences.merge(
            [Fence(KEY.digest, here.start + 5, unapplied=True), Fence(KEY.digest, here.start + 7, soft=True)]
        )
        here.fences.merge(
            [Fence(WHOLE.digest, here.start + 3, namespace="pages"), Fence(KEY.digest, here.start, over=9)]
        )
        assert here.fences.known(KEY.digest) == Known(
            here.start + 5, here.start + 7, here.start + 5, (PacedWindow(here.start, here.start, 9),)
        )
        assert here.fences.known(WHOLE.digest, "pages") == Known(here.start + 3, 0, 0, ())

    def test_when_and_from_where_a_fence_came(self, here: Instance) -> None:
        here.fences.merge([Fence(KEY.digest, here.start)], region="us")
        here.clock.advance(us=10)
        here.fences.merge([Fence(KEY.digest, here.start)], own=True)
        (merged,) = here.fences.log.of(KEY.digest)
        assert (merged.region, merged.merged_at) == ("us", here.start)

    def test_why_the_floor_stands_where_it_does(self, here: Instance) -> None:
        assert here.fences.floor_raise is None
        here.fences.raise_floor(here.start + 10, lost=True)
        here.fences.raise_floor(here.start + 5)
        assert here.fences.floor_raise == FloorRaise(here.start + 10, lost=True)


class TestLag:
    def test_a_region_that_was_not_read_yet_has_watermark_minus_infinity(self) -> None:
        here = Instance("eu", "us")
        here.fences.heartbeat("eu", here.start)
        assert here.fences.watermark == 0
        assert here.fences.bound_us(here.clock.now_us()) == here.start

    def test_the_slowest_feed_decides_and_goes_forward_only(self) -> None:
        here = Instance("eu", "us")
        for region, at in (("eu", 50), ("us", 20), ("us", 10)):
            here.fences.heartbeat(region, here.start + at)
        assert here.fences.watermark == here.start + 20

    def test_without_heartbeats_the_bound_grows(self, here: Instance) -> None:
        here.fences.heartbeat("eu", here.start)
        here.fence(1)
        here.clock.advance(seconds=7)
        assert here.fences.bound_us(here.clock.now_us()) == 7_000_000

    def test_a_heartbeat_from_the_future_hides_no_staleness(self, here: Instance) -> None:
        here.fences.heartbeat("eu", here.start + 86_400_000_000)
        assert here.fences.watermark == here.start + S
        assert here.fences.bound_us(here.clock.now_us()) == 0
        assert here.fences.statistics().clamped == 1

    def test_within_the_bound_age_does_not_matter(self, here: Instance) -> None:
        here.fences.heartbeat("eu", here.start)
        assert here.fences.within_lag(here.entry(-(10**9)), here.start + 2_000_000, max_lag_us=2_000_000)

    def test_above_the_bound_only_a_young_copy_is_answered(self, here: Instance) -> None:
        """Trace 17: with the feed lost the tiers act as a micro-cache."""
        here.fences.heartbeat("eu", here.start)
        now = here.start + 2_000_001
        assert [here.fences.within_lag(here.entry(as_of), now, 2_000_000) for as_of in (1, 2)] == [
            False,
            True,
        ]

    def test_an_unknown_region_is_a_mistake_of_the_caller(self, here: Instance) -> None:
        with pytest.raises(KeyError):
            here.fences.heartbeat("mars", 1)

    def test_fences_without_a_feed_are_refused(self) -> None:
        with pytest.raises(ValueError, match="region"):
            Fences(ManualClock(), S, 16, (), 1)


class TestNotBefore:
    def test_the_newest_fence_on_key_tags_and_namespace(self, here: Instance) -> None:
        here.fence(10)
        assert here.fences.fence_on(KEY.digest, (TAG.digest,), "pages") == here.start + 10
        here.fence_tag(20)
        assert here.fences.fence_on(KEY.digest, (TAG.digest,), "pages") == here.start + 20
        here.fence_all(30)
        assert here.fences.fence_on(KEY.digest, (TAG.digest,), "pages") == here.start + 30

    def test_nothing_known_is_zero(self, here: Instance) -> None:
        assert here.fences.fence_on(KEY.digest, (), "pages") == 0
        assert here.fences.exact_fence_on(KEY.digest, (), "pages") == 0

    def test_what_is_refused_here_is_a_miss_at_home(self, here: Instance) -> None:
        """Trace 19: without it the reader would get, and refuse, the same copy for ever."""
        here.fence(10)
        here.fence_tag(20)
        refused = here.entry(15, "menu")
        assert not here.admits(refused)
        assert refused.as_of <= here.fences.fence_on(KEY.digest, refused.tag_digests, "pages")


def test_the_estimate_follows_the_rate_of_fences(here: Instance) -> None:
    """`(1 - e**(-rT/slots))**2` for 65,536 random fences in 65,536 slots is 0.40, once they are older than the entry it is 0."""
    rng = random.Random(5)
    here.fences.merge([Fence(rng.getrandbits(64), here.start) for _ in range(1 << 16)])
    assert here.fences.estimate() == pytest.approx(0.40, abs=0.05)
    here.clock.advance(seconds=601)
    assert here.fences.estimate() == 0


def test_its_state_is_told_in_one_line() -> None:
    here = Instance()
    here.fence(1, unapplied=True)
    assert repr(here.fences) == "<Fences [1 merged, 1 unapplied, floor 0, watermark 0]>"


def test_a_hundred_thousand_unapplied_fences_are_bounded_and_the_oldest_are_given_up() -> None:
    """With a plain dict each of them looked for the oldest through all places that were free."""
    clock = ManualClock()
    fences = Fences(clock, 100_000, 1 << 12, ["eu"], 1_000_000)
    now = clock.now_us()
    for start in range(0, 100_000, 1000):
        fences.merge([Fence(target, now + start, unapplied=True) for target in range(start, start + 1000)])
    assert fences.statistics().unapplied == MOST_UNAPPLIED
    assert fences.known(99_999).unapplied == now + 99_000
    assert fences.known(0).unapplied == 0


def test_the_sketches_follow_the_fences_of_the_longest_time_that_a_copy_is_kept() -> None:
    clock, hour = ManualClock(), 3_600_000_000
    fences, rng = Fences(clock, S, 1 << 21, ("eu",), recent_us=1, unapplied_us=hour), random.Random(1)

    def slots_after(*, hours: int, each: int) -> int:
        for _ in range(hours * 20):
            clock.advance(us=hour // 20)
            batch = [Fence(rng.getrandbits(64), clock.now_us()) for _ in range(each // 20)]
            fences.merge(batch)
            assert all(fences.known(fence.digest).hard == clock.now_us() for fence in batch)
        return fences.statistics().sketch_bytes // 16 - FIRST_SLOTS

    assert slots_after(hours=3, each=6_000) == FIRST_SLOTS
    assert slots_after(hours=2, each=20_000) == 1 << 18
    assert slots_after(hours=3, each=20_000) == 1 << 18, "it does not go on"
