"""What is refused at the door, when, and for how long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cachesvc.config import Server
from cachesvc.errors import RequestError
from cachesvc.web.overload import PATIENCE_SECONDS, TICK_SECONDS, Overload


class LateLoop:
    """Makes the ticks of an `Overload` find themselves late, on the fake clock: the timer is set for earlier than it runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.late = 0.0
        loop = asyncio.get_running_loop()
        call_at = loop.call_at
        monkeypatch.setattr(loop, "call_at", lambda when, *rest, **more: call_at(when + self.late, *rest, **more))


@asynccontextmanager
async def watching(limits: Server = Server()) -> AsyncIterator[Overload]:  # noqa: B008  frozen
    overload = Overload(limits)
    overload.start()
    yield overload
    overload.stop()


def is_refused(overload: Overload) -> bool:
    try:
        with overload:
            return False
    except RequestError:
        return True


async def test_a_loop_that_is_on_time_refuses_nothing() -> None:
    async with watching() as overload:
        assert not is_refused(overload)
        assert repr(overload) == "<Overload [0 in progress, 0 shed]>"


@pytest.mark.looptime
async def test_late_for_a_moment_is_a_burst_and_late_for_a_second_is_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = LateLoop(monkeypatch)
    async with watching() as overload:
        loop.late = 0.3
        await asyncio.sleep(PATIENCE_SECONDS / 2)
        assert not is_refused(overload)
        await asyncio.sleep(2 * PATIENCE_SECONDS)
        assert is_refused(overload)
        assert overload.shed == 1
        loop.late = 0.0
        await asyncio.sleep(0.3 + 3 * TICK_SECONDS)
        assert not is_refused(overload), "on time again"


@pytest.mark.looptime
async def test_a_break_in_the_lateness_begins_the_second_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = LateLoop(monkeypatch)
    async with watching() as overload:
        for _ in range(5):
            loop.late = 0.3
            await asyncio.sleep(0.8)
            loop.late = 0.0
            await asyncio.sleep(0.8)
        assert not is_refused(overload)


async def test_more_than_so_many_at_once_are_refused() -> None:
    async with watching(Server(max_in_progress=2)) as overload:
        with overload, overload:
            with pytest.raises(RequestError) as refused:
                overload.__enter__()
            error = refused.value
            assert (error.status, error.kind, error.retryable, error.retry_after) == (503, "overloaded", True, 1)
        assert not is_refused(overload)
        assert overload.in_progress == 0


async def test_a_request_that_fails_is_not_in_progress_any_more() -> None:
    async with watching() as overload:
        with pytest.raises(ZeroDivisionError), overload:
            raise ZeroDivisionError
        assert overload.in_progress == 0
