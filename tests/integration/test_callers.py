"""Two instances on a real server, whose callers change while they run and who ask each other."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from cachesvc.app.instance import App
from cachesvc.config.service import Server, Service, load_topology
from loadtests.fleet_topology import free_ports
from tests.doubles.servers import RealServer, valkey_server

SCOPES = {
    "reader": ["read:pages"],
    "writer": ["write:pages"],
    "ops": ["observe:*", "explain:*"],
    "peers": ["explain:*"],
}


@dataclass
class Deployment:
    document: Path
    server: RealServer
    ports: tuple[int, int]
    http: aiohttp.ClientSession = field(init=False)

    def write(self, tokens: Mapping[str, str], more: str = "") -> None:
        """Writes the topology document, with these tokens of the callers."""
        named = {
            name: {
                "scopes": SCOPES[name],
                "tokens": [{"sha256": hashlib.sha256(token.encode()).hexdigest()}],
            }
            for name, token in tokens.items()
        }
        url, (a, b) = f"unix://{self.server.where}", self.ports
        topology = {
            "version": 1,
            "regions": {
                "eu": {
                    "queue": f"{url}?db=0",
                    "queue_on_disk": False,
                    "instances": {"a": f"http://127.0.0.1:{a}", "b": f"http://127.0.0.1:{b}"},
                }
            },
            "cells": {"c1": {"region": "eu", "url": f"{url}?db=1"}},
            "namespaces": {"pages": {"owner": "web"}},
            "callers": {"named": named},
        }
        new = self.document.with_suffix(".new")
        new.write_text(json.dumps(topology) + more)
        new.replace(self.document)

    async def ask(self, method: str, path: str, token: str = "") -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"http://127.0.0.1:{self.ports[0]}{path}"
        async with self.http.request(method, url, headers=headers) as answer:
            return answer.status, await answer.text()

    async def until(self, status: int, path: str, token: str = "") -> str:
        """Asks until it is answered so; returns the body."""
        async with asyncio.timeout(20):
            while (answer := await self.ask("GET", path, token))[0] != status:  # noqa: ASYNC110  over HTTP
                await asyncio.sleep(0.05)
            return answer[1]


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with valkey_server() as running:
        yield running


@pytest.fixture
def made(server: RealServer, tmp_path: Path) -> tuple[Deployment, Sequence[App]]:
    """The deployment, not started: what blocks is done before there is a loop."""
    a, b = free_ports(2)
    (tmp_path / "peers.token").write_text("token-of-peers\n")
    deployment = Deployment(tmp_path / "topology.yaml", server, (a, b))
    deployment.write({name: f"token-of-{name}" for name in SCOPES})
    topology, apps = load_topology(deployment.document), []
    for name, port in (("a", a), ("b", b)):
        listening = Server(port=port, peer_token_file=str(tmp_path / "peers.token"))
        service = Service(region="eu", instance=name, server=listening)
        apps.append(App(service, topology, topology_file=deployment.document))
    return deployment, apps


@pytest.fixture
async def deployment(made: tuple[Deployment, Sequence[App]]) -> AsyncIterator[Deployment]:
    deployment, apps = made
    async with aiohttp.ClientSession() as http:
        deployment.http = http
        for app in apps:
            await app.start()
        await deployment.until(200, "/readyz")
        yield deployment
        for app in apps:
            await app.stop()


async def test_callers_change_without_a_restart_and_instances_know_each_other(deployment: Deployment) -> None:
    key = "/v1/pages/a"
    assert (await deployment.ask("GET", key))[0] == 401
    assert (await deployment.ask("PUT", key, "token-of-reader"))[0] == 403
    assert (await deployment.ask("PUT", key, "token-of-writer"))[0] == 204
    assert (await deployment.ask("GET", key, "token-of-reader"))[0] == 200

    explained = json.loads((await deployment.ask("GET", f"{key}:explain", "token-of-ops"))[1])
    (other,) = [one for one in explained["elsewhere"] if one["instance"] == "b"]
    assert "answered" not in other.get("unavailable", ""), other

    names = ("writer", "ops", "peers")
    tokens = {name: f"token-of-{name}" for name in names}
    await asyncio.to_thread(deployment.write, {**tokens, "reader": "another"})
    await deployment.until(401, key, "token-of-reader")
    assert (await deployment.ask("GET", key, "another"))[0] == 200

    await asyncio.to_thread(deployment.write, tokens, "}")
    async with asyncio.timeout(20):
        trouble = "the topology document of before is in force"
        while trouble not in (await deployment.ask("GET", "/readyz?verbose", "token-of-ops"))[1]:  # noqa: ASYNC110  over HTTP
            await asyncio.sleep(0.05)
    assert (await deployment.ask("GET", key, "another"))[0] == 200
    _, metrics = await deployment.ask("GET", "/metrics", "token-of-ops")
    assert "cachesvc_document_outdated 1.0" in metrics
    assert 'cachesvc_identities_refused_total{reason="missing_scope"} 1.0' in metrics
