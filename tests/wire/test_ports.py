"""The data port and the operations port: which of them answers what, and that one holds when the other is full."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace as with_fields

import pytest
from msgspec.structs import replace

from cachesvc.config.callers import Callers
from cachesvc.config.mistakes import Mistakes
from cachesvc.config.service import Operations, Server, note_anonymous
from cachesvc.web.ports import DATA, EITHER, OPERATIONS
from cachesvc.web.routing import Kind
from tests.wire.conftest import LIMITS, Site, running_site, until

SEPARATE = replace(LIMITS, operations=Operations(port=0), max_connections=8, max_connections_per_peer=8)
OF_CALLERS = [
    ("GET", "/v1/pages/k"),
    ("HEAD", "/v1/pages/k"),
    ("PUT", "/v1/pages/k"),
    ("DELETE", "/v1/pages/k"),
    ("POST", "/v1/pages/k"),
    ("POST", "/v1/pages:get"),
    ("POST", "/v1/pages:put"),
    ("POST", "/v1/invalidations"),
    ("GET", "/v1/invalidations/eu:1-0"),
    ("GET", "/v1/fences"),
]
OF_OPERATORS = [
    ("GET", "/v1/pages/k:explain"),
    ("GET", "/v1/hotkeys?namespace=pages"),
    ("GET", "/metrics"),
    ("HEAD", "/metrics"),
]
OF_BOTH = ["/v1/topology", "/livez", "/readyz", "/openapi.json"]


@pytest.fixture
async def data() -> AsyncIterator[Site]:
    async with running_site(limits=SEPARATE) as running:
        yield running


@pytest.fixture
def operations(data: Site) -> Site:
    """The same site, asked at its operations port."""
    assert data.web.operations is not None
    return with_fields(data, port=int(data.web.operations.address.rpartition(":")[2]))


def test_each_kind_of_place_has_one_rule() -> None:
    assert [kind for kind in Kind if sum(kind in ports for ports in (DATA, OPERATIONS, EITHER)) != 1] == []


@pytest.mark.parametrize(("method", "target"), OF_CALLERS)
async def test_the_operations_port_sends_callers_to_the_data_port(
    data: Site, operations: Site, method: str, target: str
) -> None:
    data.hold("k")
    refused = await operations.ask(method, target)
    assert refused.status == 421
    if method != "HEAD":
        told = json.loads(refused.body)
        assert told["type"].endswith("/wrong-port")
        assert told["detail"] == f"this instance answers it on its data port, 127.0.0.1:{data.port}"
    assert data.reader.l1["k"]
    assert (await data.ask("GET", "/v1/pages/k")).status == 200


@pytest.mark.parametrize(("method", "target"), [*OF_OPERATORS, ("GET", "/readyz?verbose")])
async def test_the_data_port_sends_operators_to_the_operations_port(
    data: Site, operations: Site, method: str, target: str
) -> None:
    refused = await data.ask(method, target)
    assert refused.status == 421
    if method != "HEAD":
        where = f"127.0.0.1:{operations.port}"
        assert (
            json.loads(refused.body)["detail"] == f"this instance answers it on its operations port, {where}"
        )
    assert (await operations.ask(method, target)).status == 200


async def test_the_port_that_is_named_can_be_asked() -> None:
    """A port that is bound to all addresses is at the one by which the caller came."""
    limits = replace(SEPARATE, operations=Operations(host="::", port=0))
    async with running_site(limits=limits, callers=Callers(anonymous=("read:*",))) as site:
        assert site.web.operations is not None
        port = site.web.operations.address.rpartition(":")[2]
        for host, named in (("127.0.0.1:80", "127.0.0.1"), ("[::1]", "[::1]")):
            refused = await site.ask("GET", "/metrics", {"Host": host})
            detail = json.loads(refused.body)["detail"]
            assert detail == f"this instance answers it on its operations port, {named}:{port}"


async def test_the_right_port_is_named_before_the_scope_is_looked_at() -> None:
    callers = Callers(anonymous=("read:*",))
    async with running_site(limits=SEPARATE, callers=callers) as data:
        assert data.web.operations is not None
        assert (await data.ask("GET", "/metrics")).status == 421
        operations = with_fields(data, port=int(data.web.operations.address.rpartition(":")[2]))
        assert (await operations.ask("GET", "/metrics")).status in (401, 403)
        answers = [await data.ask("GET", f"/v1/{name}/k:explain") for name in ("pages", "undeclared")]
        assert [one.status for one in answers] == [401, 401], "whether there is such a namespace or not"


@pytest.mark.parametrize("target", OF_BOTH)
async def test_either_port_answers_probes_the_topology_and_the_description(
    data: Site, operations: Site, target: str
) -> None:
    assert (await data.ask("GET", target)).status == 200
    assert (await operations.ask("GET", target)).status == 200


async def test_the_data_port_shows_of_the_topology_what_clients_need(data: Site, operations: Site) -> None:
    shown = json.loads((await data.ask("GET", "/v1/topology")).body)
    assert shown == {
        "here": {"region": "local", "instance": "a"},
        "version": 3,
        "regions": {"eu": {"instances": {"a": "http://a:8080"}, "operations": {}}},
        "namespaces": {"pages": {"owner": "web"}, "users": {"owner": "id"}},
    }
    assert json.loads((await operations.ask("GET", "/v1/topology")).body)["cells"].keys() == {"c1"}


async def test_a_method_that_no_port_knows_is_one_here_neither(data: Site, operations: Site) -> None:
    assert (await operations.ask("PATCH", "/v1/pages/k")).status == 405
    assert (await data.ask("PATCH", "/metrics")).status == 405


async def test_the_operations_port_answers_while_the_data_port_is_crowded(
    data: Site, operations: Site
) -> None:
    """Every connection of the data port, and of its reserve, is taken by a request that hangs."""
    data.reader.hangs = asyncio.Event()
    async with AsyncExitStack() as stack:
        for number in range(data.web.data.connections.most):
            _, writer = await asyncio.open_connection("127.0.0.1", data.port)
            stack.callback(writer.close)
            writer.write(f"GET /v1/pages/{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until(lambda: data.web.data.connections.open == data.web.data.connections.most)
        for _ in range(3):
            assert (await operations.ask("GET", "/readyz?verbose")).status == 200
            metrics = (await operations.ask("GET", "/metrics")).body
        assert b"requests_total" in metrics
        data.reader.hangs.set()


async def test_both_ports_are_closed_if_one_is_taken(site: Site) -> None:
    limits = replace(LIMITS, operations=Operations(port=site.port))
    with pytest.raises(OSError, match="in use") as raised:
        async with running_site(limits=limits):
            pass
    assert raised.value.filename == f"127.0.0.1:{site.port}"


def test_without_settings_there_is_one_port() -> None:
    assert Server().operations.port is None


@pytest.mark.parametrize("port", [None, 8081])
def test_an_operations_port_that_others_reach_needs_callers_too(port: int | None) -> None:
    server = Server(operations=Operations(host="10.0.0.7", port=port))
    found = Mistakes()
    note_anonymous(server, None, found)
    assert [one.path for one in found.noted()] == ([] if port is None else ["$.server.operations.host"])
    note_anonymous(server, Callers(), allowed := Mistakes())
    assert list(allowed.noted()) == []
