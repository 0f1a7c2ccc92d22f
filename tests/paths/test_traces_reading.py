"""Traces of reads and loads that a write overtakes: what may be answered, and what may be kept."""

import asyncio

import pytest

from cachesvc.coherence import fence_sketch
from cachesvc.model.change import Target
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import OriginError
from cachesvc.model.fence import Fence, TokenPairs
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Outcome, ReadOptions
from cachesvc.tiers.breaker import Breaker
from cachesvc.tiers.l2.guarded import Guarded
from cachesvc.tiers.l2.in_process import MemoryTier
from tests.doubles.clocks import LoopClock
from tests.doubles.loaders import NO_STORE, loaded, unkept
from tests.doubles.tiers import ChaosTier
from tests.paths.running import started, stop
from tests.paths.truth import Store
from tests.paths.world import SKEW_US, FarSide, Instance

pytestmark = pytest.mark.looptime


async def test_trace_03_a_tag_fence_in_the_future_must_not_cost_endless_loads() -> None:
    far = FarSide()
    Store(far, tags=("t",))
    i0 = Instance(far)
    await i0.invalidate(
        tags=["t"]
    )  # its fence leads the clock by 2 S: what is loaded now is not admissible yet
    answer = await i0.get("a")
    assert answer.outcome is Outcome.LOADED, "answered all the same"
    assert far.loader.loads("a") == 1
    assert i0.l1.peek(Key.of("docs", "a")) is None, "and not kept"


async def test_trace_03_what_a_fence_in_the_future_refuses_must_not_be_kept_though_its_home_has_not_heard_of_it() -> (
    None
):
    far = FarSide()
    Store(far, tags=("t",))
    i0 = Instance(far)
    i0.merger.merge([Fence(Target.tag("docs", "t").digest, far.clock.now_us() + 2 * SKEW_US, unapplied=True)])
    assert (await i0.get("a")).outcome is Outcome.LOADED
    assert i0.l1.peek(Key.of("docs", "a")) is None
    assert not far.l2.sets


async def test_trace_04_a_reader_who_knows_a_tag_fence_must_not_be_answered_by_an_older_load() -> None:
    far = FarSide()
    store = Store(far)
    i0 = Instance(far)
    far.loader.hold()
    far.loader.script("a", loaded(b"0", tags=("t",)))
    read_0 = asyncio.create_task(i0.get("a"))
    await far.loader.called()
    store.commit()
    await i0.invalidate(tags=["t"])
    read_1 = asyncio.create_task(i0.get("a"))
    await asyncio.sleep(0.01)
    assert i0.tally.joined == 1, "it joins the flight: nobody knows the value's tags yet"
    far.loader.release()
    old, new = await read_0, await read_1
    assert old.entry is not None
    assert new.entry is not None
    assert (old.entry.value, new.entry.value) == (b"0", b"1")
    assert far.loader.loads("a") == 2


async def test_trace_05_a_reader_must_not_join_a_flight_that_its_keys_fence_overtook() -> None:
    far = FarSide()
    store = Store(far)
    i0 = Instance(far)
    far.loader.hold()
    far.loader.script("a", loaded(b"0"))
    read_0 = asyncio.create_task(i0.get("a"))
    await far.loader.called()
    store.commit()
    await i0.invalidate("a")
    read_1 = asyncio.create_task(i0.get("a"))
    await asyncio.sleep(0.01)
    far.loader.release()
    answers = await read_0, await read_1
    assert [answer.entry.value for answer in answers if answer.entry] == [b"0", b"1"]
    assert i0.tally.joined == 0
    assert await i0.value("a") == b"1", "and the late fill of the first load was refused by L3"


async def test_trace_07_a_token_must_not_miss_its_write_where_the_feed_is_behind() -> None:
    far = FarSide()
    store = Store(far)
    i0, i1 = Instance(far), Instance(far)
    assert await i1.value("a") == b"0"
    store.commit()
    receipt = await i0.invalidate("a")
    assert await i1.value("a") == b"0", "its feed has not told it yet"
    answer = await i1.get("a", options=ReadOptions(token=receipt.token))
    assert answer.entry is not None
    assert answer.entry.value == b"1"
    assert await i1.value("a") == b"1", "the value that it brought is kept"


async def test_trace_08_a_token_must_not_be_answered_with_an_l3_copy_from_before_it() -> None:
    far = FarSide()
    store = Store(far)
    await Instance(far).value("a")
    store.commit()
    token = (
        (Target.key("docs", "a").digest, far.clock.now_us() + SKEW_US),
    )  # a fence that went with the home's old primary
    await asyncio.sleep(0.2)
    i1 = Instance(far)
    far.l2.down = True
    answer = await i1.get("a", options=ReadOptions(token=token))
    assert answer.entry is not None
    assert answer.entry.value == b"1"


