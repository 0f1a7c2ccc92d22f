"""Requests are refused at the door under overload: which ones, when, and for how long."""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from cachesvc.config.service import Server
from cachesvc.model.caller import ANONYMOUS, Caller
from cachesvc.model.errors import RequestError
from cachesvc.web.overload import (
    BUSY_SHARE,
    CALM_SECONDS,
    LEAST,
    LONGEST_CROWD,
    PATIENCE,
    ROOM_SHARE,
    WINDOW_SECONDS,
    Member,
    Overload,
    fair_level,
)

OVERLOADED = (PATIENCE + 0.5) * WINDOW_SECONDS


class Process:
    """An instance that does so much a second, first come first served, on the fake clock."""

    step = 0.01

    def __init__(self, *, busy: float = 1.0) -> None:
        self.busy = busy
        """Share of a core that the process uses."""
        self.overload = Overload(Server(), self.core_time)
        self.served = 0.0
        self.served_of: Counter[Asker] = Counter()
        self.refused_of: Counter[Asker] = Counter()
        self.longest: dict[Asker, float] = {}
        """The longest stay of a request that was let in, in seconds."""
        self._queue: deque[tuple[Member, Asker, float, float]] = deque()
        self._passed = 0.0
        self._worked = 0.0
        self.is_working = False
        """True: it uses its core for no more than it has to do."""

    def core_time(self) -> float:
        return self._worked

    async def run(
        self, seconds: float, *, can: float, asked: float = 0.0, by: "Mapping[Asker, float] | None" = None
    ) -> None:
        """Rates, per second. `by`: the rate of each asker; a request takes the room of its keys."""
        rates = {("pages", ANONYMOUS, 1): asked} if by is None else by
        due = dict.fromkeys(rates, 0.0)
        room = 0.0
        for _ in range(round(seconds / self.step)):
            room = min(room + can * self.step, can * self.step + 20)
            for asker, rate in rates.items():
                due[asker] += rate * self.step
            while asking := [asker for asker in rates if due[asker] >= 1]:
                due[asking[0]] -= 1
                self.ask(asking[0])
            while self._queue and room >= self._queue[0][3]:
                member, asker, came, cost = self._queue.popleft()
                room -= cost
                self.served += 1
                self.served_of[asker] += 1
                self.longest[asker] = max(self.longest.get(asker, 0.0), self._passed - came)
                self._worked += cost / can if self.is_working else 0.0
                member.__exit__(None)
            await asyncio.sleep(self.step)
            self._passed += self.step
            self._worked += 0.0 if self.is_working else self.busy * self.step

    def ask(self, asker: "Asker") -> None:
        namespace, caller, keys = asker
        try:
            member = self.overload.admit(namespace, caller)
        except RequestError:
            self.refused_of[asker] += 1
            return
        member.__enter__()
        if keys > 1:
            self.overload.weigh(namespace, keys)
        self._queue.append((member, asker, self._passed, 1 + (keys if keys > 1 else 0) / 32))


Asker = tuple[str, Caller, int]
"""A namespace, a caller in it, and the keys of each of its requests."""


@asynccontextmanager
async def running(**settings: float) -> AsyncIterator[Process]:
    process = Process(**settings)
    process.overload.start()
    yield process
    process.overload.stop()


def is_refused(overload: Overload, *, stays: bool = False, namespace: str = "pages") -> bool:
    try:
        member = overload.admit(namespace)
    except RequestError:
        return True
    member.__enter__()
    if not stays:
        member.__exit__(None)
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
async def test_overload_ends_once_the_process_has_time_whatever_else_requests_wait_for() -> None:
    """After overload, requests come that wait long for something else, faster than before."""
    async with running() as process:
        await process.run(5, asked=1800, can=600)
        process.busy = 0.3
        await process.run(4, asked=400, can=64)
        shed = process.overload.shed
        await process.run(3, asked=400, can=64)
        assert process.overload.shed == shed
        assert not process.overload.is_shedding


@pytest.mark.looptime
async def test_a_few_are_let_in_even_if_nothing_is_done_at_all() -> None:
    async with running() as process:
        await process.run(1, asked=1000, can=0)
        assert process.overload.is_shedding
        await process.run(60, asked=1000, can=20)
        assert process.overload.in_progress == pytest.approx(LEAST, abs=1)


