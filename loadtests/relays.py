"""Measures the cost of workers that only follow: by themselves, and through a relay.

    python -m loadtests.relays --seconds 5

Servers are real. For 1, 2 and 4 workers, with and without `coherence.relay_log`:

    calls/s        of the queue's server at rest: scripts, and waits for items
    CPU at rest    of the last worker, as a part of a core
    CPU a change   of the last worker, beyond that at rest: single changes come at an even pace from
                   a producer. Without a relay it applies its part of them
    merged p50, p99    the time from the append of a fence to its merge in a worker, as the bound of
                       the histogram's bucket (`cachesvc_change_lag_seconds`)
"""

import argparse
import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml
from redis.asyncio import Redis

from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.commands.top.exposition import Exposition
from cachesvc.model.change import Change
from loadtests.fleet import Fleet
from loadtests.workers import Host, document

RATE = 100
"""Changes per second."""
CALLS = ("evalsha", "eval", "xread", "xreadgroup")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=5.0, help="Of each measurement (default: 5).")
    seconds = options.parse_args().seconds
    print("workers  read from  calls/s  CPU at rest  CPU a change  merged p50  merged p99")
    for workers in (1, 2, 4):
        for source, log in (("queue", "0B"), ("relay", "8MiB")):
            if workers > 1 or source == "queue":
                print(f"{workers:7}  {source:9}  {_measured(workers, log, seconds)}", flush=True)


def _measured(workers: int, log: str, seconds: float) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "document.yaml")
        source.write_text(yaml.safe_dump(document(workers)))
        with (
            Fleet(source, Path(folder, "run"), with_instances=False) as fleet,
            Host(fleet, workers, {"CACHESVC_COHERENCE_RELAY_LOG": log}) as host,
        ):
            return asyncio.run(_figures(host, fleet.port("queue-eu"), seconds))


async def _figures(host: Host, port: int, seconds: float) -> str:
    await asyncio.sleep(3)
    admin = Redis(port=port)
    before, spent = await _calls(admin), _spent(host)
    await asyncio.sleep(seconds)
    calls = (await _calls(admin) - before) / seconds
    at_rest = (_spent(host) - spent) / seconds
    await admin.aclose()
    lags, spent = _lags(host), _spent(host)
    took = await _change(port, seconds)
    a_change = ((_spent(host) - spent) / took - at_rest) / RATE
    counted = {bound: count - lags.get(bound, 0) for bound, count in _lags(host).items()}
    return (
        f"{calls:7.1f}  {at_rest:11.2%}  {a_change * 1e6:9.0f} us  "
        f"{quantile(counted, 0.5):>10}  {quantile(counted, 0.99):>10}"
    )


async def _calls(admin: "Redis") -> int:
    about = await admin.info("commandstats")
    return sum(int(about[f"cmdstat_{name}"]["calls"]) for name in CALLS if f"cmdstat_{name}" in about)


def _spent(host: Host) -> float:
    """Returns the time that the last worker has run on a core, in seconds."""
    tasks = Path(f"/proc/{host.pids()[-1]}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def _change(port: int, seconds: float) -> float:
    """Appends single changes at an even pace; returns the time that it took, in seconds."""
    loop, producer = asyncio.get_running_loop(), RedisChanges(f"redis://127.0.0.1:{port}/0", "eu")
    began = loop.time()
    for nth in range(round(seconds * RATE)):
        await producer.append(Change("pages", keys=(f"changed-{nth}",)))
        await asyncio.sleep(max(0.0, began + (nth + 1) / RATE - loop.time()))
    await producer.stop()
    return loop.time() - began


def _lags(host: Host) -> Mapping[str, float]:
    """Returns the fences merged, counted by the upper bound of their delay."""
    return lags_in(host.metrics())


def lags_in(metrics: Exposition) -> Mapping[str, float]:
    """Returns the fences merged, counted by the upper bound of their delay."""
    return metrics.by("change_lag_seconds_bucket", "le", stage="merged")


def quantile(counted: Mapping[str, float], share: float) -> str:
    """Returns the bound of the bucket, in milliseconds, below which this share of them lies."""
    by_bound = sorted((float(le), count) for le, count in counted.items())
    if not by_bound or not by_bound[-1][1]:
        return "none"
    bound = next(le for le, count in by_bound if count >= share * by_bound[-1][1])
    return f"{bound * 1000:.3g} ms"


if __name__ == "__main__":
    main()
