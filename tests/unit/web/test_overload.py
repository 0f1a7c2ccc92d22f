"""Requests are refused at the door under overload: which ones, when, and for how long."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cachesvc.config.service import Server
from cachesvc.model.errors import RequestError
from cachesvc.web.overload import CALM_SECONDS, LEAST, PATIENCE, WINDOW_SECONDS, Overload

OVERLOADED = (PATIENCE + 0.5) * WINDOW_SECONDS


class Process:
    """An instance that does so many requests a second, first come first served, and is asked for so many; on the fake clock."""

    step = 0.01

    def __init__(self, *, busy: float = 1.0) -> None:
        self.busy = busy
        """Share of a core that the process uses."""
        self.overload = Overload(Server(), self.core_time)
        self.served = 0.0
        self._within = 0
        self._passed = 0.0

    def core_time(self) -> float:
        return self._passed * self.busy

    async def run(self, seconds: float, *, asked: float, can: float) -> None:
        """Rates, per second."""
        due = room = 0.0
        for _ in range(round(seconds / self.step)):
            due, room = due + asked * self.step, min(room + can * self.step, can * self.step + 1)
            while due >= 1:
                due -= 1
                self._within += not is_refused(self.overload, stays=True)
            while room >= 1 and self._within:
                room -= 1
                self._within -= 1
                self.served += 1
                self.overload.__exit__(None)
            await asyncio.sleep(self.step)
            self._passed += self.step


@asynccontextmanager
async def running(**settings: float) -> AsyncIterator[Process]:
    process = Process(**settings)
    process.overload.start()
    yield process
    process.overload.stop()


def is_refused(overload: Overload, *, stays: bool = False) -> bool:
    try:
        overload.__enter__()
    except RequestError:
        return True
    if not stays:
        overload.__exit__(None)
    return False


@pytest.mark.looptime
async def test_a_process_that_does_what_it_is_asked_refuses_nothing() -> None:
    async with running() as process:
        await process.run(5, asked=500, can=600)
        assert process.overload.shed == 0
        assert not process.overload.is_shedding


@pytest.mark.looptime
async def test_a_burst_is_let_in_and_a_queue_that_stands_is_not() -> None:
    async with running() as process:
        await process.run(0.1, asked=3000, can=600)
        await process.run(2, asked=300, can=600)
        assert process.overload.shed == 0
        await process.run(OVERLOADED, asked=3000, can=600)
        assert process.overload.is_shedding


@pytest.mark.looptime
async def test_under_three_times_the_load_it_goes_on_doing_what_it_can_and_nobody_let_in_waits_long() -> None:
    async with running() as process:
        await process.run(5, asked=1800, can=600)
        before = process.served
        await process.run(5, asked=1800, can=600)
        assert process.served - before == pytest.approx(3000, rel=0.05)
        assert process.overload.in_progress / 600 <= 1.2 * Server().max_delay.seconds, (
            "Little's law: their wait"
        )


@pytest.mark.looptime
async def test_it_is_over_when_nobody_was_refused_for_a_second() -> None:
    async with running() as process:
        await process.run(5, asked=1800, can=600)
        await process.run(CALM_SECONDS + 1, asked=300, can=600)
        assert not process.overload.is_shedding
        assert "shedding" not in repr(process.overload)


@pytest.mark.looptime
async def test_requests_that_wait_for_an_origin_are_not_refused_while_the_process_has_time() -> None:
    async with running(busy=0.3) as process:
        await process.run(5, asked=300, can=100)
        assert process.overload.in_progress > 900
        assert process.overload.shed == 0


@pytest.mark.looptime
async def test_a_few_are_let_in_even_if_nothing_is_done_at_all() -> None:
    async with running() as process:
        await process.run(1, asked=1000, can=0)
        assert process.overload.is_shedding
        await process.run(60, asked=1000, can=20)
        assert process.overload.in_progress == pytest.approx(LEAST, abs=1)


async def test_more_than_so_many_at_once_are_refused() -> None:
    overload = Overload(Server(max_in_progress=2), float)
    with overload, overload:
        with pytest.raises(RequestError) as refused:
            overload.__enter__()
        error = refused.value
        assert (error.status, error.kind, error.retryable, error.kind.retry_after_seconds) == (
            503,
            "overloaded",
            True,
            1,
        )
        assert repr(overload) == "<Overload [2 in progress, 1 shed]>"
    assert not is_refused(overload)
    assert overload.in_progress == 0


async def test_a_request_that_fails_is_not_in_progress_any_more() -> None:
    overload = Overload(Server(), float)
    with pytest.raises(ZeroDivisionError), overload:
        raise ZeroDivisionError
    assert overload.in_progress == 0


@pytest.mark.looptime
async def test_requests_that_wait_for_others_are_no_load_of_this_process() -> None:
    """The process is busy with others; 300 requests wait for one slow lease, or for their callers."""
    waiting = 0
    async with running() as process:
        process.overload = Overload(Server(), process.core_time, lambda: waiting)
        process.overload.start()
        for _ in range(300):
            process.overload.__enter__()
        waiting = 300
        await process.run(5, asked=500, can=600)
        assert process.overload.shed == 0
        waiting = 0
        with contextlib.ExitStack() as uploads:
            for _ in range(300):
                uploads.enter_context(process.overload.reading)
            await process.run(5, asked=500, can=600)
            assert process.overload.shed == 0
        assert process.overload.reading.count == 0
        await process.run(5, asked=500, can=600)
        assert process.overload.shed > 0, "they wait for this process now"
        process.overload.stop()


@pytest.mark.looptime
async def test_under_overload_those_that_wait_for_others_take_no_place() -> None:
    waiting = 0
    async with running() as process:
        process.overload.stop()
        process.overload = Overload(Server(), process.core_time, lambda: waiting)
        process.overload.start()
        await process.run(5, asked=1800, can=600)
        assert process.overload.is_shedding
        for _ in range(1000):  # they came before and wait for an origin
            process.overload.in_progress += 1
        waiting = 1000
        before = process.served
        await process.run(5, asked=1800, can=600)
        assert process.served - before == pytest.approx(3000, rel=0.1)


async def test_all_requests_count_for_the_most_at_once() -> None:
    overload = Overload(Server(max_in_progress=2), float, lambda: 2)
    with overload, overload, overload.reading:
        assert is_refused(overload)
