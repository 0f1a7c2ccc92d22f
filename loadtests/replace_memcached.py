"""Measures what it costs to replace a memcached server under load, warm and cold.

    python -m loadtests.replace_memcached

The servers are real; three memcached servers are one ring, and L3 has room for a small part of the
values, so that a miss in L2 is a load. Readers ask for keys by rank (Zipf) at a steady rate. Each
line has the loads of the origin and the look-ups in L3 per second, in the time before the change
and in the time right after it. `none` has no change at all, and says how even the load is; `cold`
is what a change costs without `l2.warm_up`.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

import yaml
from cachesvc_client import Cache, Namespace, PartialError
from redis.asyncio import Redis

from cachesvc.app.embedded.server_process import stop_all
from cachesvc.commands.pool.edit import PoolEdit, edited
from cachesvc.commands.top.exposition import Exposition
from loadtests.fleet import Fleet
from loadtests.fleet_servers import memcached_server
from loadtests.fleet_topology import free_ports, one_region
from loadtests.workers import NAME, Host

KEYS = [f"doc-{nth}" for nth in range(2_000)]
PER_CALL = 20
CALLS_PER_SECOND = 25
TTL_SECONDS = 12
ROOM_BYTES = 512 << 10
"""The room that the cell has beyond what it uses when it is empty."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.replace_memcached")
    parser.add_argument("--seconds", type=float, default=6.0, help="the length of each of both times")
    seconds = parser.parse_args().seconds
    print("          loads/s before    after    ratio    L3 look-ups/s before    after")
    for name, warm_up in (("none", ""), ("warm", "5m"), ("cold", "0s")):
        before, after = _measured(warm_up, seconds)
        loads = [one["loads"] / seconds for one in (before, after)]
        looks = [one["l3"] / seconds for one in (before, after)]
        ratio = loads[1] / loads[0]
        print(f"{name:8}  {loads[0]:14.1f}  {loads[1]:7.1f}  {ratio:7.2f}  {looks[0]:22.1f}  {looks[1]:7.1f}")


def _measured(warm_up: str, seconds: float) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Returns what was counted before the change and after it; no `warm_up`: no change."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "document.yaml")
        source.write_text(yaml.safe_dump(_document()))
        settings = {"CACHESVC_L1_BUDGET": "1MiB", "CACHESVC_L2_WARM_UP": warm_up or "0s"}
        with Fleet(source, Path(folder, "run"), with_instances=False, with_origin=True) as fleet:
            (port,) = free_ports(1)
            new = memcached_server("new", port, fleet.run_dir)
            new.start()
            try:
                asyncio.run(_limit(fleet))
                with Host(fleet, 1, settings) as host:
                    address = f"127.0.0.1:{port}" if warm_up else ""
                    return asyncio.run(_change_under_load(fleet, host, address, seconds))
            finally:
                stop_all([new])


def _document() -> dict[str, object]:
    (port,) = free_ports(1)
    windows = {"stale_while_revalidate": "0s", "stale_if_error": "0s", "early_refresh": 0, "jitter": 0.5}
    origin = {"url": f"http://127.0.0.1:{port}/docs/{{key}}", "concurrency": 256}
    document = one_region([NAME], ttl=f"{TTL_SECONDS}s", origin=origin, **windows)
    pool = document["regions"]["eu"]["pool"]
    pool |= {
        f"m{nth}": {"address": f"127.0.0.1:{free}"} for nth, free in zip((2, 3), free_ports(2), strict=True)
    }
    return document


async def _limit(fleet: Fleet) -> None:
    """Gives the cell less room than the values need."""
    async with Redis(port=fleet.port("cell-c1")) as redis:
        used = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory", used + ROOM_BYTES)


async def _change_under_load(
    fleet: Fleet, host: Host, address: str, seconds: float
) -> tuple[Mapping[str, float], Mapping[str, float]]:
    async with Cache.from_url(host.url, default_timeout="5s") as cache, asyncio.TaskGroup() as load:
        ends = asyncio.Event()
        load.create_task(_read(cache, ends))
        await asyncio.sleep(4 * TTL_SECONDS)  # after that, loads come evenly
        counted: list[Mapping[str, float]] = [await asyncio.to_thread(_counted, host)]
        await asyncio.sleep(seconds)
        counted.append(await asyncio.to_thread(_counted, host))
        if address:
            edit = PoolEdit("eu", "pool", "m1", {"address": address})
            fleet.topology_path.write_text(edited(fleet.topology_path.read_text(), edit, ""))
        counted.append(await _changed(host, counted[-1]) if address else counted[-1])
        await asyncio.sleep(seconds)
        counted.append(await asyncio.to_thread(_counted, host))
        ends.set()
    begin, calm, changed, end = counted
    return _less(calm, begin), _less(end, changed)


async def _changed(host: Host, before: Mapping[str, float]) -> Mapping[str, float]:
    """Returns what is counted as soon as the ring has the new server, which is counted from 0."""
    while (now := await asyncio.to_thread(_counted, host))["m1"] >= before["m1"]:  # noqa: ASYNC110  over HTTP
        await asyncio.sleep(0.02)
    return now


async def _read(cache: Cache, ends: asyncio.Event) -> None:
    """Asks at a steady rate, whether the answers come or not, until `ends` is set."""
    pages, calls = cache.namespace("pages"), _calls()
    began = time.monotonic()
    async with asyncio.TaskGroup() as running:
        for nth, keys in enumerate(calls):
            await asyncio.sleep(max(0.0, began + nth / CALLS_PER_SECOND - time.monotonic()))
            running.create_task(_get(pages, keys))
            if ends.is_set():
                break


async def _get(pages: Namespace[bytes], keys: list[str]) -> None:
    with suppress(PartialError):  # an instance on a busy machine sheds load; it counts what it does
        await pages.get_many(keys)


def _calls() -> Iterator[list[str]]:
    weights, rng = list(accumulate(1 / (nth + 1) ** 0.9 for nth in range(len(KEYS)))), random.Random(7)
    while True:
        yield rng.choices(KEYS, cum_weights=weights, k=PER_CALL)


def _counted(host: Host) -> dict[str, float]:
    found: Exposition = host.metrics()
    looks = found.by("lookups_total", "outcome", tier="l3")
    asked = found.by("server_keys_total", "outcome", server="m1")
    return {
        "loads": found.value("loads_begun_total") or 0.0,
        "l3": sum(looks.values()),
        "m1": sum(asked.values()),
    }


def _less(end: Mapping[str, float], begin: Mapping[str, float]) -> Mapping[str, float]:
    return {name: end[name] - begin[name] for name in end}


if __name__ == "__main__":
    main()