async def test_trace_19_copies_that_only_the_reader_refuses_must_not_be_answered_nor_loaded_without_a_lease() -> (
    None
):
    far = FarSide()
    store = Store(far)
    i0 = Instance(far)
    await i0.value("a")  # 0 in L1, L2 and L3
    store.commit()
    i0.merger.merge([Fence(Target.key("docs", "a").digest, far.clock.now_us(), unapplied=True)])
    assert await i0.value("a") == b"1"
    assert far.loader.loads("a") == 2
    assert i0.tally.leases_granted == 2


async def test_trace_20_a_memcached_that_returns_with_old_content_must_not_be_believed() -> None:
    far = FarSide()
    store = Store(far)
    i0 = Instance(far)
    await i0.value("a")
    await asyncio.sleep(0.01)
    far.l2.down = True  # cut off: the delete that follows the fence does not reach it
    store.commit()
    await i0.invalidate("a")
    far.l2.down = False
    held = (await far.l2.tier.get_many([Key.of("docs", "a")]))[0]
    assert getattr(held, "value", None) == b"0", "the old copy is really there"
    assert await i0.value("a") == b"1"


async def test_trace_86_a_sketch_that_doubles_must_not_forget() -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fence_sketch, "FIRST_SLOTS", 64)
        far = FarSide()
        store, i0 = Store(far), Instance(far)
    await i0.value("a")
    await asyncio.sleep(0.01)
    far.l2.down = True
    store.commit()
    await i0.invalidate("a")
    far.l2.down = False
    before, now = i0.fences.statistics().sketch_bytes, far.clock.now_us()
    i0.merger.merge([Fence(Target.key("docs", f"other-{nth}").digest, now) for nth in range(1000)])
    assert i0.fences.statistics().sketch_bytes > before
    assert await i0.value("a") == b"1"


async def test_trace_63_a_copy_that_stayed_in_the_gutter_must_not_be_believed() -> None:
    far = FarSide()
    store, gutter, breaker = Store(far), MemoryTier(far.clock, 1 << 20), Breaker()
    far.l2 = ChaosTier(Guarded(far.pool, breaker, gutter=gutter))
    i0, i1 = Instance(far), Instance(far, name="i1")
    breaker.failed(at_once=True)  # the key's server is away
    await i0.value("a")
    breaker.seen()  # the server is back
    await asyncio.sleep(0.01)
    store.commit()
    await i0.invalidate("a")  # the delete that follows the fence goes to the server
    for stream in (i0, i1):
        stream.merger.merge([Fence(Target.key("docs", "a").digest, far.clock.now_us())])
    breaker.failed(at_once=True)  # it is away again
    held = (await gutter.get_many([Key.of("docs", "a")]))[0]
    assert getattr(held, "value", None) == b"0", "the old copy is really there"
    assert await i1.value("a") == b"1"


async def test_trace_77_a_copy_in_the_ring_of_another_zone_must_not_be_believed() -> None:
    far = FarSide()
    store, i1 = Store(far), Instance(far, name="i1")
    i0 = in_another_zone(far, "i0")
    await i1.value("a")
    await i0.value("a")
    await asyncio.sleep(0.01)
    store.commit()
    await i0.invalidate("a")  # the delete that follows the fence goes to the ring of its own zone
    for stream in (i0, i1):
        stream.merger.merge([Fence(Target.key("docs", "a").digest, far.clock.now_us())])
    i1.l1.delete(Key.of("docs", "a"))
    held = (await far.pool.get_many([Key.of("docs", "a")]))[0]
    assert getattr(held, "value", None) == b"0", "the old copy is really there"
    assert await i1.value("a") == b"1"


async def test_trace_78_a_copy_in_another_zone_must_not_be_answered_after_one_that_may_not_be_kept() -> None:
    far = FarSide()
    (i1,) = await started(far, "i1")
    i0 = in_another_zone(far, "i0")
    try:
        for key, options in ("a", ReadOptions()), ("b", ReadOptions(no_cache=True)):
            far.loader.default = loaded(b"0", ttl_us=1_000_000, stale_for_us=60_000_000)
            assert await i1.paths.value(key) == b"0"
            await asyncio.sleep(2)
            far.loader.default = unkept(b"1")
            await i0.get(key, options=options)  # its load goes on behind a stale answer
            await asyncio.sleep(0.5)
            held = (await far.pool.get_many([Key.of("docs", key)]))[0]
            assert getattr(held, "value", None) == b"0", "the old copy is really there"
            assert await i1.paths.value(key) == b"1"
    finally:
        await stop(i1)


