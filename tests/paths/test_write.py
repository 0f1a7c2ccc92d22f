"""Look-aside: leases to callers, fills, puts; and what a caller is told when something is down."""

import asyncio

import pytest

from cachesvc.model.entry import Key
from cachesvc.model.errors import RequestError
from cachesvc.model.requests import Draft, Outcome, ReadOptions
from tests.paths.world import FarSide, Instance

pytestmark = pytest.mark.looptime

LEASE = ReadOptions(lease=True, wait_seconds=2.0)
IMPATIENT = ReadOptions(lease=True)


async def test_a_put_is_read_from_every_tier() -> None:
    here = Instance()
    written = await here.put("k", b"v", tags=["t"])
    assert written.stored
    assert (await here.get("k", "aside")).tier == "l1"
    other = await Instance(here.far).get("k", "aside")
    assert (other.tier, other.entry and other.entry.tags) == ("l2", ("t",))
    here.far.l2.down = True
    assert (await Instance(here.far).get("k", "aside")).tier == "l3"


async def test_a_put_replaces_what_was_there_everywhere() -> None:
    far = FarSide()
    here, there = Instance(far), Instance(far)
    await here.put("k", b"1")
    assert await there.value("k", "aside") == b"1"
    written = await here.put("k", b"2")
    assert await here.value("k", "aside") == b"2"
    answer = await there.get("k", "aside", ReadOptions(token=written.token))
    assert answer.entry is not None
    assert answer.entry.value == b"2"


async def test_one_of_many_callers_gets_the_lease_and_the_others_its_fill() -> None:
    far = FarSide()
    here, there = Instance(far), Instance(far)
    reads = [asyncio.create_task((here, there)[i % 2].get("k", "aside", LEASE)) for i in range(100)]
    await asyncio.sleep(0.1)
    leases = [read.result().lease for read in reads if read.done()]
    assert len(leases) == 1
    assert (await here.put("k", b"v", lease=leases[0])).stored
    answers = await asyncio.gather(*reads)
    assert sum(answer.outcome is Outcome.HIT for answer in answers) == 99


async def test_a_fill_from_a_source_that_lags_is_as_old_as_the_source_may_have_been() -> None:
    here = Instance()
    lag_us = 300_000
    for wait_seconds, stored in ((0.2, False), (0.5, True)):
        await here.invalidate("k", ns="aside")
        await asyncio.sleep(wait_seconds)
        lease = (await here.get("k", "aside", IMPATIENT)).lease
        draft = Draft(b"v", lease=lease, source_lag_us=lag_us)
        assert (await here.writer.put(Key.of("aside", "k"), draft)).stored is stored
        answer = await Instance(here.far).get("k", "aside")
        assert (answer.outcome is Outcome.HIT) is stored
    assert lease is not None
    assert answer.entry is not None
    assert answer.entry.as_of == int(lease.partition(":")[2]) - lag_us


async def test_a_caller_who_does_not_wait_gets_a_miss_without_a_lease() -> None:
    here = Instance()
    first = await here.get("k", "aside", IMPATIENT)
    second = await here.get("k", "aside", IMPATIENT)
    assert first.lease
    assert (second.outcome, second.lease) == (Outcome.MISS, None)


async def test_when_the_holder_never_fills_the_next_waiter_takes_over() -> None:
    here = Instance()
    await here.get("k", "aside", IMPATIENT)
    began = asyncio.get_running_loop().time()
    answer = await here.get("k", "aside", ReadOptions(lease=True, wait_seconds=10.0))
    if answer.lease is None:  # the wait of one flight is bounded by lease_wait; ask again as an SDK does
        answer = await here.get("k", "aside", ReadOptions(lease=True, wait_seconds=10.0))
    assert answer.lease is not None
    assert asyncio.get_running_loop().time() - began < 5.5


async def test_a_cancelled_waiter_leaves_the_others_waiting() -> None:
    here = Instance()
    lease = (await here.get("k", "aside", IMPATIENT)).lease
    waiting = [asyncio.create_task(here.get("k", "aside", LEASE)) for _ in range(3)]
    await asyncio.sleep(0.05)
    waiting[0].cancel()
    await asyncio.sleep(0.05)
    await here.put("k", b"v", lease=lease)
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert [getattr(answer, "outcome", None) for answer in done[1:]] == [Outcome.HIT, Outcome.HIT]


