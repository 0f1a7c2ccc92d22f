"""Cells at 5 and 150 ms in one topology, with jitter and loss and the default limits."""

import asyncio

import pytest

from tests.faults.arena import Arena
from tests.faults.drill import WAIT_SECONDS, drill
from tests.faults.proxy import Order

pytestmark = pytest.mark.faults

FAR_MS, NEAR_MS, LOSS = 150, 5, 0.05
FAR = ("eu:cell-us-1", "us:cell-eu-1", "eu:queue-us", "us:queue-eu")
NEAR = ("eu:cell-us-2", "us:cell-eu-2")
SAMPLES = 16
LEAST_EXCHANGES = 10
LEAST_SERVED = 0.8
"""The least share of exchanges with a cell that are answered while packets are lost."""


async def test_cells_at_5_and_150_ms_with_jitter_and_loss_both_serve(field: Arena) -> None:
    async def served(cell: str) -> tuple[float, float]:
        return (
            await field.counted("eu-a", f'cachesvc_cell_exchanges_total{{cell="{cell}"}}'),
            await field.counted("eu-a", f'cachesvc_cell_failures_total{{cell="{cell}"}}'),
        )

    async def timeout(cell: str) -> float:
        return await field.counted("eu-a", f'cachesvc_cell_timeout_seconds{{cell="{cell}"}}')

    async def least_timeout(cell: str, *, seconds: float) -> float:
        """The least of some: a lost packet, or a busy machine, makes a single one long."""
        seen = []
        for _ in range(SAMPLES):
            await asyncio.sleep(seconds / SAMPLES)
            seen.append(await timeout(cell))
        return min(seen)

    async with drill(field, "cells at 5 and 150 ms, 5 % of loss", seconds=14) as running:
        await running.warm()
        with running.fault(f"{', '.join(FAR)} {FAR_MS} ms away"):
            for names, way in ((FAR, FAR_MS), (NEAR, NEAR_MS)):
                for name in names:
                    field.links.order(Order(name, "cut"))  # connections are opened on the long way, too
                    field.links.order(Order(name, delay_ms=way / 2, jitter_ms=way / 10, loss=LOSS))
            await asyncio.sleep(3)  # every connection is open again
            before = {cell: await served(cell) for cell in ("us-1", "us-2")}
            await running.written()
            nearest = await least_timeout("us-2", seconds=4)
            for cell, (exchanges, failures) in before.items():
                async with asyncio.timeout(WAIT_SECONDS):
                    now, failed = await served(cell)
                    while now - exchanges < LEAST_EXCHANGES:
                        await asyncio.sleep(0.25)
                        now, failed = await served(cell)
                share = 1 - (failed - failures) / (now - exchanges)
                assert share >= LEAST_SERVED, f"{cell}: {share:.2f} of {now - exchanges} exchanges"
            far = await timeout("us-1")
            assert far > 3 * FAR_MS / 1000 > nearest
            field.links.mend(*FAR, *NEAR)
        await running.recovers("a far cell's keys are answered", lambda: bool(running.reads(tier="l3")))