def in_another_zone(far: FarSide, name: str) -> Instance:
    """An instance whose zone has a ring of its own; those that were made before have that of `far`."""
    others, far.l2 = far.l2, ChaosTier(MemoryTier(far.clock, 1 << 20))
    instance = Instance(far, name=name)
    far.l2 = others
    return instance


async def test_trace_27_a_reply_from_home_must_not_be_believed_past_a_fence_merged_while_it_was_on_its_way() -> (
    None
):
    """A reader that joins the flight after the merge would be answered from before the write (G1)."""
    far = FarSide()
    store = Store(far, tags=("t",))
    await Instance(far).value("a")
    await asyncio.sleep(1)
    await far.pool.delete_many([Key.of("docs", "a")])
    i0, i1 = Instance(far), Instance(far)
    far.cell.hold["read_many"] = asyncio.Event()
    read_0 = asyncio.create_task(i0.value("a"))
    await asyncio.sleep(0.01)  # the home has answered 0; the answer is on its way
    store.commit()
    receipt = await i1.invalidate(tags=["t"])
    home = (("c1", far.cell.issuer),)
    i0.merger.merge([Fence(digest, at, issuers=home) for digest, at in receipt.token])
    read_1 = asyncio.create_task(i0.value("a"))
    await asyncio.sleep(0.01)
    assert i0.tally.joined == 1, "the fence of a tag forgets no flight"
    far.cell.hold["read_many"].set()
    assert await read_1 == b"1"
    await read_0


async def test_trace_31_no_older_copy_must_be_answered_after_an_answer_that_may_not_be_kept() -> None:
    far = FarSide()
    i0, i1 = await started(far, "i0", "i1")
    try:
        far.loader.script("a", loaded(b"0", ttl_us=1_000_000, stale_for_us=60_000_000))
        assert await i0.paths.value("a") == await i1.paths.value("a") == b"0"
        await asyncio.sleep(2)
        far.loader.default = unkept(b"1")
        fresh = await i0.paths.get("a", options=ReadOptions(no_cache=True))
        assert fresh.entry is not None
        assert fresh.entry.value == b"1"
        assert await i0.paths.value("a") == b"1", "here at once"
        await asyncio.sleep(0.5)
        assert await i1.paths.value("a") == b"1", "elsewhere as after any invalidation"
    finally:
        await stop(i0, i1)


async def test_trace_32_a_value_whose_tags_are_not_known_must_not_be_answered_to_who_joined_its_load() -> (
    None
):
    far = FarSide()
    i0 = Instance(far)
    far.loader.hold()
    far.loader.script("a", loaded(b"0", ttl_us=0, use=NO_STORE), unkept(b"1"))
    read_0 = asyncio.create_task(i0.get("a"))
    await far.loader.called()
    await i0.invalidate(tags=["t"])
    read_1 = asyncio.create_task(i0.get("a"))
    await asyncio.sleep(0.01)
    assert i0.tally.joined == 1
    far.loader.release()
    old, new = await read_0, await read_1
    assert old.entry is not None
    assert new.entry is not None
    assert (old.entry.value, new.entry.value) == (b"0", b"1")


async def test_trace_34_who_saw_a_value_loaded_without_a_home_must_not_see_an_older_one_of_a_lease_that_led() -> (
    None
):
    far = FarSide()
    store = Store(far)
    i0, i1 = Instance(far), Instance(far)
    await i0.invalidate("a")  # for S its leases lead the clock
    assert await i0.value("a") == b"0"
    store.commit()
    far.cell.down = far.l2.down = True
    seen = await i1.get("a")
    assert seen.entry is not None
    assert seen.entry.value == b"1"
    again = await i0.get("a", options=ReadOptions(token=monotonic(i1, seen.entry)))
    assert again.entry is not None
    assert again.entry.value == b"1"
    mine = await i1.get("a", options=ReadOptions(token=monotonic(i1, seen.entry)))
    assert mine.entry is not None
    assert mine.entry.value == b"1"


async def test_trace_35_who_saw_a_value_of_a_long_load_must_not_see_one_that_was_loaded_meanwhile_without_a_home() -> (
    None
):
    far = FarSide()
    store = Store(far)
    i0, i1 = Instance(far), Instance(far)
    far.loader.hold()
    loading = asyncio.create_task(i0.get("a"))
    await far.loader.called()
    await asyncio.sleep(0.1)
    far.l2.down = True
    i1.l1.put(Key.of("docs", "a"), unleased(far, b"0"))
    store.commit()
    far.loader.release()
    seen = await loading
    assert seen.entry is not None
    assert seen.entry.value == b"1"
    again = await i1.get("a", options=ReadOptions(token=monotonic(i0, seen.entry)))
    assert again.entry is not None
    assert again.entry.value == b"1"


