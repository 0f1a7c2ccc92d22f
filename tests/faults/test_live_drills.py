"""The document changes under load: namespaces and memcached servers come and go."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cachesvc.commands.pool.edit import PoolEdit, edited
from loadtests.fleet_servers import memcached_server
from loadtests.fleet_topology import free_ports
from tests.faults import breaking
from tests.faults.arena import NAMESPACE, Arena
from tests.faults.drill import drill, until
from tests.integration.test_serve import call

pytestmark = pytest.mark.faults

REGION, OLD, ADDED, NEW = "eu", "eu-m1", "eu-m8", "late"


async def test_namespaces_and_memcached_servers_come_are_replaced_and_go(field: Arena) -> None:
    documents = {path: path.read_text() for path in field.fleet.documents}
    added, instead = free_ports(2)
    try:
        async with drill(field, "namespace and memcached come and go", seconds=12) as running:
            await running.warm()
            for name, port in ((ADDED, added), ("eu-m9", instead)):
                await field.start_guest(memcached_server(name, port, field.fleet.run_dir))

            key = running.keys()[0].text
            await _change(documents, _with_namespace)
            await until("the namespace is served", lambda: _answers(field, f"/v1/{NEW}/{key}", 200))

            await _change(documents, _with_server(ADDED, f"127.0.0.1:{added}"))
            await until("the server is used", lambda: _counts(field, ADDED, True))

            before = {path: path.read_text() for path in documents}
            with running.fault(f"memcached {OLD} away, and back with what it held"):
                await _change(documents, _with_server(OLD, f"127.0.0.1:{instead}"))
                await running.written()
                # The server comes back with what it held; it has missed every delete since it left.
                await breaking.memcached_holds_old_content(running, OLD)
                await _write_all(before)
            await running.written()

            await _change(documents, _with_server(ADDED, None))
            await until("the server is not used", lambda: _counts(field, ADDED, False))
            await _write_all(documents)
            await until("the namespace is gone", lambda: _answers(field, f"/v1/{NEW}/{key}", 404))
            await field.healthy()
        assert not running.reads(outcome="error")
        assert running.reads(tier="l2")
    finally:
        await _write_all(documents)


async def _write_all(documents: Mapping[Path, str]) -> None:
    for path, text in documents.items():
        await asyncio.to_thread(_write, path, text)


async def _change(documents: Mapping[Path, str], change: Callable[[str], str]) -> None:
    """Changes the document of every instance, each in one step."""
    for path in documents:
        await asyncio.to_thread(_write, path, change(path.read_text()))


def _write(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)


def _with_server(name: str, address: str | None) -> Callable[[str], str]:
    server = {"address": address} if address else None
    return lambda text: edited(text, PoolEdit(REGION, "pool", name, server), "topology.yaml")


def _with_namespace(text: str) -> str:
    document: dict[str, Any] = yaml.safe_load(text)
    document["version"] += 1
    document["namespaces"][NEW] = document["namespaces"][NAMESPACE]
    return yaml.safe_dump(document, sort_keys=False)


async def _answers(field: Arena, path: str, status: int) -> bool:
    """True if every instance answers the path with this status."""
    urls = [f"{field.fleet.url(instance)}{path}" for instance in field.fleet.instances]
    return {
        answer[0] for answer in await asyncio.gather(*(asyncio.to_thread(call, url) for url in urls))
    } == {status}


async def _counts(field: Arena, server: str, is_used: bool) -> bool:
    """True if every instance of the region, or none of them, asks this memcached server."""
    urls = [
        f"{field.fleet.url(instance)}/metrics" for instance in field.fleet.topology.regions[REGION].instances
    ]
    answers = await asyncio.gather(*(asyncio.to_thread(call, url) for url in urls))
    return all((f'server="{server}"'.encode() in body) is is_used for _, body in answers)
