"""An instance with a journal, while its queue is away: what is accepted and refused."""

import asyncio

import pytest

from cachesvc.changes.journal.journal import JournalLimits
from cachesvc.changes.redis import fence_items
from cachesvc.model.clock import SECONDS
from cachesvc.model.errors import ConfigError, RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import ReadOptions
from tests.doubles.memory_journal import EIO, NO_SPACE, MemoryDisk
from tests.paths.living import IN_TIME, living
from tests.paths.truth import Store
from tests.paths.world import FarSide, Instance

pytestmark = pytest.mark.looptime


def alone(far: FarSide, disk: MemoryDisk | None = None) -> Instance:
    """An instance whose queue is away, without loops."""
    instance = Instance(far, disk=disk)
    instance.changes.down = instance.stream.down = True
    return instance


async def with_journal(far: FarSide, disk: MemoryDisk) -> Instance:
    instance = alone(far, disk)
    assert instance.journal is not None
    await instance.journal.start()
    return instance


async def refusal(instance: Instance) -> str:
    with pytest.raises(RequestError) as caught:
        await instance.invalidate("a", ns="aside")
    assert caught.value.kind is ProblemKind.QUEUE_UNAVAILABLE
    assert instance.journal is None or len(instance.journal) == 0
    return caught.value.detail


async def test_without_a_journal_nothing_is_accepted() -> None:
    far = FarSide()
    assert "nothing was done" in await refusal(alone(far))


async def test_reads_and_fills_under_a_lease_need_no_queue() -> None:
    far = FarSide()
    Store(far)
    instance = alone(far)
    assert await instance.value("a") == b"0"
    miss = await instance.get("b", "aside", ReadOptions(lease=True))
    assert (await instance.put("b", b"1", lease=miss.lease)).stored
    assert await instance.value("b", "aside") == b"1"


async def test_a_put_is_stored_and_its_key_is_fenced_for_the_others_when_the_queue_is_back() -> None:
    far, disk = FarSide(), MemoryDisk()
    async with living(far, "i1") as i1, living(far, "i0", disk=disk) as i0:
        await asyncio.sleep(2)
        await i1.paths.put("a", b"0")
        i0.paths.changes.down = i0.paths.stream.down = True
        written = await i0.paths.put("a", b"1")
        assert written.stored
        assert written.unannounced.startswith("here:")
        assert await i0.paths.value("a", "aside") == b"1"
        state = await i0.paths.receipts.state(written.unannounced)
        assert state is not None
        assert (state.state, state.merged) == ("open", ("here/i0",))
        await asyncio.sleep(2)
        with pytest.raises(RequestError, match="could not announce yet"):
            await i1.paths.receipts.state(written.unannounced)
        i0.paths.changes.down = i0.paths.stream.down = False
        await asyncio.sleep(2)
        assert await i1.paths.value("a", "aside") == b"1"
        state = await i1.paths.receipts.state(written.unannounced)
        assert state is not None
        assert (state.state, state.missing) == ("done", ())
        assert i1.bound_us() < 1_000_000
        assert len(disk.data) == len(MemoryDisk().data)


async def test_a_queue_that_comes_back_empty_fences_all_and_is_told_what_the_journal_has() -> None:
    far, disk = FarSide(), MemoryDisk()
    store = Store(far)
    async with living(far, "i1") as i1, living(far, "i0", disk=disk) as i0:
        await asyncio.sleep(2)
        assert await i1.paths.value("a") == b"0"
        for one in (i0, i1):
            one.paths.changes.down = one.paths.stream.down = True
        store.commit()
        receipt = await i0.paths.invalidate("a")
        await asyncio.sleep(1)
        far.queue.lose()
        for one in (i1, i0):
            one.paths.changes.down = one.paths.stream.down = False
        await asyncio.sleep(6)
        assert await i1.paths.value("a") == b"1"
        state = await i1.paths.receipts.state(receipt.id)
        assert state is not None
        assert (state.state, state.missing) == ("done", ())
        assert i1.bound_us() < 1_000_000


