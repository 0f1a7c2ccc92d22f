"""Every trace is held back by something: take the protection out, and the trace's test fails.

So a test that cannot fail, and a protection that no test needs, are both found here.
"""

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from types import ModuleType

import pytest

from cachesvc.model.errors import RequestError, TierError
from clients.python.tests import test_traces as test_traces_in_the_sdk
from tests.contracts import cell_benches, queue_benches
from tests.doubles.edits import InPython
from tests.doubles.mutants import MUTANTS, without
from tests.doubles.servers import RealServer
from tests.paths import (
    test_moving,
    test_traces_at_home,
    test_traces_changes,
    test_traces_journal,
    test_traces_live,
    test_traces_names,
    test_traces_on_the_queue,
    test_traces_parked,
    test_traces_reading,
    test_traces_relays,
    test_traces_servers,
    test_traces_source,
    test_traces_streams,
    test_traces_times,
    test_warm_homes,
    test_warm_restart,
)

Trace = Callable[..., Awaitable[None]]
Benches = Mapping[str, Callable[[], AbstractAsyncContextManager[object]]]
"""The benches that traces may ask for, by the name of the argument."""

ON_A_SERVER = (test_traces_at_home, test_traces_on_the_queue)
ON_FAKES = (
    *ON_A_SERVER,
    test_traces_times,
    test_traces_reading,
    test_traces_changes,
    test_traces_streams,
    test_traces_relays,
    test_traces_parked,
    test_traces_names,
    test_traces_servers,
    test_traces_journal,
    test_traces_live,
    test_traces_source,
    test_moving,
    test_warm_homes,
    test_warm_restart,
)
IN_THE_SDK = (test_traces_in_the_sdk,)

IN_MEMORY: Benches = {"bench": cell_benches.memory_bench, "queue": queue_benches.memory_bench}

LONGEST_SECONDS = 3600
"""Seconds of the fake clock: a trace that hangs without its protection has failed."""
FAILURES = (AssertionError, TimeoutError, RequestError, TierError)
"""The errors that a trace may fail with. Any other error says that the mutant is no program."""


def _traces(modules: Iterable[ModuleType]) -> dict[int, list[Trace]]:
    found: dict[int, list[Trace]] = {}
    for module in modules:
        for name, test in vars(module).items():
            if match := re.match(r"test_trace_(\d\d)_", name):
                found.setdefault(int(match[1]), []).append(test)
    return found


TRACES = _traces(ON_FAKES)
SDK_TRACES = _traces(IN_THE_SDK)
SERVER_TRACES = _traces(ON_A_SERVER)
EACH = [(number, test) for number, tests in TRACES.items() for test in tests]
PAIRS = [(name, number) for name, mutant in MUTANTS.items() for number in mutant.breaks if number in TRACES]
SDK_PAIRS = [
    (name, number) for name, mutant in MUTANTS.items() for number in mutant.breaks if number in SDK_TRACES
]
IN_A_SERVER = [
    name
    for name, mutant in MUTANTS.items()
    if any(not isinstance(edit, InPython) or "redis" in edit.where for edit in mutant.edits)
]


@pytest.fixture
def taken_out(name: str) -> Iterator[None]:
    """Without the protection. No loop runs yet: what is imported for it may read its Lua."""
    with without(name):
        yield


@pytest.mark.parametrize("number", range(1, 95))
def test_every_trace_is_a_test_and_something_holds_it_back(number: int) -> None:
    assert TRACES.get(number) or SDK_TRACES.get(number)
    assert [name for name, mutant in MUTANTS.items() if number in mutant.breaks]


@pytest.mark.parametrize("name", MUTANTS)
def test_a_protection_that_was_taken_out_can_be_put_back(name: str) -> None:
    for _ in range(2):
        with without(name):
            pass


@pytest.mark.looptime
@pytest.mark.usefixtures("taken_out")
@pytest.mark.parametrize(("name", "number"), PAIRS)
async def test_without_the_protection_the_trace_happens(
    name: str, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert await _one_fails(TRACES[number], IN_MEMORY), f"trace {number} is held back without {name}"
    assert not _surprises(caplog)


@pytest.mark.looptime
@pytest.mark.parametrize(("number", "test"), EACH, ids=[test.__name__ for _, test in EACH])
async def test_a_trace_can_happen(number: int, test: Trace) -> None:
    """There is a protection of its own without which this very test fails."""
    for name in (name for name, mutant in MUTANTS.items() if number in mutant.breaks):
        with without(name):
            if await _one_fails([test], IN_MEMORY):
                return
    pytest.fail("it holds whatever is taken out")


@pytest.mark.usefixtures("taken_out")
@pytest.mark.parametrize(("name", "number"), SDK_PAIRS)
async def test_without_the_protection_the_trace_happens_in_the_sdk(name: str, number: int) -> None:
    assert await _one_fails(SDK_TRACES[number], {}), f"trace {number} is held back without {name}"


@pytest.mark.usefixtures("taken_out")
@pytest.mark.parametrize("name", IN_A_SERVER)
async def test_without_the_protection_a_trace_happens_on_a_real_server(name: str, server: RealServer) -> None:
    benches: Benches = {
        "bench": partial(cell_benches.redis_bench, server),
        "queue": partial(queue_benches.redis_bench, server),
    }
    tests = [test for number in MUTANTS[name].breaks for test in SERVER_TRACES.get(number, ())]
    assert await _one_fails(tests, benches)


async def _one_fails(tests: Iterable[Trace], benches: Benches) -> bool:
    for test in tests:
        try:
            async with asyncio.timeout(LONGEST_SECONDS), AsyncExitStack() as stack:
                wanted = [benches[name] for name in inspect.signature(test).parameters]
                await test(*[await stack.enter_async_context(bench()) for bench in wanted])
        except FAILURES:
            return True
    return False


def _surprises(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Background tasks that ended in what is no outcome of a trace."""
    ended = (record for record in caplog.records if record.exc_info and record.exc_info[1])
    return [record.getMessage() for record in ended if not isinstance(record.exc_info[1], FAILURES)]  # type: ignore[index]
