"""The place of the drills: two regions of two instances, and links that can be broken.

In region us, each instance is in a zone with a memcached server and a ring of its own.

The deployment has short times, and proxied links between instances and some servers. All faults
are undone before the next drill begins: `restore` does not help the service, it only undoes
faults.
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
import yaml
from redis.asyncio import Redis

from cachesvc.app.embedded.server_process import ServerProcess, stop_all
from cachesvc.commands.check.settings import CheckSettings, LoadDelays, deployment_of
from loadtests.fleet import Fleet
from loadtests.fleet_servers import SERVICE
from loadtests.fleet_topology import free_ports
from tests.faults.links import Links

DOCUMENT = Path(__file__).parents[2] / "config" / "two-regions.yaml"
NAMESPACE, LOOK_ASIDE = "check", "aside"
"""The checker's namespaces: read-through, and with leases for the callers' own loaders."""
MAX_LAG_SECONDS, HEARTBEAT_SECONDS, LEASE_SECONDS = 1.0, 0.2, 1.0
MUTANT = "tests.faults.mutant"
"""The launcher of instances that have something wrong."""
HEALTHY_WITHIN_SECONDS = 30.0

DELAYS = LoadDelays(slow=0.03, longest_seconds=0.3, late=0.002, late_seconds=LEASE_SECONDS + 0.5)
"""Loads are slow enough for writes to happen meanwhile, but seldom.

If more loads were slow, all clients would soon wait for the same hot key.
"""

SETTINGS = {
    "CACHESVC_COHERENCE_HEARTBEAT": f"{HEARTBEAT_SECONDS * 1000:.0f}ms",
    "CACHESVC_COHERENCE_SKETCH_SLOTS": "65536",
    "CACHESVC_L1_BUDGET": "16MiB",
    "CACHESVC_L2_WARM_UP": "2s",
}

LINKED: Mapping[str, Sequence[str]] = {
    "eu": ("memcached-eu-m1", "cell-us-1", "cell-us-2", "queue-us", "queue-eu"),
    "us": ("memcached-us-m1", "cell-eu-1", "cell-eu-2", "queue-eu", "queue-us"),
}
"""For each region, the servers that its instances reach through a link of their own.

The link's name is such as `eu:cell-us-1`.
"""


class Arena:
    """A running deployment, and the means to break it."""

    def __init__(self, fleet: Fleet, links: Links, origin_port: int) -> None:
        self.fleet = fleet
        self.links = links
        self._origin = f"127.0.0.1:{origin_port}"
        self._altered: set[str] = set()
        """Instances that do not run the usual service now."""
        self._guests: list[ServerProcess] = []
        """Processes that run for one drill only."""

    def settings(
        self, *, seconds: float, seed: int, delays: LoadDelays | None = None, namespace: str = NAMESPACE
    ) -> CheckSettings:
        """The settings for a check of this deployment.

        The load is heavier than usual, because a drill is short.
        """
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
        """The process with this name, such as `cell-eu-1`."""
        return next(server for server in self.fleet.servers() if server.name == name)

    def redis(self, name: str) -> Redis:
        """A client that connects directly, past every link."""
        return Redis(port=self.fleet.port(name), protocol=3, socket_timeout=5)

    async def start(self, name: str) -> None:
        """Starts a server that was killed, and waits until it is ready without blocking the loop."""
        server = self.server(name)
        server.spawn()
        await asyncio.to_thread(server.wait_ready)

    async def start_guest(self, server: ServerProcess) -> None:
        """Starts a process that runs until the drill is over and its check has ended."""
        self._guests.append(server)
        server.spawn()
        await asyncio.to_thread(server.wait_ready)

    def dismiss_guests(self) -> None:
        """Stops the processes that were started for one drill."""
        stop_all(self._guests)
        self._guests.clear()

    def pause(self, name: str) -> None:
        """Sends SIGSTOP, and waits until the process has stopped."""
        server = self.server(name)
        server.kill(signal.SIGSTOP)
        os.waitid(os.P_PID, server.pid, os.WSTOPPED)

    def resume(self, name: str) -> None:
        """Sends SIGCONT."""
        self.server(name).kill(signal.SIGCONT)

    def kill(self, name: str) -> None:
        """Kills the process."""
        self.server(name).kill()

    async def end(self, name: str) -> None:
        """Stops the process as an operator does, and waits for its end without blocking the loop."""
        await asyncio.to_thread(self.server(name).stop)

    async def relaunch(self, launchers: Mapping[str, Sequence[str]]) -> None:
        """Kills these instances and starts them with other launchers (`tests.faults.mutant …`)."""
        for instance, launcher in launchers.items():
            self.fleet.launch_with(instance, launcher)
            self.fleet.instances[instance].kill()
            self._altered.add(instance)
        await self._start_what_is_down()

    async def restore(self) -> None:
        """Undoes all faults and waits for the service to recover.

        Afterwards every process runs as it should, every link is open, and every instance knows that it
        is current.
        """
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
        """Waits until every instance is ready and within `max_lag`."""
        give_up_at = time.monotonic() + HEALTHY_WITHIN_SECONDS
        async with aiohttp.ClientSession() as http:
            for name in self.fleet.instances:
                while not (state := await self._state(http, name)).is_current:
                    assert time.monotonic() < give_up_at, f"{name} does not recover: {state.told}"
                    await asyncio.sleep(0.02)

    async def counted(self, instance: str, metric: str) -> float:
        """The value of a metric without labels, as the instance reports it now."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.fleet.url(instance)}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{metric} "))

    async def counted_in(self, region: str, metric: str) -> float:
        """The sum of that metric over all instances of a region."""
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
    """The report of an instance about itself."""

    told: str
    is_current: bool
    """True if the instance is ready and no region's feed is behind by more than `max_lag`."""


@contextmanager
def arena(run_dir: Path) -> Iterator[Arena]:
    """The arena; its processes run while the block runs."""
    (origin,) = free_ports(1)
    detours, listens = _detours()
    document = run_dir / "document.yaml"
    document.write_text(_zoned(DOCUMENT.read_text()))
    fleet = Fleet(
        document,
        run_dir / "run",
        environ={**SETTINGS, "CACHESVC_L1_SNAPSHOT_DIRECTORY": str(run_dir / "snapshots")},
        namespaces=namespaces_of(origin),
        detours=detours,
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


def _zoned(text: str) -> str:
    """The document with two zones in region us, each with an instance and a ring of its own."""
    document = yaml.safe_load(text)
    us = document["regions"]["us"]
    us |= {"rings": "zone", "zones": {"us-a": "a", "us-b": "b"}}
    us["pool"]["us-m1"]["zone"], us["pool"]["us-m2"]["zone"] = "a", "b"
    return yaml.safe_dump(document, sort_keys=False)


def _detours() -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """The detours (instance → server → port) and the links (name → port)."""
    names = [(region, server) for region, servers in LINKED.items() for server in servers]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    by_instance = {
        f"{region}-{letter}": {server: ports[region, server] for server in servers}
        for region, servers in LINKED.items()
        for letter in "ab"
    }
    return by_instance, {f"{region}:{server}": port for (region, server), port in ports.items()}


def namespaces_of(origin_port: int) -> dict[str, object]:
    """Returns the checker's namespaces; its origin listens at this port."""
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
