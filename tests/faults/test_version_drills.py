"""Instances of the former version and of this one are one fleet, and one is upgraded under load."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from loadtests.fleet_servers import SERVICE
from tests.faults import former
from tests.faults.arena import MAX_LAG_SECONDS, Arena
from tests.faults.drill import drill

pytestmark = pytest.mark.faults


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    """The launcher of instances of the former version."""
    if not (revision := former.revision()):
        pytest.skip(f"this clone has neither a tag nor {former.COMMIT[:10]}: fetch the history")
    target: Path = tmp_path_factory.mktemp("former")
    former.install(revision, target)
    return [former.MODULE, str(target)]


async def test_both_versions_serve_together_and_one_instance_is_upgraded(
    field: Arena, launcher: Sequence[str]
) -> None:
    """In each region one of each: they share memcached, cells, queues, leases and fences, both ways."""
    await field.relaunch({"eu-a": launcher, "us-b": launcher})
    await field.healthy()
    async with drill(field, "former version beside this one, upgraded", seconds=8) as running:
        await running.warm()
        await running.written(seconds=2 * MAX_LAG_SECONDS)
        with running.fault("eu-a is upgraded"):
            await field.end("instance-eu-a")
            field.fleet.launch_with("eu-a", SERVICE)
            await field.start("instance-eu-a")
        await running.recovers(
            "eu-a answers from L1 again",
            lambda: bool(running.reads(since=running.mended, instance="eu/eu-a", tier="l1")),
        )
