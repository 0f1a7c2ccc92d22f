"""Cells come and go while an instance runs, and partitions move between them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from loadtests.fleet_topology import free_ports
from tests.doubles.servers import RealServer, valkey_server
from tests.integration.test_live_topology import Running


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with valkey_server() as running:
        yield running


@pytest.fixture
async def running(server: RealServer, tmp_path: Path) -> AsyncIterator[Running]:
    found = Running(tmp_path / "topology.yaml", server, free_ports(1)[0])
    async with aiohttp.ClientSession() as session:
        found.http = session
        found.write()
        await found.start()
        yield found
        await found.app.stop()


def cell(server: RealServer, db: int, **more: object) -> dict[str, Any]:
    return {"region": "eu", "url": f"unix://{server.where}?db={db}", **more}


async def put(running: Running, key: str, value: bytes) -> int:
    url = f"http://127.0.0.1:{running.port}/v1/pages/{key}"
    async with running.http.put(url, data=value) as answer:
        return answer.status


async def seen(running: Running, says: str) -> None:
    await running.until("/readyz?verbose", says)


async def test_a_cell_comes_takes_a_partition_and_the_other_one_goes(running: Running) -> None:
    server = running.server
    assert await put(running, "{p}:a", b"0") == 204
    first, leaving = running.app.remote.cells["c1"], cell(server, 1, active=False)
    second = {"c1": leaving, "c2": cell(server, 2)}
    running.said = {"version": 2, "cells": second, "former": {"cells": {"c1": 1}}}
    running.write()
    await seen(running, '"topology_version":2')
    assert running.app.paths.homes.placement.home("{p}:a") == "c2"
    async with asyncio.timeout(5):
        while await put(running, "{p}:a", b"1") != 204:  # noqa: ASYNC110  a new issuer waits
            await asyncio.sleep(0.02)
    assert (await running.ask("/v1/pages/{p}:a"))[2] == "1"
    running.said = {"version": 3, "cells": {"c2": cell(server, 2)}}
    running.write()
    await seen(running, '"topology_version":3')
    _, _, verbose = await running.ask("/readyz?verbose")
    assert '"c1":' not in verbose
    assert first is not running.app.remote.cells.get("c1")
    assert (await running.ask("/v1/pages/{p}:a"))[2] == "1"
    _, _, metrics = await running.ask("/metrics")
    assert 'cell="c1"' not in metrics
    assert 'cell="c2"' in metrics


async def test_a_document_waits_for_a_cell_that_does_not_answer(running: Running, tmp_path: Path) -> None:
    nowhere = {"region": "eu", "url": f"unix://{tmp_path}/nowhere?db=0"}
    cells = {"c1": cell(running.server, 1), "c3": nowhere}
    running.said = {"version": 2, "cells": cells, "former": {"cells": {"c1": 1}}}
    running.write(ttl="9s")
    await seen(running, "$.cells.c3: does not answer, and the document waits for it")
    assert list(running.app.remote.cells) == ["c1"]
    assert running.app.topology.version == 1
    running.said["cells"] = {"c1": cell(running.server, 1), "c3": cell(running.server, 3)}
    running.write(ttl="9s")
    await seen(running, '"topology_version":2')
    assert list(running.app.remote.cells) == ["c1", "c3"]
    assert running.app.topology.namespaces["pages"].ttl.seconds == 9


async def test_a_move_that_is_against_the_rules_is_not_taken(running: Running) -> None:
    cells = {"c1": cell(running.server, 1), "c2": cell(running.server, 2)}
    running.said = {"version": 2, "cells": cells}
    running.write()
    await seen(running, "$.former: does not say where partitions are now")
    assert list(running.app.remote.cells) == ["c1"]
