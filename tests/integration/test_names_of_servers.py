"""Names with several addresses, some of them dead, and look-ups that never end."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from cachesvc.config.service import L2
from cachesvc.model.clock import SystemClock
from cachesvc.model.entry import Key
from cachesvc.tiers import names
from cachesvc.tiers.clean_connector import CleanConnector
from cachesvc.tiers.l2.memcached import MemcachedTier
from cachesvc.tiers.redis_connections import RedisConnections
from loadtests.fleet_topology import free_ports
from tests.doubles.servers import RealServer, memcached_server, redis_server
from tests.wire.conftest import running_site

HAS_IPV6 = Path("/proc/net/if_inet6").exists() and "lo" in Path("/proc/net/if_inet6").read_text()
REAL = socket.getaddrinfo


@contextlib.contextmanager
def silent_address(port: int) -> Iterator[str]:
    """An address of this machine that takes no connection at that port, and refuses none.

    Its queue of connections to accept is full, so Linux drops what comes.
    """
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.9", port))
        listening.listen(0)
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.9", port))
        yield "127.0.0.9"


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names and their addresses, as the system's resolver gives them from now on."""
    known: dict[str, list[str]] = {}

    def getaddrinfo(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        return [found for one in known.get(host, [host]) for found in REAL(one, port, *rest, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


DEAD = ["refuses", "is silent", pytest.param("::1", marks=pytest.mark.skipif(not HAS_IPV6, reason="no IPv6"))]


@pytest.fixture(params=DEAD)
def dead(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.contextmanager
def dead_address(dead: str, port: int) -> Iterator[str]:
    if dead == "is silent":
        with silent_address(port) as address:
            yield address
    else:
        yield "127.0.0.8" if dead == "refuses" else dead


@pytest.fixture(scope="module")
def redis() -> Iterator[RealServer]:
    with redis_server(tcp=True) as running:
        yield running


@pytest.fixture(scope="module")
def memcached() -> Iterator[RealServer]:
    with memcached_server(tcp=True) as running:
        yield running


async def test_redis_is_reached_at_its_second_address(
    redis: RealServer, named: dict[str, list[str]], dead: str
) -> None:
    port = redis.port
    with dead_address(dead, port) as address:
        named["cell.test"] = [address, "127.0.0.1"]
        pool: Any = RedisConnections.at(f"redis://cell.test:{port}/0")
        connection = await pool.get_connection()
        await connection.send_command("PING")
        assert await connection.read_response() == b"PONG"
        await pool.disconnect()


async def test_memcached_is_reached_at_its_second_address(
    memcached: RealServer, named: dict[str, list[str]], dead: str
) -> None:
    """The next connection begins with the address that answered."""
    port = memcached.port
    with dead_address(dead, port) as address:
        named["pool.test"] = [address, "127.0.0.1"]
        tier = MemcachedTier("m1", f"pool.test:{port}", L2(), SystemClock())
        await tier.start()
        assert b"pid" in await tier.report()
        if dead != "is silent":  # a look, which is for people, has less time than that takes
            assert await tier.look(Key.of("docs", "a")) is None
        tier._client.close()
        assert b"pid" in await tier.report()
        assert tier._client._answered == ("127.0.0.1", port)
        await tier.stop()


@pytest.fixture
async def origin() -> AsyncIterator[int]:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(text="here")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield int(runner.addresses[0][1])
    await runner.cleanup()


async def test_an_origin_is_reached_at_its_second_address(
    origin: int, named: dict[str, list[str]], dead: str
) -> None:
    with dead_address(dead, origin) as address:
        named["origin.test"] = [address, "127.0.0.1"]
        url = f"http://origin.test:{origin}/"
        async with aiohttp.ClientSession(connector=CleanConnector()) as http, http.get(url) as found:
            assert await found.text() == "here"


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6")
@pytest.mark.parametrize(
    ("host", "addresses", "reached"),
    [
        ("localhost", ["::1", "127.0.0.1"], ["::1", "127.0.0.1"]),
        ("localhost", ["127.0.0.1", "::1"], ["::1", "127.0.0.1"]),
        ("two.test", ["127.0.0.1", "192.0.2.1"], ["127.0.0.1"]),
        ("two.test", ["192.0.2.1", "127.0.0.1"], ["127.0.0.1"]),
        ("::", ["::"], ["::1", "127.0.0.1"]),
        ("::1", ["::1"], ["::1"]),
    ],
)
async def test_an_instance_listens_on_every_address_of_its_host(
    named: dict[str, list[str]], host: str, addresses: list[str], reached: list[str]
) -> None:
    named[host] = addresses
    async with running_site(host=host) as site:
        for address in ("::1", "127.0.0.1"):
            try:
                _, writer = await asyncio.open_connection(address, site.port)
            except OSError:
                assert address not in reached
            else:
                writer.close()
                assert address in reached


async def test_an_address_in_use_is_said_although_another_is_free(named: dict[str, list[str]]) -> None:
    with socket.create_server(("127.0.0.7", 0)) as taken:
        named["two.test"] = ["127.0.0.1", "127.0.0.7"]
        with pytest.raises(OSError, match="Address already in use"):
            async with running_site(host="two.test", port=taken.getsockname()[1]):
                pass


async def test_a_look_up_that_hangs_is_shared_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go_on = [], Event()

    def getaddrinfo(host: str, *_: object) -> object:
        asked.append(host)
        go_on.wait()
        return REAL("127.0.0.1", 7, socket.AF_INET, socket.SOCK_STREAM)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    leaves, stays = (asyncio.create_task(names.look_up("slow.test", 7)) for _ in range(2))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(names.look_up_within, 0.01, "slow.test", 7)
    leaves.cancel()
    await asyncio.wait((leaves,))
    assert leaves.cancelled()
    go_on.set()
    assert [address for *_, address in await stays] == [("127.0.0.1", 7)]
    assert asked == ["slow.test"]
    assert [address for *_, address in await names.look_up("127.0.0.5", 7)] == [("127.0.0.5", 7)]
    assert not names._running


async def test_a_name_that_is_none_is_a_failure_of_the_look_up() -> None:
    with pytest.raises(OSError, match="is no name"):
        await names.look_up("a" * 70 + ".test", 7)


HUNG = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
  static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  size_t length = node ? strlen(node) : 0;
  if (length > 5 && !strcmp(node + length - 5, ".hung")) for (;;) pause();
  if (!real) real = dlsym(RTLD_NEXT, "getaddrinfo");
  return real(node, service, hints, found);
}
"""
TOPOLOGY = """
version: 1
regions:
  eu:
    queue: redis://queue.hung:6379
    pool: {m1: {address: "m1.hung:11211"}, m2: {address: "m2.hung:11211"}}
    instances: {eu-a: "http://127.0.0.1:1", eu-b: "http://peer.hung:8080"}
cells:
  c1: {region: eu, url: "redis://c1.hung:6379"}
  c2: {region: eu, url: "rediss://c2.hung:6379"}
namespaces:
  docs: {owner: web, origin: {url: "http://origin.hung/{key}"}}
callers: {anonymous: ["read:*"]}
"""


@pytest.fixture(scope="module")
def resolver_that_hangs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library whose `getaddrinfo` never returns for `*.hung`, to be loaded before the system's."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("hung")
    (folder / "hung.c").write_text(HUNG)
    made = folder / "hung.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, folder / "hung.c", "-ldl"], check=True)
    return made


@pytest.fixture(params=["127.0.0.1", "instance.hung"])
def hung_service(request: pytest.FixtureRequest, resolver_that_hangs: Path, tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "topology.yaml").write_text(TOPOLOGY)
    (port,) = free_ports(1)
    environ = {
        **os.environ,
        "LD_PRELOAD": str(resolver_that_hangs),
        "CACHESVC_REGION": "eu",
        "CACHESVC_INSTANCE": "eu-a",
        "CACHESVC_SERVER_HOST": request.param,
        "CACHESVC_SERVER_PORT": str(port),
        "CACHESVC_TELEMETRY_OTLP": "http://otlp.hung:4318",
        "CACHESVC_L2_SEAL": "false",
    }
    command = [sys.executable, "-m", "cachesvc", "serve", "--topology", str(tmp_path / "topology.yaml")]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
        yield process, f"http://127.0.0.1:{port}"
        process.kill()


async def test_a_resolver_that_hangs_delays_no_stop(hung_service: Any) -> None:
    """Far servers of every kind, or the own address, are being looked up."""
    process, url = hung_service
    said = ""
    while "the queue of changes fails" not in said:
        said += (line := await asyncio.to_thread(process.stderr.readline))
        assert line, f"it ended: {said}"
    with contextlib.suppress(OSError, aiohttp.ClientError, TimeoutError):
        async with aiohttp.ClientSession() as http, http.get(f"{url}/v1/docs/a", timeout=LOAD):
            pass
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 9) == 0


LOAD = aiohttp.ClientTimeout(1)
