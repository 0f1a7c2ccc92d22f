"""A background loop survives whatever its step raises, and tells how it fares."""

import asyncio
import logging

import pytest

from cachesvc.model.errors import TierUnavailableError
from cachesvc.telemetry.loops import FAILING_SECONDS, PAUSE_SECONDS, STUCK_SECONDS, Loop, Loops
from cachesvc.telemetry.outage import Outage

pytestmark = pytest.mark.looptime


def loop_seconds() -> float:
    return asyncio.get_running_loop().time()


class Step:
    """A step that fails with `failure` while it is set, and counts its calls."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.failure = failure
        self.done = 0

    async def __call__(self) -> None:
        self.done += 1
        if self.failure is not None:
            raise self.failure


@pytest.mark.parametrize(
    "failure",
    [
        ValueError("a reply of two items"),
        KeyError("a field that INFO lacks"),
        RecursionError(),
        MemoryError(),
        ExceptionGroup("of a task group", [ValueError("one")]),
        asyncio.CancelledError(),  # of something that the step awaited: nobody cancelled the loop
        TierUnavailableError("queue", "reset"),
        RuntimeError("uvloop"),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_no_exception_ends_it(failure: BaseException) -> None:
    loop, step = Loop("feed", now=loop_seconds), Step(failure)
    running = asyncio.create_task(loop.run(step, every_seconds=1.0))
    await asyncio.sleep(PAUSE_SECONDS * 10.5)
    assert (step.done, loop.failures) == (11, 11)
    step.failure = None
    await asyncio.sleep(2)
    assert (step.done, loop.failures, loop.trouble) == (13, 11, "")
    running.cancel()


async def test_a_cancellation_ends_it_also_while_a_step_runs() -> None:
    loop = Loop("feed", now=loop_seconds)
    running = asyncio.create_task(loop.run(asyncio.Event().wait))  # type: ignore[arg-type]  # never returns
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert loop.trouble == "has ended"


async def test_a_defect_is_logged_once_with_its_traceback_and_a_server_once_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = Loop("feed", outage=Outage("the queue", logging.getLogger("far")), now=loop_seconds)
    for failure in (TierUnavailableError("queue", "reset"), ValueError("a secret key")):
        for _ in range(20):
            await loop.once(Step(failure))
    assert [(record.getMessage(), bool(record.exc_info)) for record in caplog.records] == [
        ("the queue fails: queue: reset", False),
        (caplog.records[1].getMessage(), True),
    ]
    assert caplog.records[1].getMessage().startswith("the loop 'feed' fails: ValueError at test_loops.py:")
    assert "secret" not in loop.trouble


async def test_what_keeps_failing_is_named_and_what_fails_now_and_then_is_not() -> None:
    often, once = Loop("often", now=loop_seconds), Loop("once", now=loop_seconds)
    loops = Loops([often])
    loops.watch([once])
    failing, working = Step(TierUnavailableError("queue", "reset")), Step()
    await often.once(failing)
    await once.once(failing)
    await asyncio.sleep(FAILING_SECONDS)
    await often.once(failing)
    await once.once(working)
    assert loops.troubles() == {"often": "has failed for 5 s: queue: reset"}
    assert {name: (one.failures, one.is_troubled) for name, one in loops.statistics().items()} == {
        ("often",): (2, True),
        ("once",): (1, False),
    }
    await often.once(working)
    assert not loops.troubles()


async def test_a_step_that_does_not_return_is_named() -> None:
    loop = Loop("feed", now=loop_seconds)
    running = asyncio.create_task(loop.once(asyncio.Event().wait))  # type: ignore[arg-type]
    await asyncio.sleep(STUCK_SECONDS + 1)
    assert loop.trouble == "is stuck in one step, for 61 s"
    running.cancel()


async def test_a_loop_that_has_not_begun_is_well() -> None:
    assert Loop("feed").trouble == ""
    assert repr(Loop("feed")) == "<Loop feed [well, 0 failures]>"


async def test_an_end_that_nobody_asked_for_is_named() -> None:
    loop = Loop("export of spans")
    with pytest.raises(ValueError, match="of the thread"), loop.alive():
        raise ValueError("of the thread")
    assert loop.trouble.startswith("has ended: ValueError at test_loops.py:")