async def test_a_fence_that_the_queue_did_not_take_is_kept_under_the_id_of_its_change() -> None:
    far, disk = FarSide(), MemoryDisk()
    instance = await with_journal(far, disk)
    instance.changes.down = False
    receipt = await instance.invalidate("a")
    assert not receipt.announced
    assert instance.journal is not None
    instance.stream.down = False
    await instance.journal._announce()
    assert not far.queue.changes
    assert far.queue.lost == 0
    assert (await instance.receipts.state(receipt.id)).state == "done"  # type: ignore[union-attr]


async def test_what_was_published_and_not_noted_is_published_once_more_and_changes_nothing() -> None:
    far, disk = FarSide(), MemoryDisk()
    instance = await with_journal(far, disk)
    receipt = await instance.invalidate("a")
    kept = disk.data
    instance.stream.down = False
    assert instance.journal is not None
    await instance.journal._announce()
    first = await instance.receipts.state(receipt.id)
    audit = list(far.queue.audit)
    disk.data = kept
    again = await with_journal(far, disk)
    again.stream.down = False
    assert again.journal is not None
    await again.journal._announce()
    assert await again.receipts.state(receipt.id) == first
    assert list(far.queue.audit) == audit
    (ats,) = {tuple(sorted(item.fields.items())) for item in far.queue.fences}
    assert ats


async def test_a_full_journal_refuses_and_says_so() -> None:
    far = FarSide()
    instance = await with_journal(far, MemoryDisk())
    assert instance.journal is not None
    instance.journal._limits = JournalLimits(1 << 20, 0)
    assert "it is full: 0 changes (queue.journal.max_changes)" in await refusal(instance)
    instance.journal._limits = JournalLimits(100, 10)
    assert "it is full: 100 bytes (queue.journal.max_bytes)" in await refusal(instance)
    assert instance.journal.statistics().refused == 2
    assert not far.cell.cell._fences


@pytest.mark.parametrize("error", [NO_SPACE, EIO])
async def test_a_disk_that_fails_refuses_before_anything_is_applied(error: int) -> None:
    far, disk = FarSide(), MemoryDisk()
    store = Store(far)
    instance = await with_journal(far, disk)
    assert await instance.value("a") == b"0"
    store.commit()
    disk.error = error
    assert "its disk failed" in await refusal(instance)
    assert await instance.value("a") == b"0"
    disk.error = 0
    assert not (await instance.invalidate("a")).announced
    assert await instance.value("a") == b"1"


async def test_fences_that_cannot_be_written_are_made_anew_after_a_restart() -> None:
    far, disk = FarSide(), MemoryDisk()
    store = Store(far)
    instance = await with_journal(far, disk)
    assert await instance.value("a") == b"0"
    store.commit()
    assert instance.journal is not None
    write = instance.journal._write

    async def only_the_first(record: bytes) -> None:
        await write(record)
        disk.error = NO_SPACE

    instance.journal._write = only_the_first  # type: ignore[method-assign]
    assert not (await instance.invalidate("a")).announced
    disk.error = 0
    instance = await with_journal(far, disk)
    instance.fences.watermark = IN_TIME
    assert await instance.value("a") == b"1"


async def test_without_a_cell_that_can_tell_the_others_nothing_is_accepted() -> None:
    far = FarSide()
    instance = await with_journal(far, MemoryDisk())
    far.cell.down = far.other.down = True
    assert "no cell is in reach" in await refusal(instance)


async def test_a_journal_of_another_region_or_deployment_stops_the_start() -> None:
    for disk, why in (
        (MemoryDisk(region="there"), "of region 'there'"),
        (MemoryDisk(cells=("c8", "c9")), "of another deployment"),
    ):
        with pytest.raises(ConfigError, match=why):
            await with_journal(FarSide(), disk)


async def test_a_clock_that_is_set_back_leaves_fences_and_notes_as_they_are() -> None:
    far, disk = FarSide(), MemoryDisk()
    instance = await with_journal(far, disk)
    receipt = await instance.invalidate(tags=["t"])
    far.clock.skew_us -= 30 * SECONDS
    again = await with_journal(far, disk)
    again.stream.down = False
    assert again.journal is not None
    await again.journal._announce()
    published = fence_items.decode((item.position[0], item.fields) for item in far.queue.fences)
    assert {at for _, at in receipt.token} == {fence.at for fence in published.fences}