async def test_more_than_so_many_at_once_are_refused() -> None:
    overload = Overload(Server(max_in_progress=2), float)
    with overload.admit("pages"), overload.admit("pages"):
        with pytest.raises(RequestError) as refused:
            overload.admit("pages")
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
    with pytest.raises(ZeroDivisionError), overload.admit("pages"):
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
            assert not is_refused(process.overload, stays=True)
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
    with overload.admit("pages"), overload.admit("pages"), overload.reading:
        assert is_refused(overload)


@pytest.mark.looptime
async def test_a_core_time_that_cannot_be_read_does_not_end_the_windows() -> None:
    def unreadable() -> float:
        raise ValueError("another format of /proc")

    overload = Overload(Server(), unreadable)
    overload.start()
    await asyncio.sleep(10 * WINDOW_SECONDS + 0.01)
    assert overload.loop.failures == 21
    assert overload.loop.trouble == ""
    assert not is_refused(overload)
    overload.stop()


# shares ---------------------------------------------------------------------------------------------

LOUD, QUIET = ("loud", ANONYMOUS, 1), ("quiet", ANONYMOUS, 1)


def test_the_fair_level_is_that_of_max_min_fairness() -> None:
    assert fair_level(10, [2, 3, 4]) == float("inf"), "enough for all"
    assert fair_level(10, [2, 8]) == float("inf")
    assert fair_level(10, [2, 9]) == 8
    assert fair_level(10, [9, 9, 1]) == 4.5
    assert fair_level(9, [9, 9, 9]) == 3
    assert fair_level(0, []) == float("inf")


@pytest.mark.looptime
@pytest.mark.parametrize("share", [0.1, 0.3, 0.45])
async def test_a_namespace_at_three_times_what_can_be_done_costs_another_nothing(share: float) -> None:
    async with running() as process:
        process.is_working = True
        rates = {LOUD: 1800.0, QUIET: share * 600}
        await process.run(5, can=600, by=rates)
        before, refused = process.served_of[QUIET], process.refused_of[QUIET]
        assert refused == 0, "not even before the shares were known"
        process.longest.clear()
        served = process.served
        await process.run(10, can=600, by=rates)
        assert process.overload.is_shedding
        assert process.refused_of[QUIET] == refused
        assert process.served_of[QUIET] - before == pytest.approx(share * 6000, rel=0.05)
        assert process.served - served >= ROOM_SHARE * 6000, "the core stays busy"
        assert process.longest[QUIET] <= 0.5 * Server().max_delay.seconds, "it does not wait behind the crowd"
        assert process.overload.shed == process.overload.shed_by_namespace["loud"]


@pytest.mark.looptime
async def test_the_crowd_is_let_in_only_while_next_to_nothing_waits() -> None:
    """A queue of two would stand before each request of the others."""
    async with running() as process:
        await process.run(5, can=300, by={LOUD: 900.0, QUIET: 75.0})
        assert process.overload.is_shedding
        quiet = process.overload.admit("quiet")
        with quiet:
            assert is_refused(process.overload, namespace="loud")


@pytest.mark.looptime
async def test_a_queue_that_grew_while_there_was_time_left_is_cut_once_there_is_none() -> None:
    """The crowd waited for far servers, and now waits for this process."""
    async with running() as process:
        rates = {LOUD: 900.0, QUIET: 75.0}
        await process.run(5, can=300, by=rates)
        process.busy = 0.3
        await process.run(2, can=300, by=rates)
        assert process.overload._crowd_bound > 4 * LONGEST_CROWD
        process.busy = 1.0
        await process.run(2 * WINDOW_SECONDS, can=300, by=rates)
        assert process.overload._crowd_bound <= LONGEST_CROWD


@pytest.mark.looptime
async def test_the_queue_of_the_crowd_does_not_grow_for_the_last_part_of_the_core() -> None:
    """It would grow and shrink in turns, and the others would wait behind it half of the time."""
    async with running() as process:
        rates = {LOUD: 900.0, QUIET: 75.0}
        await process.run(5, can=300, by=rates)
        assert (before := process.overload._crowd_bound) == 1
        process.busy = (ROOM_SHARE + BUSY_SHARE) / 2
        await process.run(4 * WINDOW_SECONDS, can=300, by=rates)
        assert process.overload._crowd_bound == before
        process.busy = ROOM_SHARE - 0.05
        await process.run(2 * WINDOW_SECONDS, can=300, by=rates)
        assert process.overload._crowd_bound > before


