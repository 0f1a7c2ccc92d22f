"""The thread of one server: jobs in order, and a connection that an abandoned job may have lost is never used again."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from cachesvc.model.errors import TierTimeoutError, TierUnavailableError
from cachesvc.tiers.l2.memcached_client import PipelinedClient
from cachesvc.tiers.l2.memcached_thread import MemcachedThread


class RecordingClient(PipelinedClient):
    """Records what is done to its connection; connected from the start."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1:1")
        self.events: list[str] = []
        self.sock: RecordingClient | None = self  # `shutdown` is the socket's
        self.is_learning = False

    def shutdown(self, how: int) -> None:
        self.events.append("shutdown")

    def close(self) -> None:
        self.events.append("close")
        self.sock = None


@pytest.fixture
def client() -> RecordingClient:
    return RecordingClient()


@pytest.fixture
async def thread(client: RecordingClient) -> AsyncIterator[MemcachedThread]:
    thread = MemcachedThread("memcached mc-0", client)
    await thread.start()
    yield thread
    await thread.stop()


class Work:
    """Blocks the thread until the test says so."""

    def __init__(self, client: RecordingClient, name: str) -> None:
        self.client = client
        self.name = name
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self, _: PipelinedClient) -> str:
        self.client.events.append(self.name)
        self.begun.set()
        assert self.may_end.wait(10)
        return self.name


async def test_an_answer_that_arrives_as_its_caller_leaves_does_not_cost_the_next_caller_the_connection(
    thread: MemcachedThread, client: RecordingClient
) -> None:
    first, second = Work(client, "first"), Work(client, "second")
    leaver = asyncio.ensure_future(thread.run(first))
    await asyncio.to_thread(first.begun.wait, 10)
    next_one = asyncio.ensure_future(thread.run(second))
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    first.may_end.set()
    second.may_end.set()
    assert await next_one == "second"
    assert client.events == ["first", "shutdown", "close", "second"]


async def test_a_job_whose_caller_left_before_it_began_is_skipped(
    thread: MemcachedThread, client: RecordingClient
) -> None:
    first, second, third = (Work(client, name) for name in ("first", "second", "third"))
    jobs = [asyncio.ensure_future(thread.run(work)) for work in (first, second, third)]
    await asyncio.to_thread(first.begun.wait, 10)
    jobs[1].cancel()
    await asyncio.sleep(0)
    for work in (first, second, third):
        work.may_end.set()
    assert [await jobs[0], await jobs[2]] == ["first", "third"]
    assert client.events == ["first", "third"]


async def test_what_is_queued_is_done_before_the_thread_ends(client: RecordingClient) -> None:
    thread = MemcachedThread("memcached mc-0", client)
    await thread.start()
    works = [Work(client, name) for name in ("first", "second")]
    jobs = [asyncio.ensure_future(thread.run(work)) for work in works]
    await asyncio.sleep(0)
    stopping = asyncio.ensure_future(thread.stop())
    for work in works:
        work.may_end.set()
    assert await asyncio.gather(*jobs) == ["first", "second"]
    await stopping
    assert client.events[:3] == ["first", "second", "close"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError("timed out"), TierTimeoutError("memcached mc-0", "no answer in time")),
        (
            ConnectionResetError("reset"),
            TierUnavailableError("memcached mc-0", "ConnectionResetError: reset"),
        ),
        (KeyError("odd"), TierUnavailableError("memcached mc-0", "KeyError: 'odd'")),
    ],
)
async def test_whatever_is_raised_closes_the_connection_and_is_a_value(
    thread: MemcachedThread,
    client: RecordingClient,
    error: Exception,
    expected: TierTimeoutError | TierUnavailableError,
) -> None:
    def fail(_: PipelinedClient) -> None:
        raise error

    work: Callable[[PipelinedClient], None] = fail
    answer = await thread.run(work)
    assert (type(answer), str(answer)) == (type(expected), str(expected))
    assert client.events == ["close"]


async def test_a_connection_that_cannot_be_closed_does_not_end_the_thread(
    thread: MemcachedThread, client: RecordingClient
) -> None:
    def fail(_: PipelinedClient) -> None:
        raise ConnectionResetError("reset")

    def unclosable() -> None:
        raise OSError("bad file descriptor")

    client.close = unclosable  # type: ignore[method-assign]
    answer = await thread.run(fail)
    assert (type(answer), str(answer)) == (TierUnavailableError, "memcached mc-0: its thread failed")
    del client.close
    assert await thread.run(lambda _: "next") == "next"
    assert thread.loop.failures == 1


async def test_a_thread_that_does_not_end_holds_up_no_stop(
    client: RecordingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachesvc.tiers.l2.memcached_thread.STOP_SECONDS", 0.01)
    thread = MemcachedThread("memcached mc-0", client)
    await thread.start()
    work = Work(client, "endless")
    running = asyncio.ensure_future(thread.run(work))
    await asyncio.to_thread(work.begun.wait, 10)
    await asyncio.wait_for(thread.stop(), 5)
    assert not running.done()
    work.may_end.set()
    assert await running == "endless"
