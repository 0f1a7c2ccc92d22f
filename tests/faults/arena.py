"""Where drills take place: two regions of two instances with short times, and the links between them and some servers.

What a drill breaks is whole again when the next one begins: `restore` does not help the service, it only undoes faults.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import msgspec
from redis.asyncio import Redis

from cachesvc.app.embedded.server_process import ServerProcess, stop_all
from cachesvc.commands.check.settings import CheckSettings, LoadDelays, deployment_of
from loadtests.fleet import Fleet
from loadtests.fleet_servers import SERVICE
from loadtests.fleet_topology import free_ports
from tests.faults.links import Links

DOCUMENT = Path(__file__).parents[2] / "config" / "two-regions.yaml"
NAMESPACE, LOOK_ASIDE = "check", "aside"
"""Of the checker: read through, and with leases for the callers' own loaders."""
MAX_LAG_SECONDS, HEARTBEAT_SECONDS, LEASE_SECONDS = 1.0, 0.2, 1.0
MUTANT = "tests.faults.mutant"
"""The launcher of instances with something wrong."""
HEALTHY_WITHIN_SECONDS = 30.0

DELAYS = LoadDelays(slow=0.03, longest_seconds=0.3, late=0.002, late_seconds=LEASE_SECONDS + 0.5)
"""Slow enough for writes to come in between, and seldom: all clients soon wait for the same hot key."""

SETTINGS = {
    "CACHESVC_COHERENCE_HEARTBEAT": f"{HEARTBEAT_SECONDS * 1000:.0f}ms",
    "CACHESVC_COHERENCE_SKETCH_SLOTS": "65536",
    "CACHESVC_L1_BUDGET": "16MiB",
}

LINKED: Mapping[str, Sequence[str]] = {
    "eu": ("memcached-eu-m1", "cell-us-1", "cell-us-2", "queue-us", "queue-eu"),
    "us": ("memcached-us-m1", "cell-eu-1", "cell-eu-2", "queue-eu", "queue-us"),
}
"""By region: what its instances reach through a link of their own, `eu:cell-us-1`."""


