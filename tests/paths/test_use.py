"""The uses of a loaded answer: who may have it, and what becomes of older copies."""

import asyncio

import pytest

from cachesvc.model.clock import SECONDS
from cachesvc.model.entry import Key
from cachesvc.model.errors import OriginError, RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Answer, Outcome, ReadOptions
from cachesvc.model.use import EVERY_USE, UNKEPT, Use
from cachesvc.tiers.origin.contract import Loaded
from tests.doubles.loaders import NO_STORE, absent, loaded, unkept
from tests.paths.running import started, stop
from tests.paths.world import FarSide, Instance

pytestmark = pytest.mark.usefixtures("both_ways")

FORBIDDEN = OriginError("answered 403", kind=ProblemKind.ORIGIN_REFUSED, origin_status=403)
OLD = loaded(b"old", ttl_us=SECONDS, stale_for_us=60 * SECONDS, error_for_us=600 * SECONDS)
FRESH = ReadOptions(no_cache=True)


def said(answer: Answer) -> tuple[str, bytes | str]:
    """The outcome, and the value or the kind of the error."""
    if answer.error is not None:
        return answer.outcome.value, answer.error.kind.value
    return answer.outcome.value, answer.entry.value if answer.entry is not None else ""


# this caller and this flight ----------------------------------------------------------------------


async def test_who_joined_a_load_that_is_for_one_reader_loads_for_itself_and_not_in_turn() -> None:
    here = Instance()
    values = iter(range(10))
    here.far.loader.default = lambda key: unkept(b"%d" % next(values))
    here.far.loader.hold()
    reads = [asyncio.create_task(here.get("a")) for _ in range(5)]
    await here.far.loader.called()
    here.far.loader.release()
    await reads[0]
    here.far.loader.hold()
    await here.far.loader.called(5)
    assert here.far.loader.running == 4, "the four that joined load at the same time"
    here.far.loader.release()
    answers = await asyncio.gather(*reads)
    assert {said(answer) for answer in answers} == {("loaded", b"%d" % n) for n in range(5)}
    assert {answer.use for answer in answers} == {NO_STORE}


async def test_a_key_named_twice_in_a_batch_is_loaded_for_each_place() -> None:
    here = Instance()
    values = iter(range(10))
    here.far.loader.default = lambda key: unkept(b"%d" % next(values))
    answers = await here.reader.get_many([Key.of("docs", "a")] * 3)
    assert sorted(said(answer) for answer in answers) == [("loaded", b"%d" % n) for n in range(3)]


async def test_a_load_for_one_reader_is_not_kept_though_its_own_answer_might_be() -> None:
    here = Instance()
    here.far.loader.script("a", unkept(b"one"), loaded(b"two"), loaded(b"three"))
    answers = await here.reader.get_many([Key.of("docs", "a")] * 2)
    assert [said(answer) for answer in answers] == [("loaded", b"one"), ("loaded", b"two")]
    assert answers[1].use == UNKEPT
    assert said(await here.get("a")) == ("loaded", b"three")
    assert said(await here.get("a")) == ("hit", b"three")


async def test_what_is_to_be_validated_each_time_is_shared_by_who_joined() -> None:
    here = Instance()
    use = Use(directives="no-cache")
    here.far.loader.default = loaded(b"x", ttl_us=0, stale_for_us=0, error_for_us=0, use=use)
    answers = await here.reader.get_many([Key.of("docs", "a")] * 2)
    assert [answer.use for answer in answers] == [use, use]
    assert here.far.loader.loads("a") == 1


# downstream ---------------------------------------------------------------------------------------


async def test_what_no_tier_keeps_nobody_may_keep() -> None:
    here = Instance()
    assert (await here.get("{a}:1")).use == EVERY_USE
    here.far.loader.script("{a}:2", loaded(b"x", tags=("{b}:t",)))
    assert (await here.get("{a}:2")).use == UNKEPT, "a tag of another partition"
    assert (await here.get("b", options=ReadOptions(no_store=True))).use == UNKEPT, "as the reader wished"


async def test_what_a_fence_refused_nobody_may_keep() -> None:
    here = Instance()
    here.far.loader.hold()
    read = asyncio.create_task(here.get("a"))
    await here.far.loader.called()
    await here.invalidate("a")
    here.far.loader.release()
    answer = await read
    assert (answer.outcome, answer.use) == (Outcome.LOADED, UNKEPT)


async def test_what_has_no_lifetime_says_so_by_itself() -> None:
    here = Instance()
    here.far.loader.default = loaded(b"x", ttl_us=0, stale_for_us=0, error_for_us=0)
    assert (await here.get("a")).use == EVERY_USE


async def test_the_status_of_the_origin_stands_with_the_tier_next_to_it() -> None:
    here = Instance()
    here.far.loader.script("a", Loaded(b"", "text/plain", None, None, None, (), 0, status=204))
    answer = await here.get("a")
    assert (answer.trail[0].tier, answer.trail[0].origin_status, answer.trail[0].stored) == ("l3", 204, True)
    here.far.loader.script("b", FORBIDDEN)
    assert (await here.get("b")).trail[0].origin_status == 403
    assert (await here.get("c")).trail[0].origin_status == 0


# older copies -------------------------------------------------------------------------------------

REPLACES = [
    pytest.param(unkept(b"new"), ("loaded", b"new"), id="no-store"),
    pytest.param(unkept(b""), ("loaded", b""), id="no-store and empty"),
    pytest.param(loaded(b"new", tags=("{b}:t",)), ("loaded", b"new"), id="foreign tag"),
    pytest.param(FORBIDDEN, ("error", "origin-refused"), id="403"),
]
"""Answers of an origin that cannot be kept, with what a reader is told."""


