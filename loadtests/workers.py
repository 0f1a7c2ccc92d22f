"""Measures a host of workers beside one process: CPU per request, and hits in L1.

    python -m loadtests.workers --seconds 4

The servers are real. Each figure is a ratio of a host of workers to one process that serves the
same keys with the same `l1.budget`:

    CPU per request    of 2 workers: L1 hits over connections that are kept, to the shared port;
                       the CPU time of all workers, on one core, per answer; the load has another
    L1 hit ratio       of 4 workers, asked by an SDK, which sends each key to one worker: reads
                       popular by rank (Zipf) of many more keys than L1 holds
"""

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import yaml
from cachesvc_client import Cache, PartialError

from cachesvc.app.embedded.server_process import ServerProcess
from cachesvc.commands.top.exposition import Exposition
from loadtests.bench.cores import Cores, cpu_seconds
from loadtests.bench.drivers import Load, choose
from loadtests.fleet import Fleet
from loadtests.fleet_servers import SERVICE, instance_words, module_server
from loadtests.fleet_topology import free_ports, one_region

NAME = "host"
ROUNDS = 5
HIT_KEYS, READ_KEYS = 200, 10_000
READS_PER_CALL, READS = 100, 30_000
VALUE = b"x" * 1000


def document(workers: int) -> dict[str, Any]:
    """Returns a topology of one region, whose instances are the workers of one host."""
    names = [NAME] if workers == 1 else [f"{NAME}-{number}" for number in range(workers)]
    return one_region(names, ttl="40m", jitter=0, early_refresh=0)


class Host:
    """`cachesvc serve --workers N` beside the servers of a fleet.

    A context manager: inside, every worker is ready; outside, none runs.
    """

    def __init__(self, fleet: Fleet, workers: int, settings: Mapping[str, str] | None = None) -> None:
        """Prepares the host; nothing is started.

        The topology of `fleet` names the host's workers, and the fleet starts no instances itself.
        """
        self.workers = workers
        self._fleet = fleet
        (region,) = (name for name, one in fleet.topology.regions.items() if one.instances)
        self.urls = fleet.topology.regions[region].instances
        """The URLs of the workers' own ports, by name."""
        (port,) = free_ports(1) if workers > 1 else (int(self.urls[NAME].rpartition(":")[2]),)
        self.url = f"http://127.0.0.1:{port}"
        """The URL of the port that the workers share."""
        words = [*instance_words(fleet.topology_path, SERVICE), "--workers", str(workers)]
        own = {"CACHESVC_REGION": region, "CACHESVC_INSTANCE": NAME, "CACHESVC_SERVER_PORT": str(port)}
        self.process: ServerProcess = module_server(
            NAME, words, self._is_ready, fleet.run_dir, {**own, **(settings or {})}
        )
        """The supervisor; the instance itself if there is one worker."""

    def __repr__(self) -> str:
        return f"<Host [{self.workers} workers, {self.process!r}]>"

    def __enter__(self) -> "Host":
        self.process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.stop()

    def pids(self) -> list[int]:
        """Returns the process ids of the workers that run."""
        if self.workers == 1:
            return [self.process.pid]
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as children:
            return [int(pid) for pid in children.read().split()]

    def metrics(self) -> Exposition:
        """Returns the metrics of the host."""
        with urlopen(f"{self.url}/metrics") as answer:
            return Exposition.parse(answer.read().decode())

    def _is_ready(self) -> bool:
        try:
            for url in self.urls.values():
                with urlopen(f"{url}/readyz", timeout=2):
                    pass
        except URLError:
            return False
        return True


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=4.0, help="Of each measurement (default: 4).")
    seconds = options.parse_args().seconds
    with _host(1) as one, _host(2) as two:
        cores = Cores.choose()
        os.sched_setaffinity(0, [cores.load])
        for host in (one, two):
            _fill_for_hits(host)
            for pid in host.pids():
                os.sched_setaffinity(pid, [cores.server])
        ratios = []
        for _ in range(ROUNDS):
            costs = {host.workers: _cpu_per_request(host, seconds) for host in (one, two)}
            ratios.append(costs[2] / costs[1])
            print(f"CPU per L1 hit: 1 process {costs[1]:.1f} us, 2 workers {costs[2]:.1f} us")
        print(f"CPU per L1 hit, 2 workers / 1 process: {median(ratios):.2f}", flush=True)
    hits = {}
    for workers in (1, 4):
        with _host(workers) as host:
            hits[workers] = asyncio.run(_hit_ratio(host))
    print(f"L1 hit ratio by SDK: 1 process {hits[1]:.3f}, 4 workers {hits[4]:.3f}")
    print(f"L1 hit ratio, 4 workers / 1 process: {hits[4] / hits[1]:.3f}")


@contextmanager
def _host(workers: int) -> Iterator[Host]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "document.yaml")
        source.write_text(yaml.safe_dump(document(workers)))
        with (
            Fleet(source, Path(folder, "run"), with_instances=False) as fleet,
            Host(fleet, workers, {"CACHESVC_L1_BUDGET": "8MiB"}) as host,
        ):
            yield host


def _fill_for_hits(host: Host) -> None:
    """Stores the keys of the first figure, and has every worker take them into L1."""
    asyncio.run(store(host, [f"hit-{nth}" for nth in range(HIT_KEYS)]))
    for url in host.urls.values():
        for nth in range(HIT_KEYS):
            with urlopen(f"{url}/v1/pages/hit-{nth}") as answer:
                answer.read()


async def store(host: Host, keys: list[str]) -> None:
    async with Cache.from_url(host.url, default_timeout="10s") as cache:
        pages = cache.namespace("pages")
        for at in range(0, len(keys), 100):
            while True:
                with suppress(PartialError):  # a server on this busy machine took too long
                    await pages.set_many(dict.fromkeys(keys[at : at + 100], VALUE))
                    break


def _cpu_per_request(host: Host, seconds: float) -> float:
    """Returns the CPU time of the host per answered L1 hit, in µs."""
    at = host.url.removeprefix("http://")
    requests = [f"GET /v1/pages/hit-{nth} HTTP/1.1\r\nHost: {at}\r\n\r\n".encode() for nth in range(HIT_KEYS)]
    load = Load(host.url, requests, len(VALUE))
    before = sum(map(cpu_seconds, host.pids()))
    began = time.monotonic()
    rate = choose("built-in")(load, seconds)
    answers = rate * min(seconds, time.monotonic() - began)
    return (sum(map(cpu_seconds, host.pids())) - before) / answers * 1e6


async def _hit_ratio(host: Host) -> float:
    """Returns the share of L1 look-ups that hit, after as many reads that warm L1."""
    keys = [f"read-{nth}" for nth in range(READ_KEYS)]
    await store(host, keys)
    weights, rng = list(accumulate(1 / (nth + 1) ** 0.99 for nth in range(READ_KEYS))), random.Random(7)
    async with Cache.from_url(host.url, default_timeout="10s") as cache:
        pages = cache.namespace("pages")
        for _ in ("warm", "measured"):
            before = await asyncio.to_thread(looked_up, host)
            for _ in range(READS // READS_PER_CALL):
                await pages.get_many(rng.choices(keys, cum_weights=weights, k=READS_PER_CALL))
    after = await asyncio.to_thread(looked_up, host)
    return (after[0] - before[0]) / (after[1] - before[1])


def looked_up(host: Host) -> tuple[float, float]:
    """Returns the hits of L1 and all look-ups in it."""
    found = host.metrics().by("lookups_total", "outcome", tier="l1")
    return found.get("hit", 0.0), sum(found.values())


if __name__ == "__main__":
    main()
