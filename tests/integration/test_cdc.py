"""`cachesvc cdc` as a process: a commit in PostgreSQL ends the copies of every instance."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial

import pytest
import yaml

from cachesvc.app.embedded.server_process import ServerProcess
from loadtests.fleet import Fleet
from loadtests.fleet_servers import module_server
from loadtests.fleet_topology import free_ports, one_region
from loadtests.postgres import Postgres, postgres
from tests.doubles.postgres import TABLES, needs_postgres
from tests.doubles.waiting import until

needs_postgres()
pytestmark = pytest.mark.slow

BLOCKS = {
    "owner": "web",
    "sources": [{"source": "public.blocks", "key": "{ws-{workspace_id}}:block:{id}"}],
}


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running_server:
        running_server.psql(TABLES)
        yield running_server


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    document = tmp_path_factory.mktemp("cdc") / "topology.yaml"
    document.write_text(yaml.safe_dump(one_region(["a", "b"])))
    with Fleet(document, document.parent / "run", namespaces={"blocks": BLOCKS}) as running_fleet:
        yield running_fleet


def words_of(fleet: Fleet, server: Postgres, *more: str) -> list[str]:
    """The arguments of `python -m` for the command."""
    given = ["--topology", str(fleet.topology_path), "--region", "eu", "--slot", "cdc", *more]
    return ["cachesvc", "cdc", "--postgres", server.url, *given]


@pytest.fixture(scope="module")
def reader(fleet: Fleet, server: Postgres) -> Iterator[ServerProcess]:
    (port,) = free_ports(1)
    words = words_of(fleet, server, "--listen", f"127.0.0.1:{port}")
    process = module_server(
        "cdc", words, lambda: status(f"http://127.0.0.1:{port}/readyz") == 200, fleet.run_dir
    )
    process.start()
    try:
        yield process
    finally:
        process.stop()


def status(url: str, method: str = "GET", body: bytes | None = None) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


async def answers(fleet: Fleet, key: str, wanted: int) -> bool:
    urls = [f"{fleet.url(instance)}/v1/blocks/{key}" for instance in ("a", "b")]
    return {await asyncio.to_thread(status, url) for url in urls} == {wanted}


async def test_a_commit_ends_the_copies_of_every_instance(
    fleet: Fleet, server: Postgres, reader: ServerProcess
) -> None:
    key = "{ws-7}:block:1"
    await asyncio.to_thread(server.psql, "INSERT INTO blocks VALUES (1, 7, 5, 'a')")

    async def is_kept() -> bool:
        await asyncio.to_thread(status, f"{fleet.url('a')}/v1/blocks/{key}", "PUT", b"old")
        return await answers(fleet, key, 200)

    await until("every instance has the key", is_kept)
    await asyncio.to_thread(server.psql, "UPDATE blocks SET body = 'b' WHERE id = 1")
    await until("no instance has it", partial(answers, fleet, key, 404))
    assert reader.is_running
