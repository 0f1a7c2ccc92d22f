"""The snapshot of L1: what comes back over a restart, and what must not."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cachesvc.model.entry import Key
from cachesvc.model.fence import Fence
from tests.paths.truth import Store
from tests.paths.world import FarSide, Instance

pytestmark = pytest.mark.looptime


@contextmanager
def directory() -> Iterator[str]:
    with TemporaryDirectory() as found:
        yield found


def instance(far: FarSide, snapshots: str, epoch: str = "e1") -> Instance:
    """An instance that reads the queue of this epoch."""
    found = Instance(far, snapshots=snapshots)
    found.fences.note_queue("here", epoch)
    return found


async def stop(stopping: Instance) -> None:
    stopping.warm_restart.is_over = True
    await stopping.warm_restart.save()


async def stopped(far: FarSide, snapshots: str, epoch: str = "e1") -> Instance:
    """An instance that has read `a` and stopped."""
    found = instance(far, snapshots, epoch)
    await found.value("a")
    await stop(found)
    return found


async def start(far: FarSide, snapshots: str, epoch: str = "e1") -> Instance:
    started = instance(far, snapshots, epoch)
    await started.warm_restart.take(lambda: True)
    return started


async def forget_in_l2(far: FarSide) -> None:
    await far.pool.delete_many([Key.of("docs", "a")])


async def test_what_l1_had_is_there_again() -> None:
    far = FarSide()
    Store(far, tags=("t",))
    with directory() as snapshots:
        i0 = await stopped(far, snapshots)
        calls = far.loader.calls
        again = await start(far, snapshots)
        answer = await again.get("a")
        assert (answer.tier, answer.entry) == ("l1", (await i0.get("a")).entry)
        assert far.loader.calls == calls
        assert not os.listdir(snapshots), "the file is used once"
        assert again.warm_restart.said.startswith("took 1 of 1 copies")


async def test_a_copy_that_l1_has_meanwhile_stays() -> None:
    far = FarSide()
    store = Store(far)
    with directory() as snapshots:
        i0 = await stopped(far, snapshots)
        store.commit()
        await i0.invalidate("a")
        again = instance(far, snapshots)
        assert await again.value("a") == b"1"
        await again.warm_restart.take(lambda: True)
        assert (again.warm_restart.tally.taken, again.warm_restart.tally.refused) == (0, 1)
        assert await again.value("a") == b"1"


async def test_trace_65_a_copy_that_was_refused_at_the_stop_must_not_come_back_at_the_start() -> None:
    """The stream has lost the fence: only the floor of the instance that stops knows."""
    far = FarSide()
    store = Store(far)
    with directory() as snapshots:
        i0 = instance(far, snapshots)
        await i0.value("a")
        await asyncio.sleep(1)
        store.commit()
        await Instance(far, name="i1").invalidate("a")
        i0.fences.raise_floor(far.clock.now_us() + 1, lost=True)  # the feed has met the gap
        await stop(i0)
        await forget_in_l2(far)
        again = await start(far, snapshots)
        assert await again.value("a") == b"1"


async def test_trace_66_a_snapshot_of_another_queue_must_not_be_taken() -> None:
    far, other = FarSide(), FarSide()
    Store(other)
    with directory() as snapshots:
        await stopped(other, snapshots, epoch="e0")
        Store(far).commit()
        again = await start(far, snapshots)
        assert await again.value("a") == b"1"


async def test_a_fence_that_was_retained_refuses_the_copy() -> None:
    far = FarSide()
    store = Store(far)
    with directory() as snapshots:
        await stopped(far, snapshots)
        await asyncio.sleep(1)
        store.commit()
        receipt = await Instance(far, name="i1").invalidate("a")
        await forget_in_l2(far)
        again = instance(far, snapshots)
        merged = asyncio.Event()
        taking = asyncio.create_task(again.warm_restart.take(merged.is_set))
        await asyncio.sleep(1)
        assert not again.warm_restart.is_over, "the retained fences come first"
        again.merger.merge([Fence(digest, at) for digest, at in receipt.token])
        merged.set()
        await taking
        assert again.warm_restart.tally.refused == 1
        assert await again.value("a") == b"1"


async def test_an_instance_that_stops_before_its_start_is_over_leaves_the_file() -> None:
    far = FarSide()
    Store(far)
    with directory() as snapshots:
        await stopped(far, snapshots)
        early = instance(far, snapshots)
        await early.value("b")
        await early.warm_restart.save()
        assert (await start(far, snapshots)).warm_restart.tally.taken == 1


async def test_without_a_known_queue_nothing_is_written() -> None:
    far = FarSide()
    Store(far)
    with directory() as snapshots:
        i0 = Instance(far, snapshots=snapshots)
        await i0.value("a")
        await stop(i0)
        assert not os.listdir(snapshots)


@pytest.mark.parametrize("harm", ["short", "flipped", "other format", "writable", "link", "empty"])
async def test_a_file_that_cannot_be_used_costs_its_warmth_and_is_said(harm: str) -> None:
    far = FarSide()
    Store(far)
    with directory() as snapshots:
        await stopped(far, snapshots)
        (name,) = os.listdir(snapshots)
        spoil(Path(snapshots, name), harm)
        again = await start(far, snapshots)
        assert again.warm_restart.tally.taken == 0
        assert again.warm_restart.said.startswith("not used: ")
        assert again.warm_restart.is_over
        assert await again.value("a") == b"0"


def spoil(file: Path, harm: str) -> None:
    written = file.read_bytes()
    if harm == "short":
        file.write_bytes(written[:-3])
    elif harm == "flipped":
        place = len(written) - 40
        file.write_bytes(written[:place] + bytes([written[place] ^ 1]) + written[place + 1 :])
    elif harm == "other format":
        file.write_bytes(written.replace(b"\x01", b"\x02", 1))
    elif harm == "writable":
        file.chmod(0o666)
    elif harm == "link":
        file.rename(file.with_name("elsewhere"))
        file.symlink_to(file.with_name("elsewhere"))
    else:
        file.write_bytes(b"")


async def test_a_directory_that_cannot_be_written_does_not_stop_the_stop(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    far = FarSide()
    Store(far)
    i0 = instance(far, str(tmp_path / "taken"))
    await i0.value("a")
    await stop(i0)
