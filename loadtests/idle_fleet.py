"""Measures what idle instances cost: the queue in commands, each of them in CPU time.

    python -m loadtests.idle_fleet --instances 1 6 12 24 --rates 50 200 500

The servers are real. One instance more than is counted publishes: it invalidates single keys over
HTTP, at a fixed rate. The others only follow. For each number of idle instances, one line says:

    commands/s     that clients sent to the queue while nothing changed, per instance
    CPU at rest    of an idle instance, µs per second
    CPU per change of an idle instance: what it used more than at rest, per change, at each rate
    merged p99     the time from the publication of a fence to its merge in an idle instance, at each
                   rate, as the bound of the histogram's bucket

Commands that scripts run on the server are not counted (MONITOR tells them apart). CPU time is of
all threads, as the kernel's scheduler counts it (/proc/PID/task/*/schedstat), so a short
measurement is exact. On a busy machine it is higher: a process that is woken finds its caches cold.
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple
from urllib.request import urlopen

import aiohttp
import yaml
from redis import Redis

from cachesvc.commands.top.exposition import Exposition
from loadtests.fleet import Fleet
from loadtests.fleet_topology import one_region
from loadtests.relays import lags_in, quantile

PUBLISHER = "publisher"
SETTLE_SECONDS = 3.0
"""The time before a measurement: the first looks of a new instance are over."""


class Row(NamedTuple):
    """The figures of one fleet."""

    idle: int
    commands_per_instance: float
    """Commands per second at rest, the publisher included."""
    rest_us: float
    """CPU of an idle instance at rest, µs per second."""
    change_us: Sequence[tuple[float, float]]
    """Changes per second that were made, and the CPU of an idle instance per change, µs."""
    merged_p99: Sequence[str]
    """The bound of the time from publication to merge, for 99 % of the fences, at each rate."""

    def __str__(self) -> str:
        changes = "  ".join(
            f"{us:6.0f} at {rate:4.0f}/s ({p99})"
            for (rate, us), p99 in zip(self.change_us, self.merged_p99, strict=True)
        )
        return f"{self.idle:9}  {self.commands_per_instance:10.2f}  {self.rest_us:12.0f}  {changes}"


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--instances", type=int, nargs="+", default=[1, 6, 12, 24])
    options.add_argument("--rates", type=float, nargs="+", default=[50, 200, 500], help="Changes per second.")
    options.add_argument("--seconds", type=float, default=6.0, help="Of each measurement (default: 6).")
    chosen = options.parse_args()
    print("instances  commands/s  rest us per s  CPU per change, us (merged p99)", flush=True)
    for idle in chosen.instances:
        print(measure(idle, chosen.rates, chosen.seconds), flush=True)


def measure(idle: int, rates: Sequence[float], seconds: float) -> Row:
    """Returns the figures of a fleet with so many idle instances."""
    names = [f"idle-{number}" for number in range(idle)]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "document.yaml")
        source.write_text(yaml.safe_dump(one_region([PUBLISHER, *names])))
        with Fleet(source, Path(folder, "run")) as fleet:
            time.sleep(SETTLE_SECONDS)
            pids = [fleet.instances[name].pid for name in names]
            with Redis.from_url(fleet.topology.regions["eu"].queue) as queue:
                began, used = time.monotonic(), _cpu_us(pids)
                per_instance = _commands(queue, seconds) / (time.monotonic() - began) / (idle + 1)
                took = time.monotonic() - began
                rest_us = (_cpu_us(pids) - used) / took
            changes, p99s = [], []
            urls = [fleet.url(name) for name in names]
            for rate in rates:
                lags = _lags(urls)
                began, used = time.monotonic(), _cpu_us(pids)
                made = asyncio.run(_change(fleet.url(PUBLISHER), rate, seconds))
                took = time.monotonic() - began
                changes.append((made / took, (_cpu_us(pids) - used - rest_us * took) / max(made, 1)))
                p99s.append(quantile(_lags(urls) - lags, 0.99))
    return Row(idle, per_instance, rest_us, changes, p99s)


def _lags(urls: Sequence[str]) -> Counter[str]:
    """Returns the fences that these instances have merged, by the bound of their delay."""
    found: Counter[str] = Counter()
    for url in urls:
        with urlopen(f"{url}/metrics") as answer:
            for bound, count in lags_in(Exposition.parse(answer.read().decode())).items():
                found[bound] += round(count)
    return found


async def _change(url: str, rate: float, seconds: float) -> int:
    """Invalidates single keys at a rate, and returns their number."""
    loop = asyncio.get_running_loop()
    made, running, began = 0, set[asyncio.Task[None]](), loop.time()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as session:
        for number in range(round(rate * seconds)):
            await asyncio.sleep(began + number / rate - loop.time())
            one = asyncio.create_task(_invalidate(session, url, f"key-{number}"))
            running.add(one)
            one.add_done_callback(running.discard)
            made += 1
        await asyncio.gather(*running)
    return made


async def _invalidate(session: aiohttp.ClientSession, url: str, key: str) -> None:
    async with session.delete(f"{url}/v1/pages/{key}") as answer:
        await answer.read()
        answer.raise_for_status()


def _commands(queue: Redis, seconds: float) -> int:
    """Returns the commands that clients send to the queue within this time."""
    sent, ends_at = 0, time.monotonic() + seconds
    untyped: Any = queue
    with untyped.monitor() as monitor:
        while time.monotonic() < ends_at:
            sent += monitor.next_command()["client_type"] != "lua"
    return sent


def _cpu_us(pids: Sequence[int]) -> float:
    """Returns the mean CPU time of these processes, µs."""
    return mean(
        sum(
            int(task.joinpath("schedstat").read_text().split()[0]) / 1000
            for task in Path(f"/proc/{pid}/task").iterdir()
        )
        for pid in pids
    )


if __name__ == "__main__":
    main()