@pytest.mark.parametrize(("newer", "told"), REPLACES)
async def test_no_older_copy_is_answered_after_an_answer_that_may_not_be_kept(
    newer: Loaded | OriginError, told: tuple[str, bytes | str]
) -> None:
    """Not from L1, L2 or L3, here or elsewhere, fresh, stale or as a last resort."""
    far = FarSide()
    one, two = await started(far, "i0", "i1")
    try:
        far.loader.script("{a}:1", loaded(b"old", ttl_us=600 * SECONDS, error_for_us=900 * SECONDS))
        assert await one.paths.value("{a}:1") == await two.paths.value("{a}:1") == b"old"
        far.loader.script("{a}:1", newer)
        assert said(await one.paths.get("{a}:1", options=FRESH)) == told
        await asyncio.sleep(1)
        far.loader.default = OriginError("down")
        for reader in (one, two):
            assert said(await reader.paths.get("{a}:1")) == ("error", "origin-failed")
        assert one.paths.tally.older_forgotten == 1
    finally:
        await stop(one, two)


@pytest.mark.parametrize(("newer", "told"), REPLACES)
async def test_a_refresh_behind_a_stale_copy_ends_it_too(
    newer: Loaded | OriginError, told: tuple[str, bytes | str]
) -> None:
    here = Instance()
    here.far.loader.script("{a}:1", OLD, newer, newer)
    await here.get("{a}:1")
    await asyncio.sleep(5)
    assert said(await here.get("{a}:1")) == ("stale", b"old")
    await asyncio.sleep(0.5)
    assert said(await here.get("{a}:1")) == told
    assert here.tally.older_forgotten == 1, "the second load finds nothing that is older"


async def test_a_key_that_is_never_kept_costs_no_invalidations() -> None:
    here = Instance()
    here.far.loader.default = unkept()
    for _ in range(5):
        await here.get("a")
    assert here.tally.older_forgotten == 0


async def test_what_is_absent_and_may_not_be_kept_replaces_the_value_before_it() -> None:
    here = Instance()
    gone = Loaded(b"", "text/plain", 0, 0, 0, (), 0, absent=True, use=NO_STORE)
    here.far.loader.script("a", OLD, gone, OriginError("down"))
    await here.get("a")
    assert (await here.get("a", options=FRESH)).outcome is Outcome.ABSENT
    assert said(await here.get("a")) == ("error", "origin-failed")


async def test_without_the_queue_the_near_copies_go_and_the_answer_stands(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = Instance()
    here.far.loader.script("a", OLD, unkept(b"new"))
    await here.get("a")
    here.changes.down = True
    assert said(await here.get("a", options=FRESH)) == ("loaded", b"new")
    assert here.l1.peek(Key.of("docs", "a")) is None
    assert "invalidating copies that an origin's answer replaces fails" in caplog.text


# refusals and failures ----------------------------------------------------------------------------


async def after_five_seconds(failure: OriginError) -> tuple[Instance, Answer]:
    """The answer to a read whose copy is kept for errors only, while the origin fails so."""
    here = Instance()
    here.far.loader.script("a", loaded(b"old", ttl_us=SECONDS, stale_for_us=0, error_for_us=60 * SECONDS))
    await here.get("a")
    await asyncio.sleep(5)
    here.far.loader.default = failure
    return here, await here.get("a")


@pytest.mark.parametrize(
    ("kind", "told", "failed", "refused"),
    [
        (ProblemKind.ORIGIN_FAILED, ("stale", b"old"), 1, 0),
        (ProblemKind.ORIGIN_TIMEOUT, ("stale", b"old"), 1, 0),
        (ProblemKind.ORIGIN_BUSY, ("stale", b"old"), 1, 0),
        (ProblemKind.ORIGIN_LIMITED, ("stale", b"old"), 0, 1),
        (ProblemKind.ORIGIN_REFUSED, ("error", "origin-refused"), 0, 1),
    ],
)
async def test_a_stale_copy_hides_failures_and_no_refusal(
    kind: ProblemKind, told: tuple[str, bytes | str], failed: int, refused: int
) -> None:
    here, answer = await after_five_seconds(OriginError("no", kind=kind))
    assert said(answer) == told
    assert (here.tally.loads_failed, here.tally.loads_refused) == (failed, refused)
    assert here.tally.loads == here.tally.loads_ok + failed + refused


async def test_the_soft_deadline_does_not_answer_what_a_refusal_has_just_ended() -> None:
    here, _ = await after_five_seconds(FORBIDDEN)
    await asyncio.sleep(1)
    assert said(await here.get("a")) == ("error", "origin-refused")


async def test_the_origins_wish_to_be_asked_later_is_handed_on() -> None:
    here = Instance()
    here.far.loader.default = OriginError("answered 503", origin_status=503, retry_after=17)
    error = (await here.get("a")).error
    assert isinstance(error, RequestError)
    assert (error.retry_after_seconds, error.kind) == (17, ProblemKind.ORIGIN_FAILED)
    here.far.loader.default = OriginError("answered 500", origin_status=500)
    error = (await here.get("b")).error
    assert error is not None
    assert error.retry_after_seconds == 1


async def test_absence_is_kept_though_the_origin_calls_it_gone() -> None:
    here = Instance()
    here.far.loader.script("a", absent())
    assert [(await here.get("a")).outcome for _ in range(2)] == [Outcome.ABSENT] * 2
    assert here.far.loader.loads("a") == 1