class Arena:
    def __init__(self, fleet: Fleet, links: Links, origin_port: int) -> None:
        self.fleet = fleet
        self.links = links
        self._origin = f"127.0.0.1:{origin_port}"
        self._altered: set[str] = set()
        """Instances that are something else than the service."""
        self._guests: list[ServerProcess] = []
        """Processes of one drill."""

    def settings(
        self, *, seconds: float, seed: int, delays: LoadDelays | None = None, namespace: str = NAMESPACE
    ) -> CheckSettings:
        """Of a check of this deployment: a heavier load than usual, because a drill is short."""
        deployed = deployment_of(self.fleet.topology, namespace, self._origin)
        return msgspec.structs.replace(
            deployed,
            seed=seed,
            duration_seconds=seconds,
            clients=32,
            rate=400.0,
            delays=delays or DELAYS,
            heartbeat_us=round(HEARTBEAT_SECONDS * 1e6),
        )

    def server(self, name: str) -> ServerProcess:
        """By the name of its process, such as `cell-eu-1`."""
        return next(server for server in self.fleet.servers() if server.name == name)

    def redis(self, name: str) -> Redis:
        """A client past every link."""
        return Redis(port=self.fleet.port(name), protocol=3, socket_timeout=5)

    async def start(self, name: str) -> None:
        """Start a server that was killed, and wait until it is ready without holding up the loop."""
        server = self.server(name)
        server.spawn()
        await asyncio.to_thread(server.wait_ready)

    async def start_guest(self, server: ServerProcess) -> None:
        """A process that runs until the drill is over and its check has ended."""
        self._guests.append(server)
        server.spawn()
        await asyncio.to_thread(server.wait_ready)

    def dismiss_guests(self) -> None:
        stop_all(self._guests)
        self._guests.clear()

    def pause(self, name: str) -> None:
        """SIGSTOP, and it has stopped."""
        server = self.server(name)
        server.kill(signal.SIGSTOP)
        os.waitid(os.P_PID, server.pid, os.WSTOPPED)

    def resume(self, name: str) -> None:
        self.server(name).kill(signal.SIGCONT)

    def kill(self, name: str) -> None:
        self.server(name).kill()

    async def relaunch(self, launchers: Mapping[str, Sequence[str]]) -> None:
        """Kill these instances and start them as something else (`tests.faults.mutant …`)."""
        for instance, launcher in launchers.items():
            self.fleet.launch_with(instance, launcher)
            self.fleet.instances[instance].kill()
            self._altered.add(instance)
        await self._start_what_is_down()

    async def restore(self) -> None:
        """Everything runs as it should, every link is open, and every instance knows that it is current."""
        self.dismiss_guests()
        self.links.mend()
        for server in self.fleet.servers():
            server.kill(signal.SIGCONT)
        await self.relaunch(dict.fromkeys(self._altered, SERVICE))
        self._altered.clear()
        await self.healthy()

    async def _start_what_is_down(self) -> None:
        down = [server for server in self.fleet.servers() if not server.is_running]
        for server in down:
            server.spawn()
        for server in down:
            await asyncio.to_thread(server.wait_ready)

    async def healthy(self) -> None:
        """Wait until every instance is ready and within `max_lag`."""
        give_up_at = time.monotonic() + HEALTHY_WITHIN_SECONDS
        async with aiohttp.ClientSession() as http:
            for name in self.fleet.instances:
                while not (state := await self._state(http, name)).is_current:
                    assert time.monotonic() < give_up_at, f"{name} does not recover: {state.told}"
                    await asyncio.sleep(0.02)

    async def counted(self, instance: str, metric: str) -> float:
        """A metric without labels, as the instance says it now."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.fleet.url(instance)}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{metric} "))

    async def counted_in(self, region: str, metric: str) -> float:
        """Of all instances of a region together."""
        return sum(
            [
                await self.counted(instance, metric)
                for instance in self.fleet.topology.regions[region].instances
            ]
        )

    async def _state(self, http: aiohttp.ClientSession, instance: str) -> "State":
        try:
            async with http.get(
                f"{self.fleet.url(instance)}/readyz?verbose", timeout=aiohttp.ClientTimeout(1)
            ) as answer:
                told = await answer.text()
                bounds = json.loads(told)["staleness_bound_seconds"].values()
                return State(
                    told,
                    answer.status == 200
                    and all(bound is not None and bound < MAX_LAG_SECONDS for bound in bounds),
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            return State(f"{type(error).__name__} {error}", False)


class State(msgspec.Struct, frozen=True):
    """What an instance says of itself."""

    told: str
    is_current: bool
    """Ready, and no region's feed is behind by more than `max_lag`."""


@contextmanager
def arena(run_dir: Path) -> Iterator[Arena]:
    """Runs inside."""
    (origin,) = free_ports(1)
    detours, listens = _detours()
    fleet = Fleet(
        DOCUMENT, run_dir / "run", environ=SETTINGS, namespaces=_namespaces(origin), detours=detours
    )
    links = Links(
        {name: (port, fleet.port(name.partition(":")[2])) for name, port in listens.items()}, fleet.run_dir
    )
    links.process.start()
    try:
        with fleet:
            yield Arena(fleet, links, origin)
    finally:
        links.process.stop()


def _detours() -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Instance → server → port, and link → port."""
    names = [(region, server) for region, servers in LINKED.items() for server in servers]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    by_instance = {
        f"{region}-{letter}": {server: ports[region, server] for server in servers}
        for region, servers in LINKED.items()
        for letter in "ab"
    }
    return by_instance, {f"{region}:{server}": port for (region, server), port in ports.items()}


def _namespaces(origin_port: int) -> dict[str, object]:
    times = {
        "ttl": "1m",
        "max_lag": f"{MAX_LAG_SECONDS:g}s",
        "lease": f"{LEASE_SECONDS:g}s",
        "lease_wait": "2s",
    }
    origin = {
        "url": f"http://127.0.0.1:{origin_port}/check/{{key}}",
        "soft_deadline": "500ms",
        "hard_deadline": "3s",
    }
    return {
        NAMESPACE: {"owner": "drills", **times, "origin": origin},
        LOOK_ASIDE: {"owner": "drills", **times},
    }
