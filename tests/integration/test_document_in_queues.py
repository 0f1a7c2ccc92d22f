"""Instances that follow the topology document in the queues of their regions."""

import asyncio
import json
import logging
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cachesvc.app.instance import App
from cachesvc.app.topology_store import at_start
from cachesvc.changes.document.contract import Document
from cachesvc.changes.document.queue import QueueDocument
from cachesvc.changes.document.queues import QueueDocuments
from cachesvc.config.service import Server, Service, TopologyDocument, load_topology
from tests.doubles.servers import RealServer, redis_server

SECRET = "a-secret-that-nobody-may-read"


@pytest.fixture
def servers() -> Iterator[dict[str, RealServer]]:
    with redis_server() as eu, redis_server() as us:
        yield {"eu": eu, "us": us}


class Fleet:
    """Two regions with a queue each, the seed, and what was put."""

    def __init__(self, servers: dict[str, RealServer], folder: Path, stack: AsyncExitStack) -> None:
        self.servers = servers
        self.seed = folder / "seed.yaml"
        self.kept = folder / "kept"
        self._stack = stack
        self.queues = {name: QueueDocument(one.redis_url, name) for name, one in servers.items()}
        self.store = QueueDocuments(self.queues)
        stack.push_async_callback(self.store.close)

    def text(self, version: int, ttl: str = "5m", **said: Any) -> str:
        origin = {"url": "http://127.0.0.1:1/{key}", "headers": {"Authorization": SECRET}}
        eu = self.servers["eu"].redis_url
        document = {
            "version": version,
            "regions": {
                name: {"queue": one.redis_url, "queue_on_disk": False} for name, one in self.servers.items()
            },
            "cells": {"c1": {"region": "eu", "url": eu.replace("db=0", "db=1")}},
            "namespaces": {"pages": {"owner": "web", "ttl": ttl, "origin": origin}},
            **said,
        }
        return json.dumps(document)

    async def put(self, text: str, number: int) -> Document:
        document = Document.of(text, number, author="ann", at_us=1_800_000_000_000_000, reason="a test")
        await self.store.compare_and_set(document, await self.store.newest())
        return document

    async def start(self, region: str = "eu", name: str = "a") -> App:
        """An instance as `cachesvc serve` starts it."""
        document = TopologyDocument(store="queue", directory=str(self.kept))
        service = Service(region=region, instance=name, server=Server(port=0), document=document)
        seed = await asyncio.to_thread(load_topology, self.seed)
        started = await asyncio.to_thread(lambda: asyncio.run(at_start(service, seed, self.seed)))
        app = await asyncio.to_thread(
            lambda: App(service, started.topology, topology_file=started.file, known=started.known)
        )
        self._stack.push_async_callback(app.stop)
        app.port = await app.start()  # type: ignore[attr-defined]  # for `said` below
        return app

    async def said(self, app: App) -> dict[str, Any]:
        url = f"http://127.0.0.1:{app.port}/readyz?verbose"  # type: ignore[attr-defined]
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            said: dict[str, Any] = await answer.json(content_type=None)
            return said


@pytest.fixture
async def fleet(servers: dict[str, RealServer], tmp_path: Path) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        found = Fleet(servers, tmp_path, stack)
        found.seed.write_text(found.text(1))
        yield found


async def until_ttl(app: App, minutes: int) -> None:
    async with asyncio.timeout(10):
        while app.topology.namespaces["pages"].ttl != minutes * 60_000_000:  # noqa: ASYNC110  a poll
            await asyncio.sleep(0.02)


async def test_instances_of_all_regions_follow_what_is_put(fleet: Fleet) -> None:
    apps = [await fleet.start("eu"), await fleet.start("us")]
    await fleet.put(fleet.text(2, "6m"), 2)
    for app in apps:
        await until_ttl(app, 6)
    said = await fleet.said(apps[0])
    assert said["document"]["version"] == 2
    assert (said["document"]["author"], said["document"]["reason"]) == ("ann", "a test")
    assert [one.partition(" (")[0] for one in said["document"]["store"].values()] == ["version 2"] * 2


async def test_a_bad_document_is_named_and_the_one_before_stays(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    app = await fleet.start()
    await fleet.put(fleet.text(2, "6m"), 2)
    await until_ttl(app, 6)
    bad = fleet.text(3, "7m", cells={"c1": {"region": "nowhere", "url": "redis://h/1"}})
    await fleet.put(bad, 3)
    async with asyncio.timeout(10):
        while not (await fleet.said(app))["troubles"]:  # noqa: ASYNC110  over HTTP
            await asyncio.sleep(0.05)
    (trouble,) = (one for one in (await fleet.said(app))["troubles"] if "document" in one)
    assert trouble.startswith("the topology document of before is in force: ")
    assert "$.cells.c1.region" in trouble
    assert app.topology.namespaces["pages"].ttl == 6 * 60_000_000
    assert (await fleet.said(app))["document"]["version"] == 2
    again = await fleet.start(name="b")  # also a start does not take it
    assert (again.topology.version, (await fleet.said(again))["document"]["version"]) == (1, 1)
    await fleet.put(fleet.text(4, "8m"), 4)
    for one in (app, again):
        await until_ttl(one, 8)
    assert not [one for one in (await fleet.said(app))["troubles"] if "document" in one]
    assert SECRET not in caplog.text


async def test_a_restart_without_the_store_goes_on_with_the_last_good_document(fleet: Fleet) -> None:
    app = await fleet.start()
    await fleet.put(fleet.text(2, "6m"), 2)
    await until_ttl(app, 6)
    async with asyncio.timeout(10):
        while "version 2" not in (await fleet.said(app))["document"]["kept"]:  # noqa: ASYNC110  over HTTP
            await asyncio.sleep(0.02)
    await app.stop()
    (kept,) = fleet.kept.iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(fleet.kept.stat().st_mode) == 0o700
    for server in fleet.servers.values():
        await asyncio.to_thread(server.kill)
    again = await fleet.start()
    assert again.topology.version == 2
    said = (await fleet.said(again))["document"]
    assert (said["version"], said["author"]) == (2, "ann")
    for server in fleet.servers.values():
        await asyncio.to_thread(server.restart)  # empty: the instance brings the version back
    async with asyncio.timeout(10):
        while (newest := await fleet.store.newest()) is None or newest.number != 2:  # noqa: ASYNC110  a poll
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"version":{"number":9,"hash":"x"},"text":"version: 9"}']
)
async def test_a_kept_file_that_is_torn_or_foreign_is_passed_over_with_one_line(
    fleet: Fleet, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.kept.mkdir(mode=0o700)
    (fleet.kept / "topology-eu-a.json").write_bytes(content)
    (fleet.kept / "topology-eu-a.json").chmod(0o600)
    assert (await fleet.start()).topology.version == 1
    lines = [one for one in caplog.records if one.levelno >= logging.WARNING and "kept" in one.message]
    assert len(lines) == 1


async def test_a_start_takes_what_the_store_has_and_a_seed_only_if_it_is_later(fleet: Fleet) -> None:
    await fleet.put(fleet.text(3, "7m"), 3)
    assert (await fleet.start()).topology.namespaces["pages"].ttl == 7 * 60_000_000
    fleet.seed.write_text(fleet.text(4, "9m"))
    later = await fleet.start(name="b")
    assert later.topology.namespaces["pages"].ttl == 9 * 60_000_000
    await asyncio.sleep(0.7)  # a look
    assert later.topology.namespaces["pages"].ttl == 9 * 60_000_000