READS = 50
NEVER_US = 1 << 62
"""A time that no fence will ever have."""


def forged(*targets: Target) -> ReadOptions:
    """A read with a token that nobody has issued."""
    return ReadOptions(token=tuple((target.digest, NEVER_US) for target in targets))


async def test_trace_55_a_forged_token_must_not_refuse_the_copies_of_others() -> None:
    far = FarSide()
    i0, i1 = Instance(far), Instance(far)
    far.loader.default = loaded(b"0", tags=("t",))
    assert [await one.value("a") for one in (i0, i1)] == [b"0", b"0"]
    lie = forged(Target.key("docs", "a"), Target.tag("docs", "t"), Target.whole("docs"))
    far.loader.hold()
    liar = asyncio.create_task(i0.get("a", options=lie))
    await far.loader.called(2)
    assert [await one.value("a") for one in (i0, i1)] == [b"0", b"0"], "while it loads"
    far.loader.script("a", OriginError("down", kind=ProblemKind.ORIGIN_FAILED))
    far.loader.release()
    assert (await liar).outcome is Outcome.ERROR
    assert (await i0.get("a", options=lie)).outcome is Outcome.LOADED
    i2 = Instance(far)
    assert [await one.value("a") for one in (i0, i1, i2)] == [b"0", b"0", b"0"]
    assert far.loader.loads("a") == 3, "the first one, and those of the liar"
    assert i0.fences.merged == 0
    assert i0.fences.statistics().clamped == 0, "nobody is told that a clock is wrong"


async def test_trace_55_a_forged_time_must_not_make_each_of_its_reads_load_in_turn() -> None:
    far = FarSide()
    i0 = Instance(far)
    await i0.value("a")

    far.loader.hold()
    reads = [asyncio.create_task(i0.get("a", options=forged(Target.key("docs", "a")))) for _ in range(READS)]
    while not all(read.done() for read in reads):
        await asyncio.sleep(0.05)  # the time of one load
        far.loader.release()
        await asyncio.sleep(0)
        far.loader.hold()
    assert far.loader.peak == 1, "under the key's lease"
    assert far.loader.loads("a") < READS / 2, "what is loaded 4 S after a read came is new enough for it"


async def test_trace_56_a_token_must_not_be_cut_back_to_before_its_write() -> None:
    far = FarSide(LoopClock(skew_us=SKEW_US))
    store = Store(far)
    i0, i1 = Instance(far, clock=LoopClock()), Instance(far)
    await i1.invalidate("a")  # for S its leases lead the clock
    assert [await one.value("a") for one in (i1, i0)] == [b"0", b"0"]
    store.commit()
    token = (await i1.invalidate("a")).token
    answer = await i0.get("a", options=ReadOptions(token=token))
    assert answer.entry is not None
    assert answer.entry.value == b"1"


def monotonic(instance: Instance, seen: Entry) -> TokenPairs:
    """The token of a session that was answered `seen` by `instance`."""
    at = instance.fences.seen_until(seen) or seen.as_of - 1
    return ((Key.of("docs", "a").digest, at),)


def unleased(far: FarSide, value: bytes) -> Entry:
    """What an instance without a home keeps of a load that begins now."""
    now = far.clock.now_us()
    return Entry(value, now, now + 60_000_000, confirmed=False)


async def test_trace_57_an_early_refresh_must_not_load_what_another_instance_has_refreshed() -> None:
    """A hot key is read at several instances. Each has a copy, and each copy is due early."""
    far = FarSide()
    i0, i1 = Instance(far, name="i0"), Instance(far, name="i1")
    far.loader.hold()
    slow = asyncio.create_task(i0.get("a", "hot"))
    await far.loader.called()
    await asyncio.sleep(1)  # what a load costs decides how early it begins
    far.loader.release()
    await slow
    first = (await i1.get("a", "hot")).entry
    assert first is not None
    await asyncio.sleep((first.fresh_until - far.clock.now_us()) / 1e6 - 0.3)
    for one in (i0, i1):
        while not one.tally.early_refreshes:
            assert (await one.get("a", "hot")).outcome is Outcome.HIT
        await asyncio.sleep(0.01)
    assert far.loader.loads("a") == 2, "as many as with one instance"
    copies = [one.l1.peek(Key.of("hot", "a")) for one in (i0, i1)]
    assert copies[0] == copies[1] != first