@pytest.mark.looptime
async def test_refusals_do_not_make_the_shares_of_others_smaller() -> None:
    """The process does little, because it refuses much: who asks for half of it is no crowd."""
    async with running() as process:
        rates = {LOUD: 6000.0, QUIET: 250.0}
        await process.run(5, can=300, by=rates)
        refused = process.refused_of[QUIET]
        await process.run(5, can=300, by=rates)
        assert process.overload.is_shedding
        assert process.refused_of[QUIET] == refused


@pytest.mark.looptime
async def test_callers_in_a_namespace_share_its_part() -> None:
    loud, quiet, other = (("a", Caller("loud"), 1), ("a", Caller("quiet"), 1), ("b", ANONYMOUS, 1))
    async with running() as process:
        process.is_working = True
        rates = {loud: 1800.0, quiet: 60.0, other: 180.0}
        await process.run(5, can=600, by=rates)
        refused = Counter(process.refused_of)
        await process.run(5, can=600, by=rates)
        assert process.refused_of[loud] > refused[loud]
        assert process.refused_of[quiet] == refused[quiet]
        assert process.refused_of[other] == refused[other]


@pytest.mark.looptime
async def test_two_that_both_ask_for_too_much_are_both_refused() -> None:
    async with running() as process:
        rates = {LOUD: 1800.0, QUIET: 900.0}
        await process.run(5, can=600, by=rates)
        before = Counter(process.served_of)
        await process.run(5, can=600, by=rates)
        served = process.served_of - before
        assert served.total() == pytest.approx(3000, rel=0.05)
        assert process.overload.in_progress / 600 <= 1.2 * Server().max_delay.seconds


@pytest.mark.looptime
async def test_a_request_of_many_keys_counts_for_more_than_one_of_a_single_key() -> None:
    """Few requests that are large are the crowd, and many small ones are not."""
    large, small = ("large", ANONYMOUS, 320), ("small", ANONYMOUS, 1)
    async with running() as process:
        process.is_working = True
        rates = {large: 150.0, small: 200.0}  # 1650 and 200 units, of 600
        await process.run(5, can=600, by=rates)
        refused = process.refused_of[small]
        await process.run(5, can=600, by=rates)
        assert process.refused_of[small] == refused
        assert process.refused_of[large] > 0


@pytest.mark.looptime
async def test_one_that_becomes_loud_is_the_crowd_before_the_window_ends() -> None:
    async with running() as process:
        process.is_working = True
        await process.run(5, can=600, by={LOUD: 1800.0, QUIET: 60.0})
        assert process.overload.is_shedding
        new = ("new", ANONYMOUS, 1)
        refused = process.refused_of[QUIET]
        await process.run(0.2, can=600, by={LOUD: 1800.0, QUIET: 60.0, new: 6000.0})
        assert process.refused_of[new] > 0
        assert process.refused_of[QUIET] == refused


@pytest.mark.looptime
async def test_what_nobody_uses_any_more_is_forgotten() -> None:
    async with running() as process:
        await process.run(1.5, can=600, by={(f"n{i}", Caller(f"c{i}"), 1): 1.0 for i in range(100)})
        await asyncio.sleep(20 * WINDOW_SECONDS)
        assert not process.overload._rooms


def test_nobody_takes_all_of_the_most_at_once_if_there_are_others() -> None:
    overload = Overload(Server(max_in_progress=80), float)
    with overload.admit("quiet"), contextlib.ExitStack() as held:
        for _ in range(70):
            held.enter_context(overload.admit("loud"))
        with pytest.raises(RequestError):
            overload.admit("loud")
        assert overload.in_progress == 71, "7/8 of the whole, and that of the other"
        with overload.admit("quiet"), overload.admit("third"):
            pass


def test_one_alone_may_take_all_of_the_most_at_once() -> None:
    overload = Overload(Server(max_in_progress=80), float)
    with contextlib.ExitStack() as held:
        for _ in range(80):
            held.enter_context(overload.admit("loud"))
        with pytest.raises(RequestError):
            overload.admit("loud")
