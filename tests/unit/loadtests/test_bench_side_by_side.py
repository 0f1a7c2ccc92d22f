"""The side-by-side comparison of the SDK: its phases with ways of reading whose figures are known, and the table made of them."""

import asyncio
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from loadtests.bench import sdk_phases
from loadtests.bench.figures import BenchError, Goal
from loadtests.bench.sdk_phases import Measured, Phases, Plan, Process, joined
from loadtests.bench.sdk_rivals import WAYS, Ages, Backends, Load, Read, Way, way
from loadtests.bench.sdk_side_by_side import Figures, figures_of, table

PLAN = Plan(
    Backends("http://127.0.0.1:1", 1),
    processes=2,
    readers=3,
    warm_seconds=0.02,
    stampedes=4,
    crowd=5,
    ages=Ages(refresh=0.035, most=0.05),
    expiries=1,
    run="test",
)


@asynccontextmanager
async def no_cache(_backends: Backends, load: Load, _ages: Ages) -> AsyncIterator[Read]:
    yield load


@asynccontextmanager
async def one_dict(_backends: Backends, load: Load, _ages: Ages) -> AsyncIterator[Read]:
    """One load per key, for good."""
    held: dict[str, asyncio.Future[bytes]] = {}

    async def read(key: str) -> bytes:
        if key not in held:
            held[key] = asyncio.ensure_future(load(key))
        return await held[key]

    yield read


@asynccontextmanager
async def mixed_up(_backends: Backends, load: Load, _ages: Ages) -> AsyncIterator[Read]:
    async def read(key: str) -> bytes:
        return await load(f"{key}, or another")

    yield read


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk_phases, "ORIGIN_SECONDS", 0.0)
    monkeypatch.setattr(sdk_phases, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(sdk_phases, "KEYS", 10)
    for name, open_ in (("no cache", no_cache), ("one dict", one_dict), ("mixed up", mixed_up)):
        monkeypatch.setitem(WAYS, name, Way(open_, "redis", "for a test"))


async def phases_of(name: str, meetings: list[None] | None = None) -> Phases:
    async def meet() -> None:
        if meetings is not None:
            meetings.append(None)

    return await Process(PLAN, name, 0, meet).phases()


async def test_without_a_cache_every_read_is_a_load() -> None:
    measured = await phases_of("no cache")
    for phase in (measured.warm, measured.stampede, measured.expiry):
        assert phase.loads == len(phase.latencies) > 0
    assert measured.stampede.loads == PLAN.stampedes * PLAN.crowd


async def test_warm_reads_load_nothing_and_a_stampede_needs_one_load() -> None:
    measured = await phases_of("one dict")
    assert [measured.warm.loads, measured.stampede.loads, measured.expiry.loads] == [0, PLAN.stampedes, 0]
    assert len(measured.stampede.latencies) == PLAN.stampedes * PLAN.crowd


async def test_a_way_that_answers_another_value_has_no_figures() -> None:
    with pytest.raises(
        BenchError, match=r"redis .*: for a test answered another value of 'test-mixed-up-doc-0'"
    ):
        await phases_of("mixed up")


async def test_every_process_meets_the_others_as_often_whatever_it_reads_through() -> None:
    met: dict[str, list[None]] = {"no cache": [], "one dict": []}
    for name, meetings in met.items():
        await phases_of(name, meetings)
    assert {len(meetings) for meetings in met.values()} == {2 + PLAN.stampedes + 1 + 2}


def phase(seconds: float, loads: int, latencies: list[float]) -> Measured:
    return Measured(seconds, loads, array("d", latencies))


def test_the_processes_are_counted_together_and_the_longest_of_them_is_the_time() -> None:
    one = Phases(phase(2.0, 0, [0.001] * 99), phase(1.0, 1, [0.02]), phase(1.0, 2, [0.001]))
    other = Phases(phase(1.0, 0, [0.004]), phase(1.0, 3, [0.03]), phase(1.0, 1, [0.002]))
    assert figures_of(joined([one, other]), PLAN) == Figures(
        reads_per_second=50,
        p99_ms=1.0,
        loads=0,
        stampede_p99_ms=30,
        stampede_loads=1.0,
        expiry_p99_ms=2.0,
        expiry_loads=3.0,
    )


def test_the_table_says_who_is_compared_with_which_settings() -> None:
    lines = table({"by hand": Figures(21_783.4, 12.304, 0, 31.44, 200.0, 4.9, 29.5)}, PLAN)
    assert "by hand            21,783     12.3       0 │      31.4   200.0 │       4.9    29.5" in lines
    assert lines[-1].startswith("by hand        redis ")


def test_a_way_that_is_not_there_is_named() -> None:
    with pytest.raises(BenchError, match="no way to read is called 'memory'"):
        way("memory")


def test_a_row_without_a_goal_is_shown_and_not_judged() -> None:
    assert (str(Goal(0)), Goal(0).met_by(0.1)) == ("–", True)
