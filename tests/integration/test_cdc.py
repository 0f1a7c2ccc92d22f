"""`cachesvc cdc` as a process: a commit in PostgreSQL ends the copies of every instance."""

import asyncio
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import yaml
from redis import Redis

from cachesvc.app.embedded.server_process import ServerProcess
from cachesvc.cli import main
from loadtests.fleet import Fleet
from loadtests.fleet_servers import module_server
from loadtests.fleet_topology import free_ports, one_region
from loadtests.postgres import Postgres, postgres, programs
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


def answer_of(process: ServerProcess, path: str) -> str:
    at = process.command[process.command.index("--listen") + 1]
    try:
        with urllib.request.urlopen(f"http://{at}{path}", timeout=2) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()


async def test_a_reader_tells_how_it_fares(reader: ServerProcess) -> None:
    metrics = await asyncio.to_thread(answer_of, reader, "/metrics")
    for line in ("cachesvc_cdc_reading 1.0", "cachesvc_cdc_waiting 0.0", "cachesvc_cdc_gaps_total 1.0"):
        assert line in metrics.splitlines()
    assert "cachesvc_cdc_lag_seconds" in metrics
    assert await asyncio.to_thread(answer_of, reader, "/readyz") == "reading\n"


async def test_a_second_process_waits_and_top_names_what_is_wrong(
    fleet: Fleet, server: Postgres, reader: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/readyz"
    words = words_of(fleet, server, "--listen", f"127.0.0.1:{port}")
    second = module_server("cdc-2", words, lambda: status(url) == 200, fleet.run_dir)
    await asyncio.to_thread(second.start)
    try:
        assert (
            await asyncio.to_thread(answer_of, second, "/readyz") == "waiting: another reader has the slot\n"
        )
        await asyncio.to_thread(server.process.kill)

        async def top_says(text: str) -> bool:
            await asyncio.to_thread(main, ["top", "--once", "--topology", str(fleet.topology_path)], {})
            return text in " ".join(capsys.readouterr().out.split())

        await until("top says so", partial(top_says, "slot cdc of eu: postgres 127.0.0.1"))
        await asyncio.to_thread(server.process.start)
        await until(
            "one of them reads",
            lambda: "reading\n" in (answer_of(reader, "/readyz"), answer_of(second, "/readyz")),
        )
    finally:
        await asyncio.to_thread(second.stop)
    assert second.exit_code == 0


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["cdc", *words], {})
    captured = capsys.readouterr()
    return code, captured.out + captured.err


FRESH = """
CREATE TABLE blocks (id bigint PRIMARY KEY, workspace_id int NOT NULL);
CREATE TABLE others (id int);
"""
SQL = """
CREATE ROLE "reader" LOGIN REPLICATION;
GRANT CONNECT ON DATABASE "fresh" TO "reader";
ALTER TABLE "public"."blocks" REPLICA IDENTITY FULL;
CREATE PUBLICATION "cachesvc" FOR TABLE "public"."blocks" WITH (publish_via_partition_root = true);
SELECT pg_create_logical_replication_slot('fresh', 'pgoutput');
"""


def test_setup_shows_the_sql_and_makes_it_so(
    fleet: Fleet, server: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    server.psql("CREATE DATABASE fresh", "postgres")
    server.psql(FRESH, "fresh")
    url = server.url.replace("/shop", "/fresh")
    words = ("--topology", str(fleet.topology_path), "--region", "eu", "--slot", "fresh")
    setup = ("setup", "--postgres", url, "--role", "reader", *words)

    assert command(capsys, "--postgres", url, "--listen", "", *words)[0] == 2  # there is no publication
    code, told = command(capsys, *setup)
    assert code == 0
    assert told.startswith(SQL.lstrip())
    assert "max_slot_wal_keep_size is not set" in told
    assert "Nothing was changed" in told
    assert server.psql("SELECT count(*) FROM pg_publication", "fresh") == "0"

    code, told = command(capsys, *setup, "--apply")
    assert code == 0
    assert "The database is ready" in told
    code, told = command(capsys, *setup)
    assert code == 0
    assert "CREATE" not in told

    reader = url.replace("postgres@", "reader@")
    assert "permission denied" in refused("SELECT * FROM blocks", reader)
    process = module_server(
        "cdc-fresh",
        ["cachesvc", "cdc", "--postgres", reader, *words, "--listen", "127.0.0.1:0"],
        lambda: bool(json.loads(note_of(fleet, "fresh") or "{}").get("lsn")),
        fleet.run_dir,
    )
    process.start()
    process.stop()
    assert process.exit_code == 0


def note_of(fleet: Fleet, slot: str) -> bytes | None:
    with Redis.from_url(fleet.topology.regions["eu"].queue) as queue:
        found: Any = queue.hget("changes:sources", slot)
        return bytes(found) if found else None


def refused(query: str, url: str) -> str:
    folder = programs()
    assert folder is not None
    done = subprocess.run(
        [str(folder / "psql"), "-X", url, "-c", query], capture_output=True, text=True, check=False
    )
    return str(done.stderr)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--postgres: is not given"),
        (("--postgres", "postgresql://h/d"), "--topology: is not given"),
        (("--postgres", "postgresql://h/d", "--most-names", "0"), "--most-names: must be above 0"),
        (("--postgres", "no url at all"), "--postgres: "),
    ],
)
def test_a_mistake_of_the_command_line_is_named(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = command(capsys, *words)
    assert code == 2
    assert said in told
