"""An instance with two ports and callers, on a real server: the SDK, commands, and what the audit says of both."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cachesvc_client import Cache, ForbiddenError, NearSettings, UnauthenticatedError

from cachesvc.app.instance import App
from cachesvc.cli import main
from cachesvc.config.service import Operations, Server, Service, load_topology
from loadtests.fleet_topology import free_ports
from tests.doubles.servers import RealServer, valkey_server

CHECKOUT, OPERATOR = "a-token-of-checkout", "a-token-of-an-operator"


@dataclass
class Deployment:
    document: Path
    data: str
    """The URL of the data port."""
    app: App


def hashed(token: str) -> dict[str, str]:
    return {"sha256": hashlib.sha256(token.encode()).hexdigest()}


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with valkey_server() as running:
        yield running


@pytest.fixture
def made(server: RealServer, tmp_path: Path) -> Deployment:
    """The deployment, not started: what blocks is done before there is a loop."""
    data, operations = free_ports(2)
    url, at, other = f"unix://{server.where}", f"http://127.0.0.1:{data}", f"http://127.0.0.1:{operations}"
    queue = {"queue": f"{url}?db=0", "queue_on_disk": False}
    named = {
        "checkout": {"scopes": ["read:pages", "write:pages"], "tokens": [hashed(CHECKOUT)]},
        "operator": {"scopes": ["observe:*", "explain:*", "invalidate:pages"], "tokens": [hashed(OPERATOR)]},
    }
    document = tmp_path / "topology.yaml"
    topology = {
        "version": 1,
        "regions": {"eu": {**queue, "instances": {"a": at}, "operations": {"a": other}}},
        "cells": {"c1": {"region": "eu", "url": f"{url}?db=1"}},
        "namespaces": {"pages": {"owner": "web"}},
        "callers": {"named": named},
    }
    document.write_text(json.dumps(topology))
    ports = Server(port=data, operations=Operations(port=operations))
    app = App(Service(region="eu", instance="a", server=ports), load_topology(document))
    return Deployment(document, at, app)


@pytest.fixture
async def deployment(made: Deployment) -> AsyncIterator[Deployment]:
    await made.app.start()
    yield made
    await made.app.stop()


async def commanded(*words: str, token: str = OPERATOR) -> int:
    """The exit code of a command, which runs on a thread as it would in a process."""
    return await asyncio.to_thread(main, [*words], {"CACHESVC_TOKEN": token})


async def test_the_sdk_and_commands_find_their_ports_and_the_audit_has_both(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    await asyncio.to_thread(file.write_text, "revoked\n")
    async with Cache.from_url(deployment.data, token=file, caller="root", default_timeout="5s") as cache:
        pages = cache.namespace("pages", near=NearSettings())
        with pytest.raises(UnauthenticatedError, match="unknown-identity"):
            await pages.set("k", b"v")
        await asyncio.to_thread(file.write_text, f"{CHECKOUT}\n")
        await asyncio.sleep(1.0)  # the pause between two fetches because of refusals
        await pages.set("k", b"v")
        assert await pages.get("k") == b"v"
        async with asyncio.timeout(10):
            while not cache.feed.statistics().is_up:  # noqa: ASYNC110  what another task does has no event
                await asyncio.sleep(0.02)
        with pytest.raises(ForbiddenError) as raised:
            await pages.invalidate(["k"])
        assert (raised.value.scope, raised.value.identity) == ("invalidate:NAMESPACE", "checkout")

    capsys.readouterr()
    assert await commanded("explain", "pages", "k", "--topology", str(deployment.document)) == 0
    assert "would answer from l1" in capsys.readouterr().out
    assert await commanded("top", "--once", "--url", deployment.data, "--interval", "50ms") in (0, 1)
    assert "checkout" not in capsys.readouterr().err
    assert await commanded("audit", "--url", deployment.data, "--json") == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {one["instance"] for one in told} == {"eu/a"}
    refused = [(one.get("identity", ""), one["outcome"], one["operation"]) for one in told]
    assert {one[:2] for one in refused[:-1]} == {("", "unknown-identity")}
    assert refused[-1] == ("checkout", "missing-scope", "invalidate")
    assert all("root" not in (one.get("identity", ""), one["address"]) for one in told)
    assert await commanded("audit", "--url", deployment.data, token=CHECKOUT) == 2
    assert "checkout has not the scope observe:" in capsys.readouterr().err


async def test_a_change_is_in_the_audit_of_its_instance_with_its_receipt(deployment: Deployment) -> None:
    async with Cache.from_url(deployment.data, token=OPERATOR, caller="ops/anna") as cache:
        receipt = await cache.namespace("pages").invalidate(["k", "l"])
    (record,) = deployment.app.paths.trail.find()
    assert (record.what, record.outcome, record.receipt) == ("invalidate", "done", receipt.id)
    assert (record.identity, record.address, record.says) == ("operator", "127.0.0.1", "ops/anna")
    assert record.targets == "2 keys"
