"""The network between instances and servers."""

import pytest

from tests.faults import breaking
from tests.faults.arena import LINKED, Arena
from tests.faults.drill import drill

pytestmark = pytest.mark.faults


async def test_connections_reset_again_and_again(field: Arena) -> None:
    async with drill(field, "all connections of a region reset, 20 times", seconds=9) as running:
        await running.warm()
        await breaking.reset_again_and_again(running, *(f"eu:{server}" for server in LINKED["eu"]))
        await running.recovers(
            "both answer from L1 again",
            lambda: (
                {"eu/eu-a", "eu/eu-b"}
                <= {read.instance for read in running.reads(since=running.mended, tier="l1")}
            ),
        )
