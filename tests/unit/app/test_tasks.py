"""Background tasks end with their owner, and their failures are told."""

import asyncio
import contextlib

import pytest

from cachesvc.app.tasks import Tasks

pytestmark = pytest.mark.looptime


async def test_stopping_ends_all_of_them() -> None:
    tasks = Tasks()
    running = [tasks.spawn(asyncio.sleep(1000), f"sleep {i}") for i in range(3)]
    await tasks.stop()
    assert all(task.cancelled() for task in running)
    assert repr(tasks) == "<Tasks [0 running]>"


async def test_one_that_swallows_its_cancellation_is_cancelled_again() -> None:
    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)
        await asyncio.sleep(1000)

    tasks = Tasks()
    task = tasks.spawn(stubborn(), "stubborn")
    await asyncio.sleep(0)
    await tasks.stop()
    assert task.cancelled()


async def test_one_that_will_not_end_is_named_and_left(caplog: pytest.LogCaptureFixture) -> None:
    async def deaf() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            if released.is_set():
                return

    released = asyncio.Event()
    tasks = Tasks()
    task = tasks.spawn(deaf(), "deaf")
    await asyncio.sleep(0)
    await tasks.stop()
    assert "not stopped: deaf" in caplog.text
    released.set()
    task.cancel()
    await task


async def test_a_failure_is_logged_once_with_the_name(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise ValueError("why")

    tasks = Tasks()
    task = tasks.spawn(fails(), "the feed")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == ["task the feed failed"]
