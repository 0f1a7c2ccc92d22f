"""A topology document that changes while an instance runs: what is in force, and what waits."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cachesvc.app.instance import App
from cachesvc.changes.document import contract
from cachesvc.config.service import Server, Service, load_topology
from loadtests.fleet_topology import free_ports
from tests.doubles.raw_origin import http, raw_origin
from tests.doubles.servers import RealServer, valkey_server


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with valkey_server() as running:
        yield running


@dataclass
class Running:
    """An instance, its document and its origins."""

    document: Path
    server: RealServer
    port: int
    said: dict[str, Any] = field(default_factory=dict)
    http: aiohttp.ClientSession = field(init=False)
    app: App = field(init=False)

    def write(self, **pages: object) -> None:
        """Writes the document, with these settings of the namespace `pages`."""
        url = f"unix://{self.server.where}"
        here = {"queue": f"{url}?db=0", "queue_on_disk": False}
        topology = {
            "version": 1,
            "regions": {"eu": {**here, "instances": {"a": f"http://127.0.0.1:{self.port}"}}},
            "cells": {"c1": {"region": "eu", "url": f"{url}?db=1"}},
            "namespaces": {"pages": {"owner": "web", "jitter": 0, "early_refresh": 0, **pages}},
            **self.said,
        }
        new = self.document.with_suffix(".new")
        new.write_text(json.dumps(topology))
        new.replace(self.document)

    async def start(self) -> None:
        self.app = await asyncio.to_thread(self._built)
        await self.app.start()
        await self.until("/readyz", "")

    def _built(self) -> App:
        service = Service(region="eu", instance="a", server=Server(port=self.port))
        return App(service, load_topology(self.document), topology_file=self.document)

    async def ask(self, path: str) -> tuple[int, str, str]:
        async with self.http.get(f"http://127.0.0.1:{self.port}{path}") as answer:
            return answer.status, answer.headers.get("Cache-Control", ""), await answer.text()

    async def until(self, path: str, says: str) -> None:
        async with asyncio.timeout(20):
            while (answer := await self.ask(path))[0] != 200 or says not in answer[1] + answer[2]:  # noqa: ASYNC110  over HTTP
                await asyncio.sleep(0.05)


@pytest.fixture
async def running(server: RealServer, tmp_path: Path) -> AsyncIterator[Running]:
    found = Running(tmp_path / "topology.yaml", server, free_ports(1)[0])
    async with aiohttp.ClientSession() as session:
        found.http = session
        yield found
        await found.app.stop()


def max_age(control: str) -> int:
    """The seconds that are left until the copy expires."""
    return int(control.removeprefix("max-age=").partition(",")[0])


async def test_what_is_live_holds_at_once_and_the_rest_is_named(running: Running) -> None:
    async with AsyncExitStack() as origins:
        first, second = [await origins.enter_async_context(raw_origin()) for _ in range(2)]
        first.answer, second.answer = http(200, b"first"), http(200, b"second")
        origin: dict[str, object] = {"url": f"{first.url}/{{key}}", "headers": {"X-Key": "one"}}
        await asyncio.to_thread(running.write, ttl="5m", origin=origin)
        await running.start()
        status, control, value = await running.ask("/v1/pages/a")
        assert (status, value) == (200, "first")
        assert max_age(control) > 60

        origin = {"url": f"{second.url}/{{key}}", "headers": {"X-Key": "two"}, "concurrency": 9}
        running.said = {"version": 2, "cells": {}}
        await asyncio.to_thread(running.write, ttl="1m", origin=origin)
        await running.until("/readyz?verbose", "$.cells: ")  # a document that is wrong changes nothing
        assert max_age((await running.ask("/v1/pages/b"))[1]) > 60

        running.said = {"version": 2}
        await asyncio.to_thread(running.write, ttl="1m", lease_wait="30s", origin=origin)
        await running.until("/readyz?verbose", "namespaces.pages.origin.concurrency")
        said = json.loads((await running.ask("/readyz?verbose"))[2])
        assert said["waits_for_restart"] == ["namespaces.pages.origin.concurrency"]
        assert not any("document" in trouble for trouble in said["troubles"])
        status, control, value = await running.ask("/v1/pages/c")
        assert (status, value) == (200, "second")
        assert max_age(control) <= 60
        assert "X-Key: two" in second.requests[-1]
        assert running.app.paths.fences.longest_load_us > 30_000_000
        metrics = (await running.ask("/metrics"))[2]
        assert "cachesvc_document_waits 1.0" in metrics
        assert "cachesvc_document_outdated 0.0" in metrics


async def test_a_document_that_does_not_suit_the_service_document_changes_nothing(running: Running) -> None:
    await asyncio.to_thread(running.write, ttl="5m")
    await running.start()
    await asyncio.to_thread(running.write, ttl="2d")  # above l3.retention
    await running.until("/readyz?verbose", "the topology document of before is in force")
    await running.until("/metrics", "cachesvc_document_outdated 1.0")


async def test_sighup_reads_the_document_and_certificates_at_once(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract, "LOOK_SECONDS", 3600)
    await asyncio.to_thread(running.write, ttl="5m")
    await running.start()
    looks: list[object] = []
    monkeypatch.setattr(running.app._certificates, "look", lambda: looks.append(None))
    await asyncio.to_thread(running.write, ttl="1m", lease="9s", l1={"at_most": "50%"})
    assert json.loads((await running.ask("/readyz?verbose"))[2])["waits_for_restart"] == []
    running.app.reload()
    await running.until("/readyz?verbose", "namespaces.pages.l1.at_most")
    assert looks == [None]
    assert running.app.topology.namespaces["pages"].ttl == 60_000_000
