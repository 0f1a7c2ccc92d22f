"""`cachesvc check` holds on a deployment that is TLS everywhere.

Redis servers know their users by an ACL, and memcached wants a login. While the check runs, a
cell's connections are cut, memcached is killed, and every certificate is renewed.
"""

import asyncio
import json
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from redis import Redis

from cachesvc.app.embedded.server_process import ServerProcess, stop_all
from loadtests.fleet_servers import module_server
from loadtests.fleet_topology import free_ports
from tests.doubles.certificates import Authority
from tests.doubles.guarded_servers import PASSWORD, GuardedRedis, guarded_redis
from tests.doubles.servers import RealServer, memcached_server

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

SECONDS = 8


class Place:
    """Two instances, a cell, a queue and a memcached, all behind TLS."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root = root
        self.authority = Authority(root, "instances")
        self.own = self.authority.issue(file="instance")
        self.caller = self.authority.issue("checker.test", file="caller")
        self.cell: GuardedRedis = stack.enter_context(guarded_redis())
        self.queue: GuardedRedis = stack.enter_context(guarded_redis("--appendonly", "yes"))
        users = root / "users"
        users.write_text("cachesvc:a-word\n")
        pool = self.authority.issue(file="memcached")
        words = ("-Z", "-o", f"ssl_chain_cert={pool.cert},ssl_key={pool.key}", "-Y", str(users))
        self.memcached: RealServer = stack.enter_context(memcached_server(*words, port_only=True))
        self.ca = root / "all.pem"
        files = (self.authority.file, self.cell.authority.file, self.queue.authority.file)
        self.ca.write_text("".join(Path(file).read_text() for file in files))
        self.origin, *ports = free_ports(3)
        self.urls = {
            f"eu-{name}": f"https://localhost:{port}" for name, port in zip("ab", ports, strict=True)
        }
        self.topology = root / "topology.yaml"
        self.topology.write_text(yaml.safe_dump(self._document()))
        self.instances = [self._instance(name, url, users) for name, url in self.urls.items()]
        stack.callback(stop_all, self.instances)
        for instance in self.instances:
            instance.spawn()
        for instance in self.instances:
            instance.wait_ready()

    def _document(self) -> dict[str, object]:
        def as_user(server: GuardedRedis, user: str) -> str:
            return server.url.replace("://", f"://cachesvc-{user}:{PASSWORD}@")

        origin = {"url": f"http://127.0.0.1:{self.origin}/check/{{key}}"}
        return {
            "version": 1,
            "regions": {
                "eu": {
                    "queue": as_user(self.queue, "queue"),
                    "pool": {"m1": {"address": f"tls:localhost:{self.memcached.port}"}},
                    "instances": self.urls,
                }
            },
            "cells": {"c1": {"region": "eu", "url": as_user(self.cell, "cell")}},
            "namespaces": {"check": {"owner": "drills", "ttl": "1m", "max_lag": "1s", "origin": origin}},
        }

    def _instance(self, name: str, url: str, users: Path) -> ServerProcess:
        settings = {
            "CACHESVC_REGION": "eu",
            "CACHESVC_INSTANCE": name,
            "CACHESVC_SERVER_PORT": url.rpartition(":")[2],
            "CACHESVC_SERVER_TLS_CERT": self.own.cert,
            "CACHESVC_SERVER_TLS_KEY": self.own.key,
            "CACHESVC_SERVER_TLS_CA": self.authority.file,
            "CACHESVC_SERVER_TLS_CLIENT_CERTIFICATES": "required",
            "CACHESVC_TLS_CA": str(self.ca),
            "CACHESVC_TLS_CERT": self.own.cert,
            "CACHESVC_TLS_KEY": self.own.key,
            "CACHESVC_L2_AUTH_FILE": str(users),
            "CACHESVC_COHERENCE_HEARTBEAT": "200ms",
            "CACHESVC_COHERENCE_SKETCH_SLOTS": "65536",
            "CACHESVC_L1_BUDGET": "16MiB",
        }
        words = ["cachesvc", "serve", "--topology", str(self.topology)]
        return module_server(name, words, lambda: self.is_ready(url), self.root, settings)

    def is_ready(self, url: str) -> bool:
        try:
            return bool(self.told(url))
        except urllib.error.HTTPError:
            return False

    def told(self, url: str, path: str = "/readyz?verbose") -> str:
        """Returns the answer of an instance, asked with the caller's certificate."""
        context = ssl.create_default_context(cafile=self.authority.file)
        context.load_cert_chain(self.caller.cert, self.caller.key)
        with urllib.request.urlopen(f"{url}{path}", timeout=5, context=context) as answer:
            return str(answer.read().decode())

    def renew(self) -> None:
        """Writes all certificates of the authority anew, into the same files."""
        self.authority.issue(file="instance")
        self.authority.issue("checker.test", file="caller")
        self.authority.issue(file="memcached")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path, stack)


async def test_every_check_holds_over_tls_while_servers_fail_and_certificates_change(place: Place) -> None:
    verdict = place.root / "verdict.json"
    words = ["--topology", str(place.topology), "--origin-listen", f"127.0.0.1:{place.origin}"]
    tls = ["--tls-ca", str(place.ca), "--tls-cert", place.caller.cert, "--tls-key", place.caller.key]
    load = ["--duration", f"{SECONDS}s", "--rate", "200", "--heartbeat", "200ms", "--json", str(verdict)]
    check = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cachesvc", "check", *words, *tls, *load,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    await asyncio.sleep(3)
    with Redis.from_url(place.cell.redis_url) as admin:
        admin.execute_command("CLIENT", "KILL", "USER", "cachesvc-cell")
    place.memcached.kill()
    place.renew()
    await asyncio.to_thread(place.memcached.restart)
    said, _ = await check.communicate()
    assert check.returncode == 0, said.decode()
    assert json.loads(verdict.read_bytes())["broken"] == []
    url = place.urls["eu-a"]
    ready = json.loads(await asyncio.to_thread(place.told, url))
    assert [one for one in ready["troubles"] if "TLS" in one or "certificate" in one] == []
    metrics = (await asyncio.to_thread(place.told, url, "/metrics")).splitlines()
    assert any(line.startswith("cachesvc_tls_certificate_left_seconds{") for line in metrics)
