"""`FairTimeout` ends what takes too long, and forgives what only our own loop held up."""

import asyncio
import time

import pytest

from cachesvc.tiers.fair_timeout import AGAIN, HONEST_BYTES_PER_SECOND, FairTimeout, seconds_for


@pytest.mark.looptime
async def test_what_takes_too_long_is_ended_in_time() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        async with FairTimeout(0.1):
            await asyncio.sleep(10)
    assert loop.time() - began == pytest.approx(0.1, abs=0.01)


@pytest.mark.looptime
async def test_cancellation_passes_through() -> None:
    async def work() -> None:
        async with FairTimeout(1):
            await asyncio.sleep(10)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_answer_that_came_while_the_loop_was_busy_still_counts() -> None:
    """The pipe is readable long before the deadline; the loop only looks at it after the timer."""
    reader, writer = await _pipe()
    async with FairTimeout(0.05):
        writer.write(b"answer")
        time.sleep(0.1)  # noqa: ASYNC251  the stall is what is tested
        assert await reader.readexactly(6) == b"answer"
    writer.close()


async def test_a_loop_that_is_always_late_does_not_wait_for_ever() -> None:
    waits = 0

    def stall() -> None:
        nonlocal waits
        waits += 1
        time.sleep(0.03)
        if waits < 100:
            asyncio.get_running_loop().call_soon(stall)

    asyncio.get_running_loop().call_soon(stall)
    with pytest.raises(TimeoutError):
        async with FairTimeout(0.001):
            await asyncio.Event().wait()
    assert waits <= 2 * (AGAIN + 2)


async def _pipe() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    ends: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
        asyncio.get_running_loop().create_future()
    )

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.set_result((reader, writer))

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    reader, _ = await ends
    server.close()
    return reader, writer


class Answer:
    """An answer that comes in pieces; `come` of its bytes have come."""

    def __init__(self) -> None:
        self.come = 0

    async def read(self, pieces: int, size: int, every_seconds: float) -> None:
        """Comes in pieces of this size, and then not to its end."""
        async with FairTimeout(0.1, lambda: self.come):
            for _ in range(pieces):
                await asyncio.sleep(every_seconds)
                self.come += size
            await asyncio.sleep(10)


@pytest.mark.looptime
async def test_an_answer_has_the_time_of_the_bytes_that_have_come() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        await Answer().read(5, HONEST_BYTES_PER_SECOND // 10, 0.09)
    assert loop.time() - began == pytest.approx(0.6, abs=0.01)


@pytest.mark.looptime
async def test_a_byte_now_and_then_earns_nothing() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        await Answer().read(100, 1, 0.01)
    assert loop.time() - began == pytest.approx(0.1, abs=0.011)


def test_no_exchange_has_time_for_more_bytes_than_the_largest_answer_has() -> None:
    assert seconds_for(1 << 40) == seconds_for(64 << 20) == 8
