"""The checker reports a violation when a protection of the service is switched off.

It does so within a bounded time. Both instances of `eu` run without the protection
(`tests/doubles/mutants.py`); the fault is one that the service withstands in every drill.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Set

import pytest
from msgspec import Struct
from msgspec.structs import replace

from cachesvc.commands.check.history import HistoryWriter
from cachesvc.commands.check.judge import judge
from cachesvc.commands.check.report import plain
from cachesvc.commands.check.settings import LoadDelays
from cachesvc.commands.check.verdicts import Verdict
from tests.doubles.mutants import MUTANTS
from tests.faults import breaking, results
from tests.faults.arena import DELAYS, LEASE_SECONDS, LOOK_ASIDE, MAX_LAG_SECONDS, MUTANT, NAMESPACE, Arena
from tests.faults.drill import Drill, checking, ended, without_deadlines

WITHIN_SECONDS = 120.0
"""Most are caught within a few seconds.

A violation that needs a race can take ten times as long on a busy machine.
"""
pytestmark = [pytest.mark.faults, pytest.mark.timeout(WITHIN_SECONDS + 60)]
SLOW = LoadDelays(slow=1, longest_seconds=0.2, late=0)
LATE = LoadDelays(slow=0.05, longest_seconds=LEASE_SECONDS, late=0.1, late_seconds=LEASE_SECONDS + 0.5)


Fault = Callable[[Drill], Awaitable[None]]


async def nothing(running: Drill) -> None:
    """No fault: the load is enough."""


class Mutation(Struct, frozen=True):
    """A protection that is switched off, and the load and the fault that show it."""

    without: str
    caught_by: Set[str]
    """Checks of which at least one must report; which of them is first depends on chance."""
    fault: Fault = nothing
    """The fault, which is repeated until the violation is caught."""
    delays: LoadDelays = DELAYS
    namespace: str = NAMESPACE
    keys: int = 20
    """Few keys make races frequent."""
    read_share: float = 0.95
    """More writes make races frequent, too, and keep clients waiting for what is broken."""


MUTATIONS = (
    Mutation("sketch-l1", {"C1", "C3"}),
    Mutation("sketch-l2", {"C1", "C3"}),
    Mutation(
        "token",
        {"C4"},
        lambda running: breaking.cut_off(running, "eu:queue-us", "hold", seconds=MAX_LAG_SECONDS),
    ),
    Mutation("flight-forgetting", {"C1", "C3"}, delays=SLOW, keys=5, read_share=0.75),
    Mutation("joiner-check", {"C1", "C3"}, delays=SLOW, keys=5, read_share=0.75),
    Mutation("lease-check", {"C6"}, delays=LATE, namespace=LOOK_ASIDE),
    Mutation("gap-floor", {"C3"}, lambda running: breaking.trim_fences_past(running, "eu-b", "us")),
    Mutation("position", {"C3"}, lambda running: breaking.trim_fences_past(running, "eu-b", "us")),
    Mutation("max-lag", {"C2"}, lambda running: breaking.stop_queues(running, "eu", "us")),
    # The restarted instance keeps fences of the former server as unapplied. So only the other one can miss
    # the protection, at a key that no near tier has: there must be many keys.
    Mutation(
        "broken-at",
        {"C1", "C3"},
        lambda running: breaking.promote_a_lagging_replica(running, "eu-1"),
        keys=300,
    ),
    Mutation("issuers", {"C1", "C3"}, lambda running: breaking.split(running, "us-1", "eu", seconds=6)),
    Mutation("unapplied", {"C1", "C3"}, lambda running: breaking.cut_off(running, "us:cell-eu-1", "lose")),
)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.without)
async def test_a_protection_that_is_switched_off_is_missed(field: Arena, mutation: Mutation) -> None:
    await field.relaunch({instance: [MUTANT, "--without", mutation.without] for instance in ("eu-a", "eu-b")})
    await field.healthy()
    usual = field.settings(
        seconds=WITHIN_SECONDS, seed=1, delays=mutation.delays, namespace=mutation.namespace
    )
    settings = replace(usual, keys=mutation.keys, read_share=mutation.read_share)
    history = HistoryWriter()
    began = time.monotonic()
    async with checking(settings, history):
        running = Drill(field, history, mutation.namespace)
        await running.warm()
        breaking_it = asyncio.create_task(again_and_again(mutation.fault, running))
        verdict = await first_violation(running, mutation.caught_by)
        await ended(breaking_it)
    row = results.row_of(
        MUTANTS[mutation.without].without,
        verdict,
        seconds=time.monotonic() - began,
        switched_off=mutation.without,
    )
    results.ROWS.append(row)
    results.keep(row, history.records)
    print(plain(verdict))
    assert set(verdict.broken) & mutation.caught_by, plain(verdict)


async def again_and_again(fault: Fault, running: Drill) -> None:
    while True:
        await fault(running)
        await asyncio.sleep(MAX_LAG_SECONDS)


async def first_violation(running: Drill, checks: Set[str]) -> Verdict:
    """The first verdict in which one of these checks is violated.

    After `WITHIN_SECONDS` it is the last verdict.
    """
    give_up_at = time.monotonic() + WITHIN_SECONDS
    while True:
        await asyncio.sleep(0.5)
        verdict = await asyncio.to_thread(judge, without_deadlines(running.records, running.paused))
        if set(verdict.broken) & checks or time.monotonic() > give_up_at:
            return verdict