async def test_a_stale_value_goes_along_with_the_lease() -> None:
    here = Instance()
    await here.writer.put(Key.of("aside", "k"), Draft(b"old", ttl_us=1_000_000))
    await asyncio.sleep(2)
    answer = await here.get("k", "aside", IMPATIENT)
    assert (answer.outcome, answer.entry and answer.entry.value) == (Outcome.STALE, b"old")
    assert answer.lease
    assert (await here.put("k", b"new", lease=answer.lease)).stored
    assert await here.value("k", "aside") == b"new"


async def test_of_callers_that_share_a_flight_one_gets_the_lease_and_all_are_told_that_the_value_is_stale() -> (
    None
):
    here = Instance()
    await here.writer.put(Key.of("aside", "k"), Draft(b"old", ttl_us=1_000_000))
    await asyncio.sleep(2)
    answers = await asyncio.gather(*(here.get("k", "aside", IMPATIENT) for _ in range(3)))
    assert [answer.outcome for answer in answers] == [Outcome.STALE] * 3
    assert [bool(answer.lease) for answer in answers] == [True, False, False]
    assert here.tally.flights == 1


async def test_no_cache_has_nothing_to_answer_with_where_the_caller_loads() -> None:
    here = Instance()
    await here.put("k", b"v")
    assert (await here.get("k", "aside", ReadOptions(no_cache=True))).outcome is Outcome.MISS


async def test_known_absence_can_be_stored() -> None:
    here = Instance()
    await here.writer.put(Key.of("aside", "k"), Draft(b"", negative=True))
    assert (await here.get("k", "aside")).outcome is Outcome.ABSENT


async def test_conditions_are_decided_at_home() -> None:
    here = Instance()
    assert (await here.writer.put(Key.of("aside", "k"), Draft(b"1", if_absent=True))).stored
    again = await here.writer.put(Key.of("aside", "k"), Draft(b"2", if_absent=True))
    assert (again.stored, again.reason) == (False, "precondition")
    assert await here.value("k", "aside") == b"1"
    assert len(here.far.queue.changes) == 0


@pytest.mark.parametrize(
    ("draft", "kind"),
    [
        (Draft(b"x", tags=("{other}:t",)), "foreign-tag"),
        (Draft(b"x", lease="nonsense"), "bad-lease"),
    ],
)
async def test_what_the_contract_forbids_is_refused_and_nothing_is_stored(draft: Draft, kind: str) -> None:
    here = Instance()
    with pytest.raises(RequestError) as refusal:
        await here.writer.put(Key.of("aside", "{k}"), draft)
    assert refusal.value.kind == kind
    assert (await here.get("{k}", "aside")).outcome is Outcome.MISS
    assert len(here.far.queue.changes) == 0


async def test_with_the_home_down_a_put_is_refused_and_the_old_value_is_fenced() -> None:
    here = Instance()
    await here.put("k", b"1")
    here.far.cell.down = True
    with pytest.raises(RequestError) as refusal:
        await here.put("k", b"2")
    assert refusal.value.kind == "home-unavailable"
    assert (await here.get("k", "aside")).outcome is Outcome.MISS, (
        "the old copies are refused: the writer knows better"
    )
    assert len(here.far.queue.parking) == 1, "the region's consumers go on with it"


async def test_with_the_queue_down_nothing_is_promised() -> None:
    here = Instance()
    await here.put("k", b"1")
    here.changes.down = True
    with pytest.raises(RequestError) as refusal:
        await here.put("k", b"2")
    assert refusal.value.kind == "queue-unavailable"
    assert await here.value("k", "aside") == b"1"
    with pytest.raises(RequestError) as refusal:
        await here.invalidate("k", ns="aside")
    assert refusal.value.kind == "queue-unavailable"


async def test_a_finished_invalidation_leaves_nothing_open() -> None:
    here = Instance()
    await here.invalidate("a", "b", tags=["t"], whole=True)
    assert len(here.far.queue.changes) == 0
